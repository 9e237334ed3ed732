"""Fetching all files of an order: connections share the work, a thread checks what has arrived.

Every connection is a thread that takes the next part of a file; several parts of one big file are
under way at once. Behind them one thread follows the front of each file with its hash, so that a
file is verified a moment after its last byte and moves to its blob.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ostler.core.disk import FULL
from ostler.downloads.faults import Fault, NoSpace, Passing, RangesIgnored, WrongBytes
from ostler.downloads.order import Order, OrderedFile
from ostler.downloads.pacing import RateLimit, backoff_s
from ostler.downloads.partial import Partial, Span, staged_bytes
from ostler.downloads.placing import Placing
from ostler.downloads.transfer import Transfer

LOG = logging.getLogger(__name__)

PART_BYTES = 16 * 1024 * 1024
HASH_STEP_BYTES = 4 * 1024 * 1024
GOOD_PROGRESS_BYTES = 256 * 1024
"""A try that brought this much was worth it: failures are counted from the beginning again."""
SLOWEST_BYTES_PER_S = 1024
"""A connection that is slower than this over the timeout counts as silent."""


class _Work:
    """One file under way. Guarded by the lock of its Fetch, the digest by the thread that checks."""

    def __init__(self, file: OrderedFile, partial: Partial) -> None:
        self.file = file
        self.partial = partial
        self.pending: deque[Span] = deque(partial.missing(PART_BYTES))
        self.flying = 0
        self.whole = False
        self.again = False
        """It was wrong once and is fetched again."""
        self.hashed = 0
        self.digest = digest_of(file)

    def begin_again(self) -> None:
        """Drop all that has arrived."""
        self.partial.restart()
        self.whole = False
        self.pending = deque(self.partial.missing(PART_BYTES))
        self.again, self.hashed, self.digest = True, 0, digest_of(self.file)


class Fetch:
    """Brings every file of the order into the blobs of the cache. `run` in one thread, `stop` from any."""

    def __init__(
        self,
        order: Order,
        placing: Placing,
        transfer: Transfer,
        limit: RateLimit,
        *,
        random: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.total_bytes = sum(file.size for file in order.files)
        self.done_bytes = 0
        self.received_bytes = 0
        self.current_file = ""
        self.step = "fetching"
        self._order = order
        self._placing = placing
        self._transfer = transfer
        self._limit = limit
        self._random = random
        self._monotonic = monotonic
        self._staging = Path(order.staging_dir)
        self._changed = threading.Condition()
        self._stopped = threading.Event()
        self._over = threading.Event()
        self._not_before = 0.0
        self._fault: BaseException | None = None
        self._waiting: deque[OrderedFile] = deque()
        self._active: list[_Work] = []

    def run(self, tell: Callable[[], None], tell_every_s: float) -> None:
        """Fetch and verify; calls `tell` now and then. Raises a Fault; what has arrived is kept."""
        wanted = {file.etag: file for file in self._order.files if not self._placing.has_contents(file)}
        staged = {etag: staged_bytes(self._staging, etag, file.size) for etag, file in wanted.items()}
        self.done_bytes = self.total_bytes - sum(f.size - staged[e] for e, f in wanted.items())
        self._waiting.extend(wanted.values())
        threads = [
            threading.Thread(target=self._guarded, args=(work,), daemon=True)
            for work in [self._check] + [self._connection] * self._order.connections
        ]
        for thread in threads:
            thread.start()
        while not self._over.wait(tell_every_s):
            tell()
        for thread in threads:
            thread.join(timeout=1.0)
        self.save()
        tell()
        if self._fault is not None:
            raise self._fault

    def save(self) -> None:
        """Write down what has arrived of the files under way."""
        with self._changed:
            for work in self._active:
                work.partial.save()

    # -- a thread's life -------------------------------------------------------------------------

    def _guarded(self, work: Callable[[], None]) -> None:
        """Run one thread's work; its failure ends all."""
        try:
            work()
        except OSError as error:
            full = error.errno in FULL
            self._end(NoSpace("the disk is full") if full else Fault(f"the disk failed: {error}"))
        except Exception as error:
            if not isinstance(error, Fault):
                LOG.exception("a connection failed unexpectedly")
            self._end(error)

    def _end(self, fault: BaseException | None) -> None:
        with self._changed:
            if self._fault is None and not self._over.is_set():
                self._fault = fault
            self._stopped.set()
            self._over.set()
            self._changed.notify_all()

    # -- connections -----------------------------------------------------------------------------

    def _connection(self) -> None:
        while (part := self._next_part()) is not None:
            work, (begin, end) = part
            try:
                self._fetch(work, _Cursor(begin, end))
            finally:
                with self._changed:
                    work.flying -= 1
                    self._changed.notify_all()

    def _next_part(self) -> tuple[_Work, Span] | None:
        """The next piece of work; waits for one, and returns None when all is over."""
        with self._changed:
            while not self._stopped.is_set():
                for work in self._active:
                    if work.pending:
                        work.flying += 1
                        self.current_file = work.file.path
                        return work, work.pending.popleft()
                if not self._waiting:
                    self._changed.wait()
                    continue
                file = self._waiting.popleft()
                self._active.append(_Work(file, Partial(self._staging, file.etag, file.size)))
                self._changed.notify_all()
        return None

    def _fetch(self, work: _Work, at: _Cursor) -> None:
        """Fetch one part, trying again after faults that may pass."""
        failures = 0
        while at.begin < at.end and not self._stopped.is_set():
            self._stopped.wait(max(0.0, self._not_before - self._monotonic()))
            if at.whole:
                at.begin = 0
            start = at.begin
            try:
                with self._transfer.span(work.file, at.begin, at.end, whole=at.whole) as chunks:
                    self._take(work, at, chunks)
            except RangesIgnored:
                if not self._takes_it_whole(work):
                    return
                at.end, at.whole = work.file.size, True
            except Passing as passing:
                failures = 1 if at.begin - start >= GOOD_PROGRESS_BYTES else failures + 1
                self._after(passing, failures)

    def _take(self, work: _Work, at: _Cursor, chunks: Iterator[memoryview]) -> None:
        """Write what comes; raises Passing when it ends early or comes too slowly."""
        waited_s, came = 0.0, 0
        asked_at = self._monotonic()
        for chunk in chunks:
            if self._stopped.is_set():
                return
            new = work.partial.write(at.begin, chunk)
            at.begin += len(chunk)
            waited_s, came = waited_s + self._monotonic() - asked_at, came + len(chunk)
            with self._changed:
                self.done_bytes += new
                self.received_bytes += len(chunk)
                self._changed.notify_all()
            if waited_s >= self._order.timeout_s:
                if came < SLOWEST_BYTES_PER_S * waited_s:
                    raise Passing(f"{work.file.path}: {came} bytes came in {waited_s:.0f} s")
                waited_s, came = 0.0, 0
            self._stopped.wait(self._limit.pause_s(len(chunk)))
            asked_at = self._monotonic()
        if at.begin < at.end:
            raise Passing(f"{work.file.path}: the connection was cut")

    def _takes_it_whole(self, work: _Work) -> bool:
        """The server ignores ranges: one connection fetches all of the file, the others leave it."""
        with self._changed:
            if work.whole:
                return False
            work.whole = True
            work.pending.clear()
            return True

    def _after(self, passing: Passing, failures: int) -> None:
        """Wait before the next try, or give up."""
        if self._stopped.is_set():
            return
        if failures > self._order.retries:
            fault = Fault(f"{passing} (tried {failures} times)")
            fault.code = passing.code
            raise fault
        wait_s = backoff_s(self._order.backoff_s, failures, self._random())
        if passing.retry_after_s is not None:
            # The hub speaks to all connections of this job.
            wait_s = max(wait_s, passing.retry_after_s)
            self._not_before = max(self._not_before, self._monotonic() + wait_s)
        LOG.info("%s; next try in %.1f s", passing, wait_s)
        self.step = f"waiting {wait_s:.0f} s: {passing}" if wait_s >= 1 else self.step
        self._stopped.wait(wait_s)
        self.step = "fetching"

    # -- checking --------------------------------------------------------------------------------

    def _check(self) -> None:
        while not self._stopped.is_set():
            with self._changed:
                if not self._active and not self._waiting:
                    break
                work = next((w for w in self._active if _has_news(w)), None)
                if work is None:
                    self._changed.wait()
                    continue
                front = work.partial.front()
                arrived = not work.pending and not work.flying
            if front - work.hashed >= HASH_STEP_BYTES or arrived:
                work.partial.hash_up_to(work.digest, work.hashed, front)
                work.hashed = front
            if arrived and work.hashed == work.file.size:
                self._judge(work)
            elif arrived:
                with self._changed:
                    work.pending.extend(work.partial.missing(PART_BYTES))
                    self._changed.notify_all()
        self._end(None)

    def _judge(self, work: _Work) -> None:
        """The last byte is there: move the file to its blob, or fetch it once more."""
        file = work.file
        if work.digest.hexdigest() == (file.sha256 or file.etag):
            work.partial.finish(self._placing.blob(file))
            with self._changed:
                self._active.remove(work)
                self._changed.notify_all()
            return
        if work.again:
            work.partial.restart()
            raise WrongBytes(f"{file.path} has other contents than the hub promised, twice")
        LOG.warning("%s has other contents than the hub promised; it is fetched again", file.path)
        with self._changed:
            self.done_bytes -= file.size
            work.begin_again()
            self._changed.notify_all()


@dataclass(slots=True)
class _Cursor:
    """Where a connection is in its part; `whole`: the server only gives the whole file."""

    begin: int
    end: int
    whole: bool = False


def _has_news(work: _Work) -> bool:
    """True when the hash can go on a good step, or the file has arrived."""
    return work.partial.front() - work.hashed >= HASH_STEP_BYTES or (not work.pending and not work.flying)


def digest_of(file: OrderedFile) -> hashlib._Hash:
    """SHA-256 of large files, for others git's SHA-1 of a blob (the length comes before the contents)."""
    if file.sha256 is not None:
        return hashlib.sha256()
    digest = hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % file.size)
    return digest

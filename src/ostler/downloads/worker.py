"""The child process of one download: `python -m ostler.downloads.worker`.

`jobs/child.py` says how it is spoken to. The order holds the token, which is never in argv or the
environment; news are {"rate_limit": bytes per second}.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

from ostler.core.disk import FULL
from ostler.downloads.faults import Fault, UnsafeName
from ostler.downloads.fetch import Fetch, digest_of
from ostler.downloads.order import Order, OrderedFile
from ostler.downloads.pacing import RateLimit
from ostler.downloads.placing import Placing
from ostler.downloads.transfer import Transfer
from ostler.jobs.child_side import ChildSide
from ostler.jobs.rate import Rate
from ostler.library.errors import UnsafePath

TELL_EVERY_S = 0.1
READ_BYTES = 1024 * 1024


class Worker:
    """One order, carried out."""

    def __init__(self, order: Order, server: ChildSide) -> None:
        self._order = order
        self._server = server
        self._said: dict[str, Any] = {}
        self._rate = Rate(time.monotonic)
        self.limit = RateLimit(order.rate_limit, time.monotonic)
        self._fetch: Fetch | None = None
        self._etags: dict[str, str] = {}

    def run(self) -> None:
        """Fetch, verify, place. Raises a Fault; OSError where the disk does not do what it should."""
        order = self._order
        staging = Path(order.staging_dir)
        with self._server.alone_in(staging, "fetches the same files"):
            try:
                placing = Placing(Path(order.repo_dir), order.commit)
                for file in order.files:
                    placing.pointer(file), placing.blob(file)  # refuse unsafe names before the first byte
                placing.make_folders()
                for file in order.files:
                    self._adopt(file, placing, staging)
                fetched = self._fetch_all(placing)
                placing.show(order.files, order.primary, order.revision, staging)
            except UnsafePath as error:
                raise UnsafeName(error.message) from error
        total = sum(file.size for file in order.files)
        self._server.say("done", bytes=total, fetched_bytes=fetched, etags=self._etags)

    def save(self) -> None:
        """Write down what has arrived, before the process ends."""
        if self._fetch is not None:
            self._fetch.save()

    def _adopt(self, file: OrderedFile, placing: Placing, staging: Path) -> None:
        """Where a file on this disk has the contents already, give it its name in the cache too."""
        twin = Path(file.twin) if file.twin else None
        if twin is None or placing.has_contents(file) or not _is_size(twin, file.size):
            return
        self._server.say("progress", step=f"checking {twin.name}", current_file=file.path)
        digest = digest_of(file)
        with twin.open("rb") as reader:
            while piece := reader.read(READ_BYTES):
                digest.update(piece)
        if digest.hexdigest() != file.etag:
            return
        fresh = staging / "twin"
        fresh.unlink(missing_ok=True)
        try:
            os.link(os.path.realpath(twin), fresh)
        except OSError:  # another disk, or one without hard links: it is fetched
            return
        fresh.replace(placing.blob(file))

    def _fetch_all(self, placing: Placing) -> int:
        transfer = Transfer(self._order)
        self._fetch = Fetch(self._order, placing, transfer, self.limit, random=random.random)
        fetch = self._fetch
        fetch.run(lambda: self._progress(fetch), TELL_EVERY_S)
        self._etags = transfer.etags
        return fetch.received_bytes

    def _progress(self, fetch: Fetch) -> None:
        rate = self._rate.at(fetch.done_bytes)
        left = fetch.total_bytes - fetch.done_bytes
        facts = {
            "bytes_done": fetch.done_bytes,
            "bytes_total": fetch.total_bytes,
            "current_file": fetch.current_file,
            "rate_bytes_per_s": round(rate),
            "eta_s": round(left / rate, 1) if rate > 0 else None,
            "step": fetch.step,
        }
        if facts != self._said:
            self._said = facts
            self._server.say("progress", **facts)


def _is_size(path: Path, size: int) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size
    except OSError:
        return False


def main() -> None:
    """Carry out the order on stdin. Exit codes: 0 done, 1 failed and said so, 3 nobody waits."""
    server = ChildSide()
    worker = Worker(Order.from_json(server.read_order()), server)

    def limit(news: Any) -> None:
        worker.limit.bytes_per_s = int(news["rate_limit"])

    server.listen(limit, worker.save)
    try:
        worker.run()
    except Fault as fault:
        server.say("failed", code=fault.code, message=str(fault))
        server.exit(1)
    except OSError as error:
        code = "disk_full" if error.errno in FULL else "disk_error"
        server.say("failed", code=code, message=f"{error.strerror}: {error.filename or ''}".rstrip(": "))
        server.exit(1)
    server.exit(0)


if __name__ == "__main__":
    main()

"""The child process of one download: `python -m ostler.downloads.worker`.

The first line of stdin is the order (JSON, with the token: never in argv or the environment),
further lines change it ({"rate_limit": bytes per second}); the end of stdin means that nobody
waits any more (the server was told to stop, or was killed) and ends the process. Stdout has JSON
lines: {"event": "progress", ...}, at the end {"event": "done", ...} or {"event": "failed", ...}.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any, TextIO

from ostler.downloads.faults import FULL, Fault, UnsafeName
from ostler.downloads.fetch import Fetch
from ostler.downloads.order import Order
from ostler.downloads.pacing import RateLimit
from ostler.downloads.placing import Placing
from ostler.downloads.rate import Rate
from ostler.downloads.transfer import Transfer
from ostler.library.errors import UnsafePath

TELL_EVERY_S = 0.1
LOCK_POLL_S = 0.2


class Worker:
    """One order, carried out."""

    def __init__(self, order: Order, answers: TextIO) -> None:
        self._order = order
        self._answers = answers
        self._said: dict[str, Any] = {}
        self._rate = Rate(time.monotonic)
        self.limit = RateLimit(order.rate_limit, time.monotonic)
        self._fetch: Fetch | None = None

    def run(self) -> None:
        """Fetch, verify, place. Raises a Fault; OSError where the disk does not do what it should."""
        order = self._order
        staging = Path(order.staging_dir)
        staging.mkdir(parents=True, exist_ok=True)
        with (staging / "lock").open("w") as lock:
            self._wait_for(lock)
            try:
                placing = Placing(Path(order.repo_dir), order.commit)
                for file in order.files:
                    placing.pointer(file), placing.blob(file)  # refuse unsafe names before the first byte
                placing.make_folders()
                fetched = self._fetch_all(placing)
                placing.show(order.files, order.primary, order.revision, staging)
            except UnsafePath as error:
                raise UnsafeName(error.message) from error
        self.say("done", bytes=sum(file.size for file in order.files), fetched_bytes=fetched)

    def say(self, event: str, **facts: Any) -> None:
        """One line for the server."""
        self._answers.write(json.dumps({"event": event, **facts}) + "\n")
        self._answers.flush()

    def save(self) -> None:
        """Write down what has arrived, before the process ends."""
        if self._fetch is not None:
            self._fetch.save()

    def _fetch_all(self, placing: Placing) -> int:
        transfer = Transfer(self._order)
        self._fetch = Fetch(self._order, placing, transfer, self.limit, random=random.random)
        fetch = self._fetch
        fetch.run(lambda: self._progress(fetch), TELL_EVERY_S)
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
            self.say("progress", **facts)

    def _wait_for(self, lock: TextIO) -> None:
        """Only one process works in a staging folder; a former one may still be ending."""
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.say("progress", step="waiting for another process that fetches the same files")
                time.sleep(LOCK_POLL_S)
            else:
                return


def _listen(orders: TextIO, worker: Worker) -> None:
    """Take changes; at the end of stdin end this process, whatever it is doing."""
    for line in orders:
        news = json.loads(line)
        worker.limit.bytes_per_s = int(news["rate_limit"])
    worker.save()
    os._exit(3)


def main() -> int:
    """Carry out the order on stdin. Exit codes: 0 done, 1 failed and said so, 3 nobody waits."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    worker = Worker(Order.from_json(json.loads(sys.stdin.readline())), sys.stdout)
    threading.Thread(target=_listen, args=(sys.stdin, worker), daemon=True).start()
    try:
        worker.run()
    except Fault as fault:
        worker.say("failed", code=fault.code, message=str(fault))
        return 1
    except OSError as error:
        code = "disk_full" if error.errno in FULL else "disk_error"
        worker.say("failed", code=code, message=f"{error.strerror}: {error.filename or ''}".rstrip(": "))
        return 1
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # connections that still wait for an answer need not be waited for

"""The child's side of `child.py`: hear the order and news, say how far it is, end when nobody waits."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LOCK_POLL_S = 0.2
NOBODY_WAITS = 3
"""The exit code of a child whose server is gone or does not want it any more."""


class ChildSide:
    """This process as the server hears it: lines on stdin, lines on stdout."""

    def read_order(self) -> dict[str, Any]:
        """The first line of stdin."""
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        order: dict[str, Any] = json.loads(sys.stdin.readline())
        return order

    def listen(self, on_news: Callable[[Mapping[str, Any]], None], on_end: Callable[[], None]) -> None:
        """Hear further lines from now on; at the end of stdin call `on_end` and end this process."""

        def hear() -> None:
            for line in sys.stdin:
                on_news(json.loads(line))
            on_end()
            os._exit(NOBODY_WAITS)

        threading.Thread(target=hear, daemon=True).start()

    def say(self, event: str, **facts: Any) -> None:
        """One line for the server."""
        sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
        sys.stdout.flush()

    @contextmanager
    def alone_in(self, folder: Path, waiting_for: str) -> Iterator[None]:
        """Make the folder and be the only process that works in it; a former one may still be ending."""
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    self.say("progress", step=f"waiting for another process that {waiting_for}")
                    time.sleep(LOCK_POLL_S)
                else:
                    break
            yield

    def exit(self, status: int) -> None:
        """End now: connections and threads that still wait need not be waited for."""
        sys.stdout.flush()
        os._exit(status)

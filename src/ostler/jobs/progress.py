"""What a running job tells of its progress: kept in memory, told to listeners at a bounded rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ostler.core.clock import Clock
from ostler.jobs.records import ProgressData

ANNOUNCE_EVERY_S = 0.25


class Progress:
    """The newest progress of one running job.

    `bytes_done` never goes back, whatever the runner says. `tell` is called at once for the first
    report, then at most once per ANNOUNCE_EVERY_S, and always for the last one.
    """

    def __init__(self, first: ProgressData, clock: Clock, tell: Callable[[ProgressData], None]) -> None:
        self.values: dict[str, Any] = dict(first)
        self.changed = False
        self._clock = clock
        self._tell = tell
        self._told_at = float("-inf")
        self._later: asyncio.TimerHandle | None = None

    def report(self, news: ProgressData) -> None:
        """Take in what the runner says."""
        floor = self.values.get("bytes_done")
        self.values.update(news)
        if floor is not None and (self.values.get("bytes_done") or 0) < floor:
            self.values["bytes_done"] = floor
        self.changed = True
        if self._later is None:
            wait_s = self._told_at + ANNOUNCE_EVERY_S - self._clock.monotonic()
            if wait_s <= 0:
                self._announce()
            else:
                self._later = asyncio.get_running_loop().call_later(wait_s, self._announce)

    def close(self) -> None:
        """Tell nothing more."""
        if self._later is not None:
            self._later.cancel()

    def _announce(self) -> None:
        self._later = None
        self._told_at = self._clock.monotonic()
        self._tell(dict(self.values))

"""Time, injected: rooms never ask the operating system for it directly."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class Clock:
    """The real clock. Durations use `monotonic`, so a jump of the wall clock changes nothing."""

    def now(self) -> datetime:
        """The wall-clock time, aware, in UTC: for showing and storing only."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since an arbitrary start that never go back: for every duration and timeout."""
        return time.monotonic()

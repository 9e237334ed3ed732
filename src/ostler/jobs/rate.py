"""The rate that a person sees: over the last seconds, and steady."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

WINDOW_S = 5.0


class Rate:
    """Bytes per second over the last WINDOW_S."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, done_bytes: int) -> float:
        """Take in how much is done now; the rate, never negative."""
        now = self._monotonic()
        self._seen.append((now, done_bytes))
        while len(self._seen) > 2 and now - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()
        then, before = self._seen[0]
        return max(0.0, (done_bytes - before) / (now - then)) if now > then else 0.0

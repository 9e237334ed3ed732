"""How fast and how often: the limit of bandwidth, and the waits between tries."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_BACKOFF_S = 30.0
MAX_RETRY_AFTER_S = 600.0


class RateLimit:
    """Bytes per second over all connections of a job; 0 means no limit. May change at any time."""

    def __init__(self, bytes_per_s: int, monotonic: Callable[[], float]) -> None:
        self.bytes_per_s = bytes_per_s
        self._monotonic = monotonic
        self._free_at = monotonic()
        self._lock = threading.Lock()

    def pause_s(self, size_bytes: int) -> float:
        """Account for bytes that arrived; how long to wait before taking more."""
        if not self.bytes_per_s:
            return 0.0
        with self._lock:
            now = self._monotonic()
            self._free_at = max(self._free_at, now) + size_bytes / self.bytes_per_s
            return self._free_at - now


def backoff_s(base_s: float, failures: int, random: float) -> float:
    """The wait before the next try after so many failures in a row: exponential, with jitter.

    `random` in [0, 1) takes up to half of it away, so that many clients do not come back together.
    """
    return float(min(MAX_BACKOFF_S, base_s * 2.0 ** (failures - 1)) * (1 - random / 2))


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110, 10.2.3: a number or a date)."""
    if not header:
        return None
    try:
        wait_s = float(header)
    except ValueError:
        try:
            until = parsedate_to_datetime(header)
        except (TypeError, ValueError):
            return None
        wait_s = ((until if until.tzinfo else until.replace(tzinfo=UTC)) - now).total_seconds()
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S) if wait_s == wait_s else None

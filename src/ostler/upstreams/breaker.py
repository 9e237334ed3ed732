"""A circuit breaker: an upstream that keeps failing is left alone for a while, then tried by one request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

BreakerState = Literal["closed", "open", "half_open"]


class Breaker:
    """Counts failures in a row.

    `threshold` of them open it; after `cooldown_s` seconds it lets one request through (half open), whose
    end closes it or opens it again. Both are asked anew each time; a threshold of 0 means never.
    """

    def __init__(
        self, now: Callable[[], float], threshold: Callable[[], int], cooldown_s: Callable[[], float]
    ) -> None:
        self._now = now
        self._threshold = threshold
        self._cooldown_s = cooldown_s
        self._opened_at: float | None = None
        self._is_trying = False
        self.failures = 0
        self.times_opened = 0

    @property
    def state(self) -> BreakerState:
        """How it stands now."""
        if self._opened_at is None:
            return "closed"
        return "half_open" if self.retry_after_s <= 0 else "open"

    @property
    def retry_after_s(self) -> float:
        """Seconds until it lets a request through; 0 where it does now."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._cooldown_s() - self._now())

    @property
    def allows(self) -> bool:
        """May a request go there now?"""
        return self._opened_at is None or (self.retry_after_s <= 0 and not self._is_trying)

    def begin(self) -> None:
        """A request goes there."""
        if self._opened_at is not None:
            self._is_trying = True

    def succeeded(self) -> None:
        """It answered."""
        self.failures, self._opened_at, self._is_trying = 0, None, False

    def failed(self) -> None:
        """It could not be reached, or broke off."""
        self.failures += 1
        self._is_trying = False
        if self._opened_at is not None or 0 < self._threshold() <= self.failures:
            self._opened_at = self._now()
            self.times_opened += 1

    def left(self) -> None:
        """The request ended without a word about the upstream: its client went away."""
        self._is_trying = False

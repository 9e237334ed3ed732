"""Failed sign-ins: after a few, one has to wait."""

from __future__ import annotations

from collections import OrderedDict, deque

from ostler.core.clock import Clock
from ostler.core.errors import RateLimited

WINDOW_S = 300.0
PER_NAME_AND_ADDRESS = 5
PER_ADDRESS = 30
REMEMBERED = 10_000


class Attempts:
    """Counts failed sign-ins per person and address, and per address; the memory it takes is bounded."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: OrderedDict[tuple[str, str], deque[float]] = OrderedDict()

    def check(self, name: str, address: str) -> None:
        """Raise RateLimited when there were too many failures in the last WINDOW_S seconds."""
        now = self._clock.monotonic()
        for who, most in (((name, address), PER_NAME_AND_ADDRESS), (("", address), PER_ADDRESS)):
            times = self._recent(who, now)
            if len(times) >= most:
                raise RateLimited(
                    "too many failed sign-ins",
                    retry_after_s=max(1.0, times[0] + WINDOW_S - now),
                    hint="Wait a few minutes, or ask an administrator for a new password.",
                )

    def failed(self, name: str, address: str) -> None:
        """Note a failure."""
        now = self._clock.monotonic()
        for who in ((name, address), ("", address)):
            self._failures.setdefault(who, deque(maxlen=PER_ADDRESS)).append(now)
            self._failures.move_to_end(who)
        while len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)

    def succeeded(self, name: str, address: str) -> None:
        """Forget the failures of this person at this address."""
        self._failures.pop((name, address), None)

    def _recent(self, who: tuple[str, str], now: float) -> deque[float]:
        times = self._failures.get(who)
        if times is None:
            return deque()
        while times and times[0] <= now - WINDOW_S:
            times.popleft()
        return times

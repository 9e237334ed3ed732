"""When a fault is followed by another start: pure arithmetic."""

from __future__ import annotations

LONGEST_S = 60.0


def backoff_s(faults: int, first_s: float) -> float:
    """The wait after the `faults`-th fault in a row: doubles each time, up to LONGEST_S."""
    return 0.0 if first_s <= 0 else min(LONGEST_S, first_s * 2 ** min(max(faults - 1, 0), 16))


class Faults:
    """Faults in a row of one model. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.count = 0
        self.blocked_until = 0.0

    def note(self, *, healthy_s: float | None, reset_s: float) -> int:
        """One more fault, after `healthy_s` of running (None: it never ran); long health begins anew."""
        if healthy_s is not None and healthy_s >= reset_s:
            self.count = 0
        self.count += 1
        return self.count

    def block_demand(self, now: float, first_s: float) -> None:
        """After a final failure, requests do not start it again at once: that would be a loop."""
        self.blocked_until = now + backoff_s(self.count, first_s)

    def clear(self) -> None:
        """A person begins anew."""
        self.count = 0
        self.blocked_until = 0.0

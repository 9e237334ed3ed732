"""Limits of a key: requests per minute (token bucket) and requests at once."""

from __future__ import annotations

from dataclasses import dataclass

from ostler.core.clock import Clock
from ostler.core.errors import RateLimited
from ostler.core.principals import Limits, Principal


@dataclass(slots=True)
class _Account:
    """What one principal has left. `tokens` may be a fraction; `at` is monotonic seconds."""

    tokens: float
    at: float
    in_flight: int = 0


class Ticket:
    """One admitted request. `release` when it has ended; more than once does no harm."""

    __slots__ = ("_account",)

    def __init__(self, account: _Account | None) -> None:
        self._account = account

    def release(self) -> None:
        """The request is over."""
        if self._account is not None:
            self._account.in_flight -= 1
            self._account = None

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.release()


_FREE = Ticket(None)


class Limiter:
    """Counts what principals with limits use; one without limits costs nothing.

    Durations come from the monotonic clock, so a jump of the wall clock changes nothing.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._accounts: dict[tuple[int | None, int | None, str], _Account] = {}

    def admit(self, principal: Principal) -> Ticket:
        """Let one request in. Raises RateLimited with `retry_after_s`."""
        limits = principal.limits
        if limits.requests_per_minute is None and limits.concurrency is None:
            return _FREE
        now = self._clock.monotonic()
        account = self._account(principal, limits, now)
        if limits.concurrency is not None and account.in_flight >= limits.concurrency:
            raise RateLimited(
                f"{principal.name} has {account.in_flight} requests running, its limit",
                retry_after_s=1.0,
                hint="Wait for one of them to end, or ask for a higher limit.",
                limit=limits.concurrency,
            )
        if limits.requests_per_minute is not None:
            _take_token(account, limits.requests_per_minute, principal.name, now)
        account.in_flight += 1
        return Ticket(account)

    def forget(self, key_id: int) -> None:
        """Drop what is known of a key that no longer exists."""
        for who in [who for who in self._accounts if who[0] == key_id]:
            del self._accounts[who]

    def _account(self, principal: Principal, limits: Limits, now: float) -> _Account:
        who = (principal.key_id, principal.user_id, principal.name)
        account = self._accounts.get(who)
        if account is None:
            account = _Account(tokens=float(limits.requests_per_minute or 0), at=now)
            self._accounts[who] = account
        return account


def _take_token(account: _Account, per_minute: int, name: str, now: float) -> None:
    account.tokens = min(float(per_minute), account.tokens + (now - account.at) * per_minute / 60)
    account.at = now
    if account.tokens < 1:
        wait_s = (1 - account.tokens) * 60 / per_minute
        raise RateLimited(
            f"{name} may make {per_minute} requests per minute",
            retry_after_s=wait_s,
            hint="Send requests more slowly, or ask for a higher limit.",
            limit=per_minute,
        )
    account.tokens -= 1

"""Limits of a key: requests and tokens, by the minute (token buckets) and by the day, and at once.

Tokens are counted when an answer has ended: a key goes over by its last request, and the next waits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date, timedelta

from ostler.core.clock import Clock
from ostler.core.errors import RateLimited
from ostler.core.principals import Limits, Principal

NO_LIMITS = Limits()


@dataclass(slots=True)
class _Bucket:
    """What is left of a number by the minute; below zero where more was taken. `at`: monotonic seconds."""

    left: float
    at: float

    def refill(self, per_minute: int, now: float) -> None:
        self.left = min(float(per_minute), self.left + (now - self.at) * per_minute / 60)
        self.at = now


@dataclass(slots=True)
class _Account:
    """What one principal uses and has used."""

    requests: _Bucket
    tokens: _Bucket
    in_flight: int = 0
    streams: int = 0
    day: date | None = None
    requests_today: int = 0
    tokens_today: int = 0


@dataclass(slots=True)
class Ticket:
    """One admitted request. `release` when it has ended; more than once does no harm."""

    _account: _Account | None = None
    _principal: Principal | None = None
    _is_stream: bool = field(default=False, init=False)

    def begin_stream(self) -> None:
        """Its answer will be a stream. Raises RateLimited where too many run."""
        account, who = self._account, self._principal
        if account is None or who is None or self._is_stream:
            return
        limit = who.limits.concurrent_streams
        if limit is not None and account.streams >= limit:
            raise _refused(who, f"has {account.streams} streams running, its limit", limit, 1.0)
        account.streams += 1
        self._is_stream = True

    def spend(self, tokens: int) -> None:
        """So many tokens were used by it."""
        if self._account is not None:
            self._account.tokens.left -= tokens
            self._account.tokens_today += tokens

    def release(self) -> None:
        """The request is over."""
        if self._account is not None:
            self._account.in_flight -= 1
            self._account.streams -= self._is_stream
            self._account = None

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.release()


_FREE = Ticket()


class Limiter:
    """Counts what principals with limits use; one without limits costs nothing.

    Durations come from the monotonic clock, so a jump of the wall clock changes nothing but the day.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._accounts: dict[tuple[int | None, int | None, str], _Account] = {}

    def admit(self, principal: Principal) -> Ticket:
        """Let one request in. Raises RateLimited with `retry_after_s`."""
        limits = principal.limits
        if limits == NO_LIMITS:
            return _FREE
        now = self._clock.monotonic()
        account = self._account(principal, now)
        if limits.concurrency is not None and account.in_flight >= limits.concurrency:
            text = f"has {account.in_flight} requests running, its limit"
            raise _refused(principal, text, limits.concurrency, 1.0)
        self._check_day(account, principal)
        if limits.tokens_per_minute is not None:
            account.tokens.refill(limits.tokens_per_minute, now)
            if account.tokens.left <= 0:
                wait_s = (1 - account.tokens.left) * 60 / limits.tokens_per_minute
                text = f"may use {limits.tokens_per_minute} tokens per minute"
                raise _refused(principal, text, limits.tokens_per_minute, wait_s)
        if limits.requests_per_minute is not None:
            account.requests.refill(limits.requests_per_minute, now)
            if account.requests.left < 1:
                wait_s = (1 - account.requests.left) * 60 / limits.requests_per_minute
                text = f"may make {limits.requests_per_minute} requests per minute"
                raise _refused(principal, text, limits.requests_per_minute, wait_s)
            account.requests.left -= 1
        account.requests_today += 1
        account.in_flight += 1
        return Ticket(account, principal)

    def begin_day(self, principal: Principal, requests: int, tokens: int) -> None:
        """What the principal used today before this server was started."""
        account = self._account(principal, self._clock.monotonic())
        self._turn_day(account)
        account.requests_today += requests
        account.tokens_today += tokens

    def forget(self, key_id: int) -> None:
        """Drop what is known of a key that no longer exists."""
        for who in [who for who in self._accounts if who[0] == key_id]:
            del self._accounts[who]

    def _check_day(self, account: _Account, principal: Principal) -> None:
        self._turn_day(account)
        for used, limit, what in (
            (account.requests_today, principal.limits.requests_per_day, "requests"),
            (account.tokens_today, principal.limits.tokens_per_day, "tokens"),
        ):
            if limit is not None and used >= limit:
                raise _refused(
                    principal, f"has used its {limit} {what} of today", limit, self._to_midnight_s()
                )

    def _turn_day(self, account: _Account) -> None:
        today = self._clock.now().date()
        if account.day != today:
            account.day, account.requests_today, account.tokens_today = today, 0, 0

    def _to_midnight_s(self) -> float:
        now = self._clock.now()
        midnight = (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        return (midnight - now).total_seconds()

    def _account(self, principal: Principal, now: float) -> _Account:
        who = (principal.key_id, principal.user_id, principal.name)
        account = self._accounts.get(who)
        if account is None:
            limits = principal.limits
            requests = _Bucket(float(limits.requests_per_minute or 0), now)
            account = _Account(requests, _Bucket(float(limits.tokens_per_minute or 0), now))
            self._accounts[who] = account
        return account


def _refused(principal: Principal, text: str, limit: int, retry_after_s: float) -> RateLimited:
    return RateLimited(
        f"{principal.name} {text}",
        retry_after_s=retry_after_s,
        hint="Wait that long, send requests more slowly, or ask for a higher limit.",
        limit=limit,
    )

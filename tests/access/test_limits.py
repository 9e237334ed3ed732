"""Requests per minute and at once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from ostler.access.limits import Limiter
from ostler.core.errors import RateLimited
from ostler.core.principals import Limits, Principal, Role
from tests.access.conftest import HeldClock


def key(key_id: int = 1, **limits: int) -> Principal:
    return Principal(f"key {key_id}", Role.USER, key_id=key_id, limits=Limits(**limits))


def test_so_many_requests_at_once_and_one_more_when_one_has_ended(clock: HeldClock) -> None:
    limiter = Limiter(clock)
    first, _second = limiter.admit(key(concurrency=2)), limiter.admit(key(concurrency=2))
    with pytest.raises(RateLimited):
        limiter.admit(key(concurrency=2))
    first.release()
    first.release()
    limiter.admit(key(concurrency=2))
    with pytest.raises(RateLimited):
        limiter.admit(key(concurrency=2))


def test_so_many_requests_per_minute_and_the_wait_is_told(clock: HeldClock) -> None:
    limiter = Limiter(clock)
    for _ in range(6):
        limiter.admit(key(requests_per_minute=6)).release()
    with pytest.raises(RateLimited) as refused:
        limiter.admit(key(requests_per_minute=6))
    assert refused.value.retry_after_s == pytest.approx(10)
    clock.pass_s(refused.value.retry_after_s)
    limiter.admit(key(requests_per_minute=6))
    with pytest.raises(RateLimited):
        limiter.admit(key(requests_per_minute=6))


def test_a_long_pause_gives_no_more_than_one_minutes_worth(clock: HeldClock) -> None:
    limiter = Limiter(clock)
    limiter.admit(key(requests_per_minute=2))
    clock.pass_s(3_600)
    limiter.admit(key(requests_per_minute=2))
    limiter.admit(key(requests_per_minute=2))
    with pytest.raises(RateLimited):
        limiter.admit(key(requests_per_minute=2))


def test_a_jump_of_the_wall_clock_changes_nothing(clock: HeldClock) -> None:
    limiter = Limiter(clock)
    limiter.admit(key(requests_per_minute=1))
    clock.wall += timedelta(days=365)
    with pytest.raises(RateLimited):
        limiter.admit(key(requests_per_minute=1))
    clock.wall -= timedelta(days=800)
    clock.pass_s(60)
    limiter.admit(key(requests_per_minute=1))


def test_one_key_does_not_use_up_anothers_limit(clock: HeldClock) -> None:
    limiter = Limiter(clock)
    limiter.admit(key(1, concurrency=1))
    limiter.admit(key(2, concurrency=1))


def test_without_limits_everything_is_admitted(clock: HeldClock) -> None:
    limiter = Limiter(clock)
    tickets = [limiter.admit(key()) for _ in range(10_000)]
    for ticket in tickets:
        ticket.release()


def test_a_request_refused_for_its_rate_does_not_count_as_running(clock: HeldClock) -> None:
    limiter = Limiter(clock)
    who = key(requests_per_minute=1, concurrency=1)
    limiter.admit(who).release()
    with pytest.raises(RateLimited):
        limiter.admit(who)
    clock.pass_s(60)
    limiter.admit(who)

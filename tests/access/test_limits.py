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


def test_so_many_streams_at_once_while_other_requests_go_on(clock: HeldClock) -> None:
    limiter = Limiter(clock)
    first, second = (limiter.admit(key(concurrent_streams=1)) for _ in range(2))
    first.begin_stream()
    first.begin_stream()
    with pytest.raises(RateLimited, match="1 streams running"):
        second.begin_stream()
    limiter.admit(key(concurrent_streams=1)).release()
    first.release()
    second.begin_stream()


def test_tokens_of_a_minute_are_paid_back_before_the_next_request(clock: HeldClock) -> None:
    limiter = Limiter(clock)
    ticket = limiter.admit(key(tokens_per_minute=600))
    ticket.spend(900)
    ticket.release()
    with pytest.raises(RateLimited, match="600 tokens per minute") as refused:
        limiter.admit(key(tokens_per_minute=600))
    assert refused.value.retry_after_s == pytest.approx(30, abs=0.2)
    clock.pass_s(refused.value.retry_after_s)
    limiter.admit(key(tokens_per_minute=600))


@pytest.mark.parametrize("limit", ["requests_per_day", "tokens_per_day"])
def test_a_quota_of_the_day_is_used_up_and_new_at_midnight(clock: HeldClock, limit: str) -> None:
    limiter = Limiter(clock)
    clock.pass_s(20 * 3_600)
    for _ in range(3):
        with limiter.admit(key(**{limit: 3})) as ticket:
            ticket.spend(1)
    with pytest.raises(RateLimited, match="of today") as refused:
        limiter.admit(key(**{limit: 3}))
    assert refused.value.retry_after_s == pytest.approx(4 * 3_600)
    clock.pass_s(refused.value.retry_after_s)
    limiter.admit(key(**{limit: 3}))


def test_what_was_used_before_a_restart_counts(clock: HeldClock) -> None:
    limiter = Limiter(clock)
    limiter.begin_day(key(tokens_per_day=100), requests=2, tokens=100)
    with pytest.raises(RateLimited):
        limiter.admit(key(tokens_per_day=100))
    limiter.admit(key(2, tokens_per_day=100))

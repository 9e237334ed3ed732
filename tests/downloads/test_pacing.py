"""Waits between tries grow, keep what the hub asks for, and have a limit."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ostler.downloads.pacing import MAX_BACKOFF_S, MAX_RETRY_AFTER_S, RateLimit, backoff_s, retry_after_s

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)


def test_the_wait_doubles_up_to_a_limit_with_up_to_half_of_it_taken_away() -> None:
    assert [backoff_s(0.5, failures, 0.0) for failures in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert backoff_s(0.5, 1, 0.999) == pytest.approx(0.25, abs=0.001)
    assert backoff_s(0.5, 90, 0.0) == MAX_BACKOFF_S


@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("3", 3.0),
        ("Thu, 01 Jan 2026 12:00:07 GMT", 7.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("-5", 0.0),
        ("999999", MAX_RETRY_AFTER_S),
        ("nan", None),
        ("soon", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read_as_a_number_or_a_date(header: str | None, wait_s: float | None) -> None:
    assert retry_after_s(header, NOW) == wait_s


def test_the_limit_lets_so_many_bytes_pass_in_a_second() -> None:
    now = 0.0
    limit = RateLimit(1000, lambda: now)
    assert limit.pause_s(500) == 0.5
    assert limit.pause_s(500) == 1.0  # another connection of the same job waits for both
    now = 10.0
    assert limit.pause_s(100) == pytest.approx(0.1)
    limit.bytes_per_s = 0
    assert limit.pause_s(10**9) == 0

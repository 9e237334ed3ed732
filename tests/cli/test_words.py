"""What people read: sizes, times, tables, failures."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest

from ostler.cli import human
from ostler.cli.commands.models import parse_option
from ostler.cli.failures import CommandFailed, print_failure
from ostler.cli.output import clean, paint, print_table
from ostler.cli.pulling import plain_lines
from ostler.core.errors import Kind

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (2_094_816, "2.1 MB"),
        (999_999, "1.0 MB"),
        (4_683_000_000, "4.7 GB"),
        (47_000_000_000, "47 GB"),
        (10**18, "1000 PB"),
    ],
)
def test_sizes_are_decimal_with_two_digits(n_bytes: int | None, text: str) -> None:
    assert human.size(n_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "now"),
        (240, "4 minutes from now"),
        (-86400 * 2, "2 days ago"),
        (-1, "1 second ago"),
        (7200, "2 hours from now"),
        (-86400 * 400, "1 year ago"),
    ],
)
def test_times_are_told_from_now(seconds: float, text: str) -> None:
    assert human.relative(NOW + timedelta(seconds=seconds), NOW) == text
    assert human.relative((NOW + timedelta(seconds=seconds)).isoformat(), NOW) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, ""),
        (0.85, "850 ms"),
        (2.34, "2.3 s"),
        (59.7, "1m00s"),
        (80, "1m20s"),
        (7500, "2h05m"),
        (90000, "1d01h"),
    ],
)
def test_durations_have_at_most_two_units(seconds: float | None, text: str) -> None:
    assert human.duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"), [(None, "-"), (1_902_336, "1.9M"), (7_241_732_096, "7.2B"), (512, "512")]
)
def test_counts_are_short(number: int | None, text: str) -> None:
    assert human.count(number) == text


def test_a_table_never_cuts_a_name_and_aligns_wide_characters(capsys: pytest.CaptureFixture[str]) -> None:
    long = "org/" + "x" * 150
    print_table(("NAME", "STATE"), [(long, "running"), ("模型", "stopped")])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == f"{long}    running"
    assert lines[2] == "模型" + " " * (len(long) - 4) + "    stopped"


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    assert clean("a\x1b]0;title\x07b\x1b[2Jc\rd") == "a\ufffd]0;title\ufffdb2Jc\ufffdd"
    assert clean("\x1b[32mrunning\x1b[0m") == "\x1b[32mrunning\x1b[0m"


def test_nothing_is_coloured_where_nobody_looks() -> None:
    assert paint("running", "green", io.StringIO()) == "running"


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (404, {"detail": "no", "kind": "not_found"}, 4),
        (422, {"detail": "no", "kind": "invalid"}, 2),
        (401, {"detail": "no", "kind": "unauthenticated"}, 5),
        (403, {"detail": "no", "kind": "not_allowed"}, 5),
        (409, {"detail": "no", "kind": "does_not_fit"}, 3),
        (502, {"detail": "no", "kind": "engine"}, 6),
        (502, {"detail": "no", "kind": "upstream"}, 1),
        (409, {"detail": "no", "kind": "conflict"}, 1),
        (404, {"error": {"message": "no", "code": "model_not_found"}}, 4),
        (401, {"error": {"message": "no"}}, 5),
        (500, {}, 1),
    ],
)
def test_each_kind_of_failure_has_its_exit_code(status: int, body: dict[str, object], code: int) -> None:
    assert CommandFailed.from_problem(status, body).exit_code == code


def test_every_kind_of_error_can_be_told() -> None:
    for kind in Kind:
        failure = CommandFailed.from_problem(500, {"detail": "it broke", "kind": kind.value})
        assert failure.exit_code in range(1, 7) and failure.message == "it broke"


def test_a_failure_ends_with_what_to_try(capsys: pytest.CaptureFixture[str]) -> None:
    print_failure(
        CommandFailed("the engine ended", hint="ostler logs m", facts={"failure": {"log_tail": ["a", "b"]}})
    )
    assert capsys.readouterr().err.splitlines() == [
        "Error: the engine ended",
        "Last lines of the engine's log:",
        "  a",
        "  b",
        "Try: ostler logs m",
    ]


def test_an_option_is_json_or_text() -> None:
    assert parse_option("context_length=8192") == ("context_length", 8192)
    assert parse_option("flash_attention=on") == ("flash_attention", "on")
    assert parse_option("mlock=true") == ("mlock", True)
    assert parse_option("a=b=c") == ("a", "b=c")
    with pytest.raises(CommandFailed, match="KEY=VALUE"):
        parse_option("context_length")


def test_a_pipe_gets_a_line_for_every_tenth_of_a_download() -> None:
    said: list[str] = []
    show = plain_lines("Pull org/repo", said.append)
    for done in range(0, 1001, 5):
        show({"bytes_done": done, "bytes_total": 1000, "rate_bytes_per_s": 2000})
    assert said[0] == "Pull org/repo"
    assert [line.split()[0] for line in said[1:]] == [f"{n}%" for n in range(0, 101, 10)]
    assert said[6] == "50%  500 B/1.0 KB  2.0 KB/s"

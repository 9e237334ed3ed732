"""Logs that an engine holds open while they are rotated, and readers that miss nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.runtimes.logfile import MAX_LINE_BYTES, LineCutter, LogFile, Position


@pytest.fixture
def log(tmp_path: Path) -> LogFile:
    return LogFile(tmp_path / "1-1.log")


def read_all(log: LogFile, position: Position) -> tuple[list[str], Position]:
    cutter, lines = LineCutter(), list[str]()
    while True:
        data, position = log.read(position)
        lines += cutter.feed(data)
        if not data:
            return [*lines, *cutter.finish()], position


def test_rotation_works_under_a_writer_that_keeps_the_file_open(log: LogFile) -> None:
    fd = log.open_for_child()
    os.write(fd, b"one\n" * 10)
    assert log.rotate(20)
    os.write(fd, b"two\n")
    assert log.path.read_bytes() == b"two\n"
    assert log.previous.read_bytes() == b"one\n" * 10
    assert not log.rotate(20)
    assert log.path.stat().st_mode & 0o777 == 0o600
    assert log.previous.stat().st_mode & 0o777 == 0o600
    os.close(fd)


def test_a_reader_that_follows_misses_nothing_across_a_rotation(log: LogFile) -> None:
    fd = log.open_for_child()
    os.write(fd, b"a\nb\n")
    lines, position = read_all(log, log.tail(None))
    os.write(fd, b"c\n")
    assert log.rotate(1)
    os.write(fd, b"d\ne\nf\ng\nh\n")  # longer than before: the size alone would not tell
    more, _ = read_all(log, position)
    assert lines + more == list("abcdefgh")
    os.close(fd)


def test_a_reader_that_fell_two_rotations_behind_goes_on_with_what_there_is(log: LogFile) -> None:
    fd = log.open_for_child()
    os.write(fd, b"a\n")
    _, position = read_all(log, log.tail(None))
    for line in (b"b\n", b"c\n"):
        os.write(fd, line)
        assert log.rotate(1)
    os.write(fd, b"d\n")
    assert read_all(log, position)[0] == ["d"]
    os.close(fd)


def test_a_log_that_is_not_there_is_empty(log: LogFile) -> None:
    assert read_all(log, log.tail(10))[0] == []
    assert not log.rotate(1)


@given(
    before=st.lists(st.text("xyz", max_size=5), max_size=12),
    after=st.lists(st.text("xyz", max_size=5), max_size=12),
    tail=st.integers(0, 30),
)
def test_the_tail_is_the_last_lines_over_both_parts(
    tmp_path_factory: pytest.TempPathFactory, before: list[str], after: list[str], tail: int
) -> None:
    log = LogFile(tmp_path_factory.mktemp("log") / "1-1.log")
    fd = log.open_for_child()
    os.write(fd, "".join(f"{line}\n" for line in before).encode())
    log.rotate(0)
    os.write(fd, "".join(f"{line}\n" for line in after).encode())
    os.close(fd)
    assert read_all(log, log.tail(tail))[0] == (before + after)[-tail or len(before + after) :]


@given(st.binary(max_size=400), st.lists(st.integers(1, 50), max_size=20))
def test_lines_do_not_depend_on_how_the_bytes_come(data: bytes, cuts: list[int]) -> None:
    whole = LineCutter()
    expected = [*whole.feed(data), *whole.finish()]
    pieces, cutter, lines = data, LineCutter(), list[str]()
    for cut in cuts:
        lines += cutter.feed(pieces[:cut])
        pieces = pieces[cut:]
    lines += cutter.feed(pieces)
    assert [*lines, *cutter.finish()] == expected


def test_a_huge_line_comes_in_pieces_and_does_not_fill_the_memory() -> None:
    cutter = LineCutter()
    pieces = [line for _ in range(40) for line in cutter.feed(b"x" * 10_000)]
    assert {len(piece) for piece in pieces} == {MAX_LINE_BYTES}
    assert sum(map(len, [*pieces, *cutter.finish()])) == 400_000

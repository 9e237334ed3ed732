"""A partial file knows which of its bytes have arrived."""

from __future__ import annotations

import hashlib
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from ostler.downloads.partial import Partial, gaps, merged, staged_bytes

SIZE = 64
SPANS = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)).map(lambda s: (min(s), max(s))))


@given(SPANS)
def test_what_is_there_and_what_is_missing_make_the_whole(spans: list[tuple[int, int]]) -> None:
    there = {at for begin, end in spans for at in range(begin, end)}
    assert {at for begin, end in merged(spans) for at in range(begin, end)} == there
    missing = [at for begin, end in gaps(spans, SIZE) for at in range(begin, end)]
    assert sorted([*there, *missing]) == list(range(SIZE))
    assert all(before[1] < after[0] for before, after in zip(merged(spans), merged(spans)[1:], strict=False))


def test_what_has_arrived_is_known_after_it_was_closed(tmp_path: Path) -> None:
    partial = Partial(tmp_path, "etag", 10)
    assert partial.write(4, memoryview(b"4567")) == 4
    assert partial.write(6, memoryview(b"678")) == 1
    partial.close()
    assert staged_bytes(tmp_path, "etag", 10) == 5
    again = Partial(tmp_path, "etag", 10)
    assert again.missing(3) == [(0, 3), (3, 4), (9, 10)] and again.front() == 0
    again.write(0, memoryview(b"0123"))
    digest = hashlib.sha256()
    again.hash_up_to(digest, 0, again.front())
    assert digest.digest() == hashlib.sha256(b"012345678").digest()
    again.write(9, memoryview(b"9"))
    again.finish(tmp_path / "blob")
    assert (tmp_path / "blob").read_bytes() == b"0123456789"
    assert not list(tmp_path.glob("etag*"))


def test_a_map_that_does_not_fit_its_file_is_not_believed(tmp_path: Path) -> None:
    partial = Partial(tmp_path, "etag", 10)
    partial.write(0, memoryview(b"0123"))
    partial.close()
    assert staged_bytes(tmp_path, "etag", 11) == 0
    for text in ("", "{", "[]", '{"size": 10, "spans": [[0, 99]]}', '{"size": 10, "spans": [[5, 1]]}'):
        (tmp_path / "etag.map").write_text(text)
        assert staged_bytes(tmp_path, "etag", 10) == 0
    (tmp_path / "etag.part").unlink()
    (tmp_path / "etag.map").write_text('{"size": 10, "spans": [[0, 4]]}')
    assert staged_bytes(tmp_path, "etag", 10) == 0

"""Joining paths from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from ostler.library.errors import UnsafePath
from ostler.library.paths import safe_join


@pytest.mark.parametrize(
    "good",
    ["a.gguf", "org/name/a.gguf", "a b/ä.gguf", "./a.gguf", "a//b", "..a", "a..b/c..", "not/yet/there"],
)
def test_a_plain_relative_path_is_joined(tmp_path: Path, good: str) -> None:
    assert safe_join(tmp_path, good).is_relative_to(tmp_path)
    assert ".." not in safe_join(tmp_path, good).parts


@pytest.mark.parametrize(
    "bad",
    ["", ".", "/", "..", "../a", "a/../b", "a/..", "/etc/passwd", "a\0b", "a\nb", "a\x7fb", "a\\b", "..\\a",
     "C:/a", "c:a", "a/\udcff", "x" * 5000],
)  # fmt: skip
def test_a_path_that_could_lead_out_is_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(UnsafePath):
        safe_join(tmp_path, bad)


def test_links_that_lead_out_are_refused_and_links_inside_are_not(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "real").mkdir(parents=True)
    outside.mkdir()
    (root / "in").symlink_to("real")
    (root / "out").symlink_to(outside)
    (root / "file.gguf").symlink_to(outside / "not-there.gguf")
    (root / "circle").symlink_to("circle")
    assert safe_join(root, "in/a.gguf") == root / "in" / "a.gguf"
    for bad in ("out", "out/a.gguf", "file.gguf", "circle", "circle/a"):
        with pytest.raises(UnsafePath, match="link"):
            safe_join(root, bad)


def test_the_root_may_be_a_link_itself(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "root").symlink_to("real")
    assert safe_join(tmp_path / "root", "a.gguf") == tmp_path / "root" / "a.gguf"


def test_a_sibling_whose_name_begins_like_the_root_is_outside(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root-two").mkdir()
    (tmp_path / "root" / "link").symlink_to(tmp_path / "root-two")
    with pytest.raises(UnsafePath):
        safe_join(tmp_path / "root", "link")

"""Sizes of memory, read and written."""

from __future__ import annotations

import pytest

from ostler.core.settings import BadSetting
from ostler.core.settings_sources import load_settings
from ostler.core.sizes import parse_size, size_text


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("24GiB", 24 * 2**30), ("1.5 gib", 3 * 2**29), ("512MB", 512_000_000), ("7", 7), (" 2 TiB ", 2**41)],
)
def test_sizes_are_read_as_people_write_them(text: str, n_bytes: int) -> None:
    assert parse_size(text) == n_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1GiB", "1 PiB", "1e9", "24 G iB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (3 * 2**29, "1.5 GiB"),
        (24 * 2**30, "24 GiB"),
        (2**40 * 2000, "2000 TiB"),
        (-(2**30), "-1 GiB"),
        (2**30 - 1, "1 GiB"),
    ],
)
def test_sizes_are_written_in_binary_units(n_bytes: int, text: str) -> None:
    assert size_text(n_bytes) == text


def test_the_reserve_is_for_all_devices_or_for_one() -> None:
    loaded = load_settings(flags={"device_reserve": "1KiB, cuda:0=2GiB"}, environ={})
    assert loaded.values.reserve_by_device == {"": 1024, "cuda:0": 2 * 2**30}
    with pytest.raises(BadSetting, match="device_reserve"):
        load_settings(flags={"device_reserve": "much"}, environ={})

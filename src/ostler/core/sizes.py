"""Sizes of memory as people write and read them: "24GiB", "512 MB", and back."""

from __future__ import annotations

import re

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12} | {
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def parse_size(text: str) -> int:
    """Bytes of "24GiB", "512MB" or "1000" (without a unit: bytes). Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None or (factor := _UNITS.get(match[2].lower())) is None:
        raise ValueError(f'{text!r} is not a size; write it as "24GiB" or "512MB"')
    return int(float(match[1]) * factor)


def size_text(n_bytes: float) -> str:
    """Binary units, as memory is counted: `1.5 GiB`, `24 GiB`, `0 B`."""
    value, units = float(n_bytes), iter(("B", "KiB", "MiB", "GiB"))
    unit = next(units)
    while abs(value) >= 1023.5 and unit != "TiB":
        value /= 1024
        unit = next(units, "TiB")
    digits = 1 if unit != "B" and abs(value) < 99.95 and round(value, 1) != round(value) else 0
    return f"{value:.{digits}f} {unit}"

"""Reading JSON files of strangers in bounded time and memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ostler.library.byte_windows import open_regular, reader_of
from ostler.library.errors import BrokenFile

FREE_BRACKETS = 65_536
BYTES_PER_BRACKET = 12
"""A long document made of brackets only would cost 70 bytes of memory for each; real ones do not."""


def read_json_object(path: Path, limit_bytes: int) -> dict[str, Any]:
    """The JSON object in a file of at most `limit_bytes`. Raises PathNotFound, BrokenFile."""
    with open_regular(path) as (descriptor, size_bytes):
        if size_bytes > limit_bytes:
            raise BrokenFile(f"{path} is too large ({size_bytes} bytes)", path=str(path))
        return parse_json_object(reader_of(descriptor, path)(0, size_bytes), path.name)


def parse_json_object(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object in `data`. Raises BrokenFile with `what` in the message."""
    brackets = data.count(b"[") + data.count(b"{")
    if brackets > FREE_BRACKETS + len(data) // BYTES_PER_BRACKET:
        raise BrokenFile(f"{what} is nested in a way that no such file is")
    try:
        parsed = json.loads(data, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:
        raise BrokenFile(f"{what} is not valid JSON: {str(error)[:200]}") from error
    if not isinstance(parsed, dict):
        raise BrokenFile(f"{what} is not a JSON object")
    return parsed


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name stands twice in one object")
    return found

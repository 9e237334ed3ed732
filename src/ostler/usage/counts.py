"""Token counts, read out of an answer's last bytes without parsing the rest.

Engines say what they counted at the end of an answer, streamed or not:

- OpenAI's shape has `"usage": {"prompt_tokens", "completion_tokens"}`, or `input_tokens` and
  `output_tokens` in `/v1/responses`;
- Anthropic's has `"usage": {"input_tokens", "cache_read_input_tokens", "output_tokens"}`; in a stream
  the input is told in the first event and the output in the last but one;
- llama.cpp adds `"timings": {"cache_n", "prompt_n", "predicted_n"}` to the last event of a stream
  even when the client did not ask for usage, so nothing has to be added to anybody's stream.

A quote inside generated text is escaped in JSON, so `"usage":` can only be a key.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

TAIL_BYTES = 16 * 1024
"""How much of the end of an answer is looked at."""
HEAD_BYTES = 4 * 1024
"""How much of the beginning of a stream is looked at."""

_OBJECT_BYTES = 2048
_BACKSLASH = 0x5C
_MAX_COUNT = 2**31 - 1
_decode = json.JSONDecoder().raw_decode


class TokenCounts(NamedTuple):
    """What the engine counted; None where it did not say."""

    prompt: int | None = None
    completion: int | None = None


def read_counts(tail: bytes, head: bytes = b"") -> TokenCounts:
    """The counts told in the last bytes of an answer, or in the first ones of a stream.

    Whatever cannot be understood counts as not told; nothing is raised.
    """
    usage = _last_object(tail, b'"usage"')
    prompt = _prompt_of(usage)
    completion = _count(usage, "completion_tokens", "output_tokens")
    if prompt is None and head:
        prompt = _prompt_of(_first_object(head, b'"usage"'))
    if prompt is None or completion is None:
        timings = _last_object(tail, b'"timings"')
        if prompt is None:
            prompt = _sum(_count(timings, "prompt_n"), _count(timings, "cache_n"))
        if completion is None:
            completion = _count(timings, "predicted_n")
    return TokenCounts(prompt, completion)


def _prompt_of(usage: dict[str, Any]) -> int | None:
    openai = _count(usage, "prompt_tokens")
    if openai is not None:
        return openai
    read = _count(usage, "cache_read_input_tokens")
    made = _count(usage, "cache_creation_input_tokens")
    return _sum(_count(usage, "input_tokens"), read, made)


def _last_object(data: bytes, key: bytes) -> dict[str, Any]:
    """The last JSON object behind this key, {} where there is none that can be read."""
    at = len(data)
    lowest = max(0, at - TAIL_BYTES)
    while (at := data.rfind(key, lowest, at)) >= 0:
        found = _object_at(data, at, len(key))
        if found is not None:
            return found
    return {}


def _first_object(data: bytes, key: bytes) -> dict[str, Any]:
    """The first JSON object behind this key, {} where there is none that can be read."""
    at = -1
    while (at := data.find(key, at + 1, HEAD_BYTES)) >= 0:
        found = _object_at(data, at, len(key))
        if found is not None:
            return found
    return {}


def _object_at(data: bytes, at: int, key_length: int) -> dict[str, Any] | None:
    """The object behind the key at this place; None where the key is text or no object follows."""
    begin = at + key_length
    after = data[begin : begin + _OBJECT_BYTES].lstrip(b" \t\r\n:")
    if after[:1] != b"{" or (at > 0 and data[at - 1] == _BACKSLASH):
        return None
    try:
        value, _ = _decode(after.decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _count(values: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = values.get(name)
        if type(value) is int and 0 <= value <= _MAX_COUNT:
            return value
    return None


def _sum(first: int | None, *more: int | None) -> int | None:
    if first is None:
        return None
    return min(_MAX_COUNT, first + sum(count or 0 for count in more))

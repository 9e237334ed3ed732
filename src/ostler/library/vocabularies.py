"""How long a vocabulary in a GGUF header is, judged by its beginning."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

TOKENS = "tokenizer.ggml.tokens"
LENGTH_BYTES = 8
MERGES_PER_TOKEN: Mapping[str, float] = {
    "llama-bpe": 2.18,
    "llama4": 2.18,
    "gpt-4o": 2.22,
    "glm4": 2.10,
    "chatglm-bpe": 2.10,
    "tekken": 2.06,
    "gemma4": 1.96,
}
"""Vocabularies that were made from tiktoken's ranks list every pair that gives a token, by
`tokenizer.ggml.pre`, or by `tokenizer.ggml.model` where there is none; all others have about one merge for
each token. Approximate: where a ratio is wrong or missing here, the guess misses and one more piece is
read, or at worst the whole header."""
SCORED = frozenset({"llama", "t5", "gemma4"})
MERGED = frozenset({"gpt2", "gemma4"})
"""Kinds of tokenizers (`tokenizer.ggml.model`) with a score for each token, and with merges."""

_KEY = re.compile(rb"[A-Za-z0-9_\-]+(?:\.[A-Za-z0-9_\-]+)+")
_SCALAR_BYTES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_MODEL = re.compile(rb"tokenizer\.ggml\.model\x08\0\0\0(.)\0{7}([a-z0-9\-._]+)", re.DOTALL)
_PRE = re.compile(rb"tokenizer\.ggml\.pre\x08\0\0\0(.)\0{7}([a-z0-9\-._]+)", re.DOTALL)
_LN_4 = math.log(4)
LONGER_TAIL = 1.06
"""Vocabularies of several languages end with those of many bytes per character: Qwen's 151,643 tokens
are 8 % longer than the fit through their first 20,000 says."""
_STEEPEST = 4.0
"""Bytes by which tokens get longer each time their number grows e-fold; real ones stay below 2."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The part of an array of strings that is here. Offsets count from the file's begin.

    `entry_at` is where its key begins; `done` of `count` strings end before `reached`; `first_half` and
    `second_half` are bytes per string, with the length before each.
    """

    key: str
    entry_at: int
    count: int
    done: int
    reached: int
    first_half: float
    second_half: float


def sample_strings(data: bytes, at: int, offset: int) -> Sample | None:
    """The array of strings in which `data` ends, walking from the key at index `at`; None if in none.

    `offset` is where `data` lies in the file.
    """
    try:
        while True:
            entry_at = at
            length = struct.unpack_from("<Q", data, at)[0]
            key = data[at + 8 : at + 8 + length] if length < 1_024 else b""
            kind = struct.unpack_from("<I", data, at + 8 + length)[0] if key else -1
            if not _KEY.fullmatch(key):
                return None
            at += 12 + length
            if kind == 8:
                at += 8 + struct.unpack_from("<Q", data, at)[0]
            elif kind == 9:
                element, count = struct.unpack_from("<IQ", data, at)
                at += 12
                if element == 8:
                    sample, at = _strings(data, at, count, key.decode(), entry_at + offset, offset)
                    if sample is not None:
                        return sample
                else:
                    at += count * _SCALAR_BYTES[element]
            else:
                at += _SCALAR_BYTES[kind]
    except (struct.error, KeyError, OverflowError):
        return None


def _strings(
    data: bytes, at: int, count: int, key: str, entry_at: int, offset: int
) -> tuple[Sample | None, int]:
    """The sample of an array that leads out of the data; and the index behind what was read of it."""
    begin, ends, unpack = at, [at], struct.Struct("<Q").unpack_from
    limit = len(data)
    while len(ends) <= count and at + LENGTH_BYTES <= limit:
        at += LENGTH_BYTES + unpack(data, at)[0]
        if at > limit:
            break
        ends.append(at)
    done = len(ends) - 1
    if done >= count:
        return None, ends[-1]
    half = done // 2
    first = (ends[half] - begin) / half if half else 0.0
    second = (ends[done] - ends[half]) / (done - half) if done else 0.0
    return Sample(key, entry_at, count, done, ends[-1] + offset, first, second), ends[-1]


def bytes_to_end(sample: Sample) -> float:
    """Bytes from where the sample ends to the end of its array.

    Tokens get longer with the logarithm of their number: the fit is `a + b ln(i)` through both halves.
    """
    if sample.done < 2:
        return float(sample.count * 2 * LENGTH_BYTES)
    slope = min(max((sample.second_half - sample.first_half) / _LN_4, 0.0), _STEEPEST)
    level = sample.first_half - slope * (math.log(sample.done / 2) - 1)

    def up_to(n: int) -> float:
        return n * (level + slope * (math.log(n) - 1))

    return (up_to(sample.count) - up_to(sample.done)) * LONGER_TAIL


def bytes_to_end_of_vocabularies(sample: Sample, head: bytes) -> float:
    """Bytes from where the sample ends to the end of the last array beside it (types, scores, merges).

    `head` is the file's beginning, with the name of the tokenizer.
    """
    rest = bytes_to_end(sample)
    if sample.key != TOKENS:
        return rest
    model, pre = _text(_MODEL, head), _text(_PRE, head)
    mean = (rest + sample.done * (sample.first_half + sample.second_half) / 2) / sample.count
    per_token = MERGES_PER_TOKEN.get(pre or model, 1.0) if model in MERGED else 0.0
    beside = 8 if model in SCORED else 4
    return rest + sample.count * (beside + per_token * (mean + 1))


def _text(pattern: re.Pattern[bytes], head: bytes) -> str:
    """The text behind a key, as long as its length says."""
    found = pattern.search(head)
    return found[2][: found[1][0]].decode() if found else ""

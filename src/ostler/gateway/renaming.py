"""The model's name in an answer: what the client asked for, not what the engine calls it.

llama-server writes its own alias into every answer, whatever was asked for; an engine that several models
share, or a model that has several names, would so answer for another name.
"""

from __future__ import annotations

import json


class Renaming:
    """Replaces the engine's name by the client's in an answer's bytes, piece by piece.

    What is looked for, `"model":"NAME"` as llama-server writes it, cannot stand within a text of JSON, where
    the quotes would be escaped. Of a piece that ends in the middle of it so much is held back, no more.
    """

    __slots__ = ("_given", "_held", "_wanted")

    def __init__(self, served: str, asked: str) -> None:
        self._given = _member(served)
        self._wanted = _member(asked)
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """The next piece, renamed; what may be the beginning of the name waits for the next."""
        whole = (self._held + piece).replace(self._given, self._wanted)
        kept = self._beginning_at_the_end(whole)
        self._held = whole[len(whole) - kept :]
        return whole[: len(whole) - kept]

    def rest(self) -> bytes:
        """What was held back, at the end of the answer."""
        held, self._held = self._held, b""
        return held

    def _beginning_at_the_end(self, piece: bytes) -> int:
        at = piece.rfind(self._given[:1], max(0, len(piece) - len(self._given) + 1))
        longest = 0
        while at >= 0:
            if self._given.startswith(piece[at:]):
                longest = len(piece) - at
            at = piece.rfind(self._given[:1], max(0, len(piece) - len(self._given) + 1), at)
        return longest


def without_length(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Headers of an answer whose length changes on the way."""
    return [(name, value) for name, value in headers if name != b"content-length"]


def _member(name: str) -> bytes:
    return b'"model":' + json.dumps(name, ensure_ascii=False).encode()

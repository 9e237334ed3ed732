"""How much memory a computation needs at its peak, if tensors are taken and given back in order.

A small model of ggml's graph allocator (`ggml_gallocr` in ggml-alloc.c): inputs are placed first and
live until their last use; each result takes the smallest gap that is large enough, or grows the
buffer; a result may lie in the place of a source that nobody else needs and that is as large. Views
take nothing and keep what they show alive; a result never lies in the place of a view's original
(`ggml_gallocr_is_own` is false for views).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass


@dataclass(slots=True, eq=False)
class Piece:
    """Memory of one tensor. `users` counts the steps that still read it; `original` is what a view shows."""

    n_bytes: int
    kept: bool = False
    users: int = 0
    offset: int = -1
    original: Piece | None = None


_Step = tuple[Piece | None, tuple[Piece, ...], bool]
"""The result, what it is made of, and whether it may lie in the place of a source."""


class Graph:
    """Steps of a computation, told in the order of their execution."""

    def __init__(self, alignment_bytes: int) -> None:
        self._alignment = alignment_bytes
        self._inputs: list[Piece] = []
        self._steps: list[_Step] = []

    def input(self, n_bytes: int) -> Piece:
        """A tensor that is filled before the computation begins."""
        piece = Piece(-(-n_bytes // self._alignment) * self._alignment)
        self._inputs.append(piece)
        return piece

    def op(self, n_bytes: int, *sources: Piece, in_place: bool = False, kept: bool = False) -> Piece:
        """A step with a result of `n_bytes`. `kept`: an output, never given back."""
        result = Piece(-(-n_bytes // self._alignment) * self._alignment, kept)
        for source in sources:
            (source.original or source).users += 1
        self._steps.append((result, sources, in_place))
        return result

    def change(self, source: Piece, *others: Piece, kept: bool = False) -> Piece:
        """A step like a norm or an addition: as large as its source, and in its place if possible."""
        return self.op(source.n_bytes, source, *others, in_place=True, kept=kept)

    def view(self, source: Piece, n_bytes: int | None = None) -> Piece:
        """The same memory in another shape, or so many bytes of it."""
        return Piece(source.n_bytes if n_bytes is None else n_bytes, original=source.original or source)

    def consume(self, *sources: Piece) -> None:
        """A step that writes to memory which is not the graph's, such as the cache."""
        for source in sources:
            (source.original or source).users += 1
        self._steps.append((None, sources, False))

    def peak_bytes(self) -> int:
        """The size of the buffer that holds it all."""
        places = _Places()
        for piece in self._inputs:
            piece.offset = places.take(piece.n_bytes)
        for result, sources, in_place in self._steps:
            heir = None
            if result is not None:
                heir = _heir(result, sources) if in_place else None
                result.offset = places.take(result.n_bytes) if heir is None else heir.offset
            for shown in sources:
                source = shown.original or shown
                source.users -= 1
                if source.users == 0 and not source.kept and source is not heir:
                    places.give(source.offset, source.n_bytes)
        return places.peak


def _heir(result: Piece, sources: tuple[Piece, ...]) -> Piece | None:
    """The first source in whose place the result can lie: nobody else needs it, and it is as large."""
    for source in sources:
        alone = source.users == 1 and source.original is None and not source.kept
        if alone and source.n_bytes == result.n_bytes:
            return source
    return None


class _Places:
    """Gaps of a buffer that can grow, as two lists side by side: where they begin and how large they are."""

    def __init__(self) -> None:
        self.peak = 0
        self._end = 0
        self._begins: list[int] = []
        self._sizes: list[int] = []

    def take(self, size: int) -> int:
        """The offset of the smallest gap that is large enough, of equal ones the last; else the end."""
        if size == 0:
            return 0
        best, least = -1, 0
        for index, free in enumerate(self._sizes):
            if free >= size and (best < 0 or free <= least):
                best, least = index, free
        if best < 0:
            return self._grow(size)
        offset = self._begins[best]
        if least == size:
            del self._begins[best], self._sizes[best]
        else:
            self._begins[best] += size
            self._sizes[best] -= size
        return offset

    def give(self, offset: int, size: int) -> None:
        """Make a gap, one with its neighbours; at the end the buffer's use shrinks."""
        if size == 0:
            return
        begins, sizes = self._begins, self._sizes
        at = bisect_left(begins, offset)
        if at < len(begins) and offset + size == begins[at]:
            size += sizes[at]
            del begins[at], sizes[at]
        if at > 0 and begins[at - 1] + sizes[at - 1] == offset:
            at -= 1
            offset, size = begins[at], sizes[at] + size
            del begins[at], sizes[at]
        if offset + size == self._end:
            self._end = offset
        else:
            begins.insert(at, offset)
            sizes.insert(at, size)

    def _grow(self, size: int) -> int:
        offset = self._end
        self._end += size
        self.peak = max(self.peak, self._end)
        return offset

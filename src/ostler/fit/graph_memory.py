"""How much memory a computation needs at its peak, if tensors are taken and given back in order.

A small model of ggml's graph allocator (`ggml_gallocr` in ggml-alloc.c): inputs are placed first and
live until their last use; each result takes the smallest gap that is large enough, or grows the
buffer; a result may lie in the place of a source that nobody else needs and that is as large. Views
take nothing and keep what they show alive; a result never lies in the place of a view's original
(`ggml_gallocr_is_own` is false for views).
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass


@dataclass(slots=True)
class Piece:
    """Memory of one tensor. `users` counts the steps that still read it; `original` is what a view shows."""

    n_bytes: int
    kept: bool = False
    users: int = 0
    offset: int = -1
    original: Piece | None = None


@dataclass(frozen=True, slots=True)
class _Step:
    result: Piece | None
    sources: tuple[Piece, ...]
    in_place: bool


class Graph:
    """Steps of a computation, told in the order of their execution."""

    def __init__(self, alignment_bytes: int) -> None:
        self._alignment = alignment_bytes
        self._inputs: list[Piece] = []
        self._steps: list[_Step] = []

    def input(self, n_bytes: int) -> Piece:
        """A tensor that is filled before the computation begins."""
        piece = Piece(self._aligned(n_bytes))
        self._inputs.append(piece)
        return piece

    def op(self, n_bytes: int, *sources: Piece, in_place: bool = False, kept: bool = False) -> Piece:
        """A step with a result of `n_bytes`. `kept`: an output, never given back."""
        piece = Piece(self._aligned(n_bytes), kept)
        self._add(piece, sources, in_place)
        return piece

    def change(self, source: Piece, *others: Piece, kept: bool = False) -> Piece:
        """A step like a norm or an addition: as large as its source, and in its place if possible."""
        return self.op(source.n_bytes, source, *others, in_place=True, kept=kept)

    def view(self, source: Piece) -> Piece:
        """The same memory in another shape."""
        return Piece(source.n_bytes, original=source)

    def consume(self, *sources: Piece) -> None:
        """A step that writes to memory which is not the graph's, such as the cache."""
        self._add(None, sources, False)

    def peak_bytes(self) -> int:
        """The size of the buffer that holds it all."""
        places = _Places()
        for piece in self._inputs:
            piece.offset = places.take(piece.n_bytes)
        for step in self._steps:
            self._run(step, places)
        return places.peak

    def _add(self, result: Piece | None, sources: tuple[Piece, ...], in_place: bool) -> None:
        for source in sources:
            (source.original or source).users += 1
        self._steps.append(_Step(result, sources, in_place))

    def _run(self, step: _Step, places: _Places) -> None:
        result = step.result
        heir = None
        if result is not None:
            if step.in_place:
                heir = next((source for source in step.sources if _inheritable(source, result)), None)
            result.offset = places.take(result.n_bytes) if heir is None else heir.offset
        for source in (shown.original or shown for shown in step.sources):
            source.users -= 1
            if source.users == 0 and not source.kept and source is not heir:
                places.give(source.offset, source.n_bytes)

    def _aligned(self, n_bytes: int) -> int:
        return -(-n_bytes // self._alignment) * self._alignment


def _inheritable(source: Piece, result: Piece) -> bool:
    alone = source.users == 1 and source.original is None and not source.kept
    return alone and source.n_bytes == result.n_bytes


class _Places:
    """Gaps of a buffer that can grow, by offset."""

    def __init__(self) -> None:
        self.peak = 0
        self._end = 0
        self._gaps: list[tuple[int, int]] = []

    def take(self, size: int) -> int:
        if size == 0:
            return 0
        best = -1
        for index, (_, free) in enumerate(self._gaps):
            if free >= size and (best < 0 or free <= self._gaps[best][1]):
                best = index
        if best < 0:
            return self._grow(size)
        offset, free = self._gaps.pop(best)
        if free > size:
            self._gaps.insert(best, (offset + size, free - size))
        return offset

    def give(self, offset: int, size: int) -> None:
        if size == 0:
            return
        insort(self._gaps, (offset, size))
        at = self._gaps.index((offset, size))
        if at + 1 < len(self._gaps) and offset + size == self._gaps[at + 1][0]:
            self._gaps[at : at + 2] = [(offset, size + self._gaps[at + 1][1])]
        if at > 0 and sum(self._gaps[at - 1]) == offset:
            before, free = self._gaps[at - 1]
            self._gaps[at - 1 : at + 1] = [(before, free + self._gaps[at][1])]
        last, free = self._gaps[-1]
        if last + free == self._end:
            self._gaps.pop()
            self._end = last

    def _grow(self, size: int) -> int:
        offset = self._end
        self._end += size
        self.peak = max(self.peak, self._end)
        return offset

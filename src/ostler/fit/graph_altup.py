"""Steps of Gemma 3n's alternating updates (AltUp), as models/gemma3n.cpp builds them.

Several streams run side by side. A layer predicts all of them, works on the first, and corrects all by
what came of it; the layer's own vectors (`graph_per_layer.py`) are added to the others.
"""

from __future__ import annotations

from ostler.fit.graph_feed_forward import norm, product
from ostler.fit.graph_memory import Graph, Piece
from ostler.fit.llamacpp_settings import Settings
from ostler.fit.model_shape import Layer, ModelShape

F32_BYTES = 4
PROJECTION = "altup_proj.weight"


class AltUp:
    """The streams of one part of a model."""

    def __init__(self, graph: Graph, shape: ModelShape, settings: Settings) -> None:
        self._graph, self._shape = graph, shape
        self._streams = shape.loose[PROJECTION].shape[2] + 1
        self._row = settings.batch_tokens * shape.n_embd * F32_BYTES
        self._few = settings.batch_tokens * self._streams * F32_BYTES

    def stacked(self, embedded: Piece) -> Piece:
        """All streams from the embedding: projections of it, made as large as it is."""
        graph, row = self._graph, self._row
        others = row * (self._streams - 1)
        projected = graph.op(others, graph.op(others, embedded))
        return graph.op(row + others, embedded, self._scaled(projected, embedded))

    def merged(self, streams: Piece) -> Piece:
        """The stream that the output is computed from: the mean of all."""
        graph, row = self._graph, self._row
        projected = graph.op(row * (self._streams - 1), streams)
        back = self._scaled(projected, streams)
        merged = graph.op(row, streams, back)
        for _ in range(self._streams - 2):
            merged = graph.change(merged, back)
        return merged

    def _scaled(self, projected: Piece, target: Piece) -> Piece:
        """Projections made as large as the target, by the sums of squares."""
        graph = self._graph
        wanted = graph.change(graph.op(self._few // self._streams, graph.op(self._row, target)))
        scaled = graph.op(projected.n_bytes, projected, wanted)
        squares = graph.change(projected)
        return graph.change(scaled, graph.change(graph.op(self._few, squares)))

    def _routed(self, source: Piece, width: int) -> Piece:
        """How the streams are mixed: a norm, the router, and a small matrix."""
        graph = self._graph
        routed = graph.change(graph.op(self._few, graph.change(graph.op(self._row, source))))
        return graph.op(self._few * width, routed)

    def predicted(self, streams: Piece) -> Piece:
        """What all streams will be."""
        graph = self._graph
        turned = graph.op(streams.n_bytes, streams)
        mixed = graph.op(streams.n_bytes, turned, self._routed(streams, self._streams))
        return graph.change(graph.op(streams.n_bytes, mixed), streams)

    def corrected(self, predicted: Piece, result: Piece) -> Piece:
        """All streams after the layer's result is known."""
        graph = self._graph
        spread = graph.op(predicted.n_bytes, graph.op(self._row, result, predicted))
        coefficients = graph.op(self._few, self._routed(result, 1))
        return graph.change(graph.change(spread, coefficients), predicted)

    def active(self, predicted: Piece) -> Piece:
        """The stream that the layer works on."""
        return self._graph.view(predicted, self._row)

    def joined(self, corrected: Piece, added: Piece) -> Piece:
        """The first stream as it is, the others with what the layer's vectors add."""
        others = self._graph.op(corrected.n_bytes - self._row, corrected, added)
        return self._graph.op(corrected.n_bytes, corrected, others)


def laurel(graph: Graph, shape: ModelShape, layer: Layer, normed: Piece, attended: Piece) -> Piece:
    """A residual of low rank beside attention."""
    low = product(graph, shape, normed.n_bytes // shape.n_embd * layer.rows("laurel_l"), normed)
    around = graph.change(norm(graph, product(graph, shape, normed.n_bytes, low)), normed)
    return graph.change(attended, around)

"""Steps of embeddings for each layer, as models/gemma4.cpp builds them.

Each token has a small vector for each layer: looked up, and added to a projection of its embedding. A
layer gates it by its result and adds what comes of it.
"""

from __future__ import annotations

from ostler.fit.graph_feed_forward import norm, product
from ostler.fit.graph_memory import Graph, Piece
from ostler.fit.llamacpp_settings import Settings
from ostler.fit.model_shape import Layer, ModelShape

F32_BYTES = 4
PROJECTION = "per_layer_model_proj.weight"


class PerLayer:
    """The vectors of all layers; they are put together in the first layer that needs them."""

    def __init__(self, graph: Graph, shape: ModelShape, settings: Settings, stream: Piece) -> None:
        projected = shape.loose[PROJECTION]
        self._graph, self._shape, self._tokens = graph, shape, settings.batch_tokens
        self._n_bytes = settings.batch_tokens * projected.shape[1] * F32_BYTES
        self._embedded = graph.view(stream)
        looked_up = graph.op(self._n_bytes, graph.input(settings.batch_tokens * 4))
        self._selected = graph.op(self._n_bytes, looked_up)
        self._vectors: Piece | None = None

    def vector(self, layer: Layer, stream: Piece) -> Piece:
        """What the layer's vector adds, gated by the stream."""
        graph, shape = self._graph, self._shape
        gate = graph.change(product(graph, shape, self._tokens * layer.rows("inp_gate") * F32_BYTES, stream))
        gate = graph.change(gate, self._together())
        return norm(graph, product(graph, shape, self._tokens * shape.n_embd * F32_BYTES, gate))

    def added(self, layer: Layer, stream: Piece) -> Piece:
        """The stream after a layer with what its vector adds."""
        graph = self._graph
        stream = graph.change(stream, self.vector(layer, stream))
        return graph.change(stream) if layer.has("layer_output_scale.weight") else stream

    def _together(self) -> Piece:
        if self._vectors is None:
            graph = self._graph
            projected = graph.change(product(graph, self._shape, self._n_bytes, self._embedded))
            summed = graph.change(graph.change(graph.op(self._n_bytes, projected)), self._selected)
            self._vectors = graph.view(graph.op(self._n_bytes, summed))
        return self._vectors

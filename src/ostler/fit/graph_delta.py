"""Steps of gated delta nets and short convolutions: models/qwen3next.cpp, qwen35.cpp and lfm2.cpp."""

from __future__ import annotations

from ostler.fit.graph_feed_forward import norm, product
from ostler.fit.graph_memory import Graph, Piece
from ostler.fit.llamacpp_settings import Settings
from ostler.fit.model_shape import Layer, ModelShape

F32_BYTES = 4


def gathered(graph: Graph, elements: int, settings: Settings) -> Piece:
    """A state of all slots, gathered from the cache; those of idle slots are copied (`build_rs`)."""
    states = graph.op(settings.slots * elements * F32_BYTES)
    graph.consume(states)
    return states


def joined(graph: Graph, shape: ModelShape, settings: Settings, states: Piece, source: Piece) -> Piece:
    """Old columns in front of the new ones; the last of them are saved."""
    old = settings.slots * shape.conv_elements * F32_BYTES
    both = graph.op(old + source.n_bytes, states, source)
    graph.consume(both)
    return both


def short_convolution(graph: Graph, shape: ModelShape, settings: Settings, stream: Piece) -> Piece:
    """From the stream to what the output projection takes: three parts, of which two gate."""
    row_bytes = settings.batch_tokens * shape.n_embd * F32_BYTES
    states = gathered(graph, shape.conv_elements, settings)
    parts = product(graph, shape, 3 * row_bytes, norm(graph, stream))
    both = joined(graph, shape, settings, states, graph.op(row_bytes, parts))
    convolved = graph.op(row_bytes, both)
    return graph.op(row_bytes, parts, convolved, in_place=True)


def delta_net(graph: Graph, shape: ModelShape, settings: Settings, layer: Layer, stream: Piece) -> Piece:
    """From the stream to what the output projection takes."""

    def size(elements: int) -> int:
        return settings.batch_tokens * elements * F32_BYTES

    values = layer.tensors["ssm_out.weight"].shape[0]
    width = shape.conv_elements // max(1, shape.conv_kernel - 1)
    keys = (width - values) // 2
    normed = norm(graph, stream)
    states = gathered(graph, shape.conv_elements, settings)
    mixed = product(graph, shape, size(width), normed)
    both = joined(graph, shape, settings, states, mixed)
    state = gathered(graph, shape.state_elements, settings)
    x = graph.change(graph.op(size(width), both))
    repeated = layer.has("ssm_ba.weight") and keys != values

    def part() -> Piece:
        """Queries or keys: normed, scaled, and where there are fewer of them repeated for all heads."""
        piece = graph.change(graph.op(size(keys), x))
        return graph.op(size(values), piece) if repeated else piece

    q, k = part(), part()
    gates = _gates(graph, settings, layer, normed)
    state_bytes = settings.slots * shape.state_elements * F32_BYTES
    changed = graph.op(size(values) + state_bytes, q, k, x, *gates, state)
    graph.consume(changed)
    out = graph.change(graph.op(size(values), changed))
    gate = graph.op(size(values), product(graph, shape, size(values), normed))
    return graph.change(out, gate)


def _gates(graph: Graph, settings: Settings, layer: Layer, normed: Piece) -> tuple[Piece, Piece]:
    """How much each head forgets and takes in."""
    heads = layer.tensors["ssm_dt.bias"].shape[0] if layer.has("ssm_dt.bias") else 1
    n_bytes = settings.batch_tokens * heads * F32_BYTES
    if layer.has("ssm_ba.weight"):
        both = graph.op(2 * n_bytes, normed)
        forgets = graph.change(graph.op(n_bytes, both))
        return forgets, graph.change(graph.op(n_bytes, both))
    forgets = graph.op(n_bytes, graph.op(n_bytes, normed))
    return forgets, graph.op(n_bytes, graph.op(n_bytes, normed))

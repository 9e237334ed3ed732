"""Steps of layers that keep a state: Mamba's two versions, as models/mamba-base.cpp builds them."""

from __future__ import annotations

from ostler.fit.graph_delta import delta_net, short_convolution
from ostler.fit.graph_feed_forward import norm
from ostler.fit.graph_memory import Graph, Piece
from ostler.fit.llamacpp_settings import Settings
from ostler.fit.model_shape import Layer, ModelShape

F32_BYTES = 4


def recurrent(graph: Graph, shape: ModelShape, settings: Settings, layer: Layer, stream: Piece) -> Piece:
    """From the stream to the output projection."""
    if layer.has("ssm_x.weight"):
        mixed = _mamba(graph, shape, settings, layer, stream)
    elif layer.has("ssm_in.weight"):
        mixed = _mamba2(graph, shape, settings, layer, stream)
    elif layer.has("shortconv.in_proj.weight"):
        mixed = short_convolution(graph, shape, settings, stream)
    elif layer.has("attn_gate.weight"):
        mixed = delta_net(graph, shape, settings, layer, stream)
    else:
        mixed = _other(graph, shape, settings, layer, stream)
    return graph.view(graph.op(settings.batch_tokens * shape.n_embd * F32_BYTES, mixed))


def _mamba(graph: Graph, shape: ModelShape, settings: Settings, layer: Layer, stream: Piece) -> Piece:
    tokens = settings.batch_tokens
    inner = layer.tensors["ssm_out.weight"].shape[0]
    dt_rank = layer.tensors["ssm_dt.weight"].shape[0]
    inner_bytes = tokens * inner * F32_BYTES
    states = _states(graph, shape, settings)
    both = graph.op(2 * inner_bytes, norm(graph, stream))
    x = _convolved(graph, shape, settings, inner, states, both)
    projected = graph.op(tokens * layer.rows("ssm_x") * F32_BYTES, x)
    dt = graph.op(inner_bytes, graph.op(tokens * dt_rank * F32_BYTES, projected))
    scanned = _scanned(graph, shape, settings, inner_bytes, (x, dt, projected))
    gate = graph.op(inner_bytes, both)
    y = graph.change(graph.change(x), scanned)
    return graph.op(inner_bytes, gate, y)


def _mamba2(graph: Graph, shape: ModelShape, settings: Settings, layer: Layer, stream: Piece) -> Piece:
    tokens = settings.batch_tokens
    inner = layer.tensors["ssm_out.weight"].shape[0]
    heads = layer.tensors["ssm_dt.bias"].shape[0] if layer.has("ssm_dt.bias") else 1
    inner_bytes = tokens * inner * F32_BYTES
    states = _states(graph, shape, settings)
    whole = graph.op(tokens * layer.rows("ssm_in") * F32_BYTES, norm(graph, stream))
    width = shape.conv_elements // max(1, shape.conv_kernel - 1)
    x = _convolved(graph, shape, settings, width, states, whole)
    dt = graph.change(graph.op(tokens * heads * F32_BYTES, whole))
    scanned = _scanned(graph, shape, settings, inner_bytes, (x, dt))
    gate = graph.op(inner_bytes, whole)
    y = graph.change(graph.op(inner_bytes, x), scanned)
    return graph.change(graph.op(inner_bytes, graph.op(inner_bytes, gate, y)))


def _states(graph: Graph, shape: ModelShape, settings: Settings) -> Piece:
    """The convolution's states of all slots, gathered from the cache (`build_rs`)."""
    return graph.op(settings.slots * shape.conv_elements * F32_BYTES)


def _convolved(
    graph: Graph, shape: ModelShape, settings: Settings, width: int, states: Piece, source: Piece
) -> Piece:
    """Old columns in front of the new ones, the last of them saved, then the convolution."""
    tokens = settings.batch_tokens
    columns = tokens + settings.slots * max(0, shape.conv_kernel - 1)
    joined = graph.op(columns * width * F32_BYTES, states, source)
    graph.consume(states)
    graph.consume(joined)
    return graph.change(graph.op(tokens * width * F32_BYTES, joined))


def _scanned(
    graph: Graph, shape: ModelShape, settings: Settings, inner_bytes: int, sources: tuple[Piece, ...]
) -> Piece:
    """The scan's results with the new states behind them; states of idle slots are copied too."""
    state_bytes = shape.state_elements * F32_BYTES
    scanned = graph.op(inner_bytes + settings.slots * state_bytes, *sources)
    graph.consume(graph.op((settings.slots - 1) * state_bytes))
    graph.consume(scanned)
    return scanned


def _other(graph: Graph, shape: ModelShape, settings: Settings, layer: Layer, stream: Piece) -> Piece:
    """A kind that is not known: its widest product twice, and its states."""
    tokens = settings.batch_tokens
    widest = max((tensor.shape[1] for tensor in layer.tensors.values() if len(tensor.shape) > 1), default=1)
    states = _states(graph, shape, settings)
    kept = graph.op(settings.slots * shape.state_elements * F32_BYTES)
    wide = graph.op(tokens * widest * F32_BYTES, norm(graph, stream))
    joined = graph.op(wide.n_bytes, wide, states)
    return graph.op(wide.n_bytes, joined, wide, kept)

"""The compute buffer: which activations are alive together while one batch is worked on.

The steps are those of llama.cpp's graphs (`build_attn`, `build_ffn`, `build_moe_ffn` in llama-graph.cpp
and the models in models/*.cpp), told to `graph_memory.Graph` in their order. Which steps a layer has is
read from the tensors that it has, so one description serves most architectures. The engine reserves for
the largest batch with a full cache (`llama_context::sched_reserve`), and so do we.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ostler.fit.graph_altup import PROJECTION as STREAMS
from ostler.fit.graph_altup import AltUp, laurel
from ostler.fit.graph_attention import AttentionInputs, attention, attention_inputs, projection
from ostler.fit.graph_feed_forward import feed_forward, norm
from ostler.fit.graph_memory import Graph, Piece
from ostler.fit.graph_per_layer import PROJECTION, PerLayer
from ostler.fit.graph_recurrent import recurrent
from ostler.fit.graph_rwkv import is_rwkv, rwkv
from ostler.fit.llamacpp_settings import Settings
from ostler.fit.model_shape import GPU_ALIGNMENT_BYTES, HOST_ALIGNMENT_BYTES, Layer, ModelShape

F32_BYTES = 4


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a model that one device computes. `first` and `last` say which ends it has.

    `copies` is how many sets of inputs the device holds at a time.
    """

    layers: Sequence[Layer]
    first: bool
    last: bool
    gpu: bool
    copies: int = 1

    @property
    def works(self) -> bool:
        """False if the device computes nothing."""
        return bool(self.layers) or self.first or self.last

    @property
    def kind(self) -> tuple[object, ...]:
        """Equal for parts that need the same memory."""
        return (*(layer.kind for layer in self.layers), self.first, self.last, self.gpu, self.copies)


def compute_bytes(shape: ModelShape, settings: Settings, part: Part) -> int:
    """Bytes of the compute buffer on one device; 0 if the device computes nothing."""
    if not part.works:
        return 0
    graph = Graph(GPU_ALIGNMENT_BYTES if part.gpu else HOST_ALIGNMENT_BYTES)
    if part.first:
        stream = _embedding(graph, shape, settings.batch_tokens)
    else:
        stream = graph.op(settings.batch_tokens * shape.n_embd * F32_BYTES)
    for _ in range(part.copies):
        inputs = attention_inputs(graph, shape, settings)
    wanted = graph.input(settings.outputs * 4)
    stream = _ends_of_embedding(graph, shape, stream)
    per_layer = None
    if part.layers and PROJECTION in shape.loose:
        per_layer = PerLayer(graph, shape, settings, stream)
    altup = AltUp(graph, shape, settings) if part.layers and STREAMS in shape.loose else None
    if altup is not None:
        stream = altup.stacked(stream)
    if part.layers and is_rwkv(part.layers[0]):
        stream = rwkv(graph, shape, settings, part.layers, stream, wanted)
    for layer in () if is_rwkv(shape.layers[0]) else part.layers:
        cut = wanted if layer is shape.layers[-1] and shape.architecture.outputs == "layer" else None
        if altup is not None and per_layer is not None:
            predicted = altup.predicted(stream)
            result = _layer(graph, shape, settings, layer, altup.active(predicted), inputs, None)
            corrected = altup.corrected(predicted, result)
            first = graph.op(result.n_bytes, corrected)
            stream = altup.joined(corrected, per_layer.vector(layer, first))
            continue
        stream = _layer(graph, shape, settings, layer, stream, inputs, cut)
        if per_layer is not None and layer.has("inp_gate.weight"):
            stream = per_layer.added(layer, stream)
    if altup is not None:
        stream = altup.merged(stream)
    if part.last:
        _output(graph, shape, settings, stream, wanted)
    return graph.peak_bytes()


def _embedding(graph: Graph, shape: ModelShape, tokens: int) -> Piece:
    """`build_inp_embd`: tokens, embeddings from the caller, or a mixture of both.

    All three ways are in the graph, whichever is taken; the two that are not are never given back.
    """
    row_bytes = tokens * shape.n_embd * F32_BYTES
    ids, mixed_ids, mixed_places = graph.input(tokens * 4), graph.input(tokens * 4), graph.input(tokens * 8)
    graph.input(row_bytes)
    mixed = graph.input(row_bytes)
    stream = graph.op(row_bytes, ids)
    looked_up = graph.op(row_bytes, mixed_ids)
    graph.op(row_bytes, mixed)
    graph.consume(looked_up, mixed_places)
    return stream


def _ends_of_embedding(graph: Graph, shape: ModelShape, stream: Piece) -> Piece:
    """Positions that are learned, and a norm, where the model has them."""
    if "position_embd.weight" in shape.loose:
        stream = graph.change(graph.op(stream.n_bytes), stream)
    if "token_embd_norm.weight" in shape.loose:
        stream = norm(graph, stream, bias="token_embd_norm.bias" in shape.loose)
    return stream


def _layer(
    graph: Graph,
    shape: ModelShape,
    settings: Settings,
    layer: Layer,
    stream: Piece,
    inputs: AttentionInputs,
    wanted: Piece | None,
) -> Piece:
    tokens, row_bytes = settings.batch_tokens, shape.n_embd * F32_BYTES
    normed = stream
    if layer.has("attn_norm.weight") and not layer.recurrent:
        normed = norm(graph, stream, bias=layer.has("attn_norm.bias"))
    if layer.recurrent:
        out = recurrent(graph, shape, settings, layer, stream)
    elif layer.has("attn_output.weight"):
        mixed = attention(graph, shape, settings, layer, normed, inputs)
        if _is_parallel(layer):
            return _parallel(graph, shape, settings, layer, (stream, normed, mixed), inputs, wanted)
        out = projection(graph, shape, settings, layer, mixed, inputs)
    else:
        return feed_forward(graph, shape, layer, tokens, normed, stream)
    if wanted is not None:
        tokens = settings.outputs
        out = graph.op(tokens * row_bytes, out, wanted)
        stream = graph.op(tokens * row_bytes, stream, wanted)
    if layer.has("post_attention_norm.weight") and layer.has("ffn_norm.weight"):
        out = norm(graph, out)
    residual = graph.change(out, stream)
    if layer.has("laurel_l.weight"):
        residual = laurel(graph, shape, layer, normed, residual)
    if layer.has("attn_output_norm.weight"):
        residual = norm(graph, residual, bias=layer.has("attn_output_norm.bias"))
    if not layer.has("ffn_down.weight") and not layer.has("ffn_down_exps.weight"):
        return residual
    entry = residual
    if layer.has("ffn_norm.weight") or layer.has("post_attention_norm.weight"):
        entry = norm(graph, residual, bias=layer.has("ffn_norm.bias"))
    stream = feed_forward(graph, shape, layer, tokens, entry, residual)
    if layer.has("layer_output_norm.weight"):
        stream = norm(graph, stream, bias=layer.has("layer_output_norm.bias"))
    return stream


def _parallel(
    graph: Graph,
    shape: ModelShape,
    settings: Settings,
    layer: Layer,
    pieces: tuple[Piece, Piece, Piece],
    inputs: AttentionInputs,
    wanted: Piece | None,
) -> Piece:
    """Feed-forward first, then the projection of what the heads gave, then the sums."""
    stream, normed, mixed = pieces
    tokens, row_bytes = settings.batch_tokens, shape.n_embd * F32_BYTES
    if wanted is None:
        out = feed_forward(graph, shape, layer, tokens, normed)
        return graph.change(
            graph.change(out, projection(graph, shape, settings, layer, mixed, inputs)), stream
        )
    projected = projection(graph, shape, settings, layer, mixed, inputs)
    tokens = settings.outputs
    projected, normed, stream = (
        graph.op(tokens * row_bytes, piece, wanted) for piece in (projected, normed, stream)
    )
    return graph.change(feed_forward(graph, shape, layer, tokens, normed, projected), stream)


def _is_parallel(layer: Layer) -> bool:
    """True where attention and feed-forward read the same norm, as in falcon, phi2 and command-r."""
    second = (
        "ffn_norm.weight",
        "post_attention_norm.weight",
        "attn_output_norm.weight",
        "post_ffw_norm.weight",
    )
    return layer.has("ffn_down.weight") and layer.has("attn_norm.weight") and not any(map(layer.has, second))


def _output(graph: Graph, shape: ModelShape, settings: Settings, stream: Piece, wanted: Piece) -> None:
    picked = settings.outputs * shape.n_embd * F32_BYTES
    if shape.architecture.outputs == "late":
        stream.kept = True
        stream = graph.op(picked, stream, wanted)
    if "output_norm.weight" in shape.loose:
        stream = norm(graph, stream, bias="output_norm.bias" in shape.loose)
    if shape.architecture.outputs == "normed":
        stream = graph.op(picked, stream, wanted)
    stream.kept = True
    if shape.architecture.memory != "none":
        graph.op(settings.outputs * shape.n_vocab * F32_BYTES, stream, kept=True)

"""Steps of attention: with a cache or without, by flash attention or by a matrix of scores, MLA too."""

from __future__ import annotations

from dataclasses import dataclass

from ostler.fit.graph_feed_forward import norm, product
from ostler.fit.graph_memory import Graph, Piece
from ostler.fit.kv_cache import cells_of
from ostler.fit.llamacpp_settings import Settings
from ostler.fit.model_shape import Layer, ModelShape

F32_BYTES, F16_BYTES, INDEX_BYTES = 4, 2, 8
ROTATION_STEP = 64


@dataclass(frozen=True, slots=True)
class Rotation:
    """The Hadamard matrices by which queries, keys and values are turned before they are quantized.

    0 stands for none. Conditions and sizes: the end of the constructor of `llama_kv_cache`.
    """

    k: int
    v: int


@dataclass(frozen=True, slots=True)
class AttentionInputs:
    """What each attention layer reads: positions, places in the cache, mask, matrices to turn by.

    Those in pairs are for layers that attend to everything and for those with a window.
    """

    positions: Piece
    masks: tuple[Piece, Piece]
    k_places: tuple[Piece, Piece]
    v_places: tuple[Piece, Piece]
    k_turns: tuple[Piece, Piece]
    v_turns: tuple[Piece, Piece]
    rotations: tuple[Rotation, Rotation]


def attention_inputs(graph: Graph, shape: ModelShape, settings: Settings) -> AttentionInputs:
    """Place the inputs that all layers share, in the order in which the engine's graph meets them."""
    tokens = settings.batch_tokens
    uses_cache = shape.architecture.memory != "none"
    mask_bytes = F16_BYTES if settings.flash_attention else F32_BYTES
    rows = 1 if settings.flash_attention else shape.widest_values
    rotations = (rotation_of(shape, settings, sliding=False), rotation_of(shape, settings, sliding=True))
    kinds = list(dict.fromkeys(layer.sliding for layer in shape.layers if not layer.recurrent))
    empty = graph.input(0)
    masks, k_places, v_places, k_turns, v_turns = ([empty, empty] for _ in range(5))
    if uses_cache and kinds:  # the first query meets its rotation before its position
        k_turns[kinds[0]] = graph.input(rotations[kinds[0]].k ** 2 * F32_BYTES)
    positions = graph.input(tokens * 4)
    for sliding in kinds:
        cells = (settings.window_cells if sliding else settings.cells) if uses_cache else tokens
        if uses_cache:
            if sliding != kinds[0]:
                k_turns[sliding] = graph.input(rotations[sliding].k ** 2 * F32_BYTES)
            v_turns[sliding] = graph.input(rotations[sliding].v ** 2 * F32_BYTES)
            k_places[sliding] = graph.input(tokens * INDEX_BYTES)
            v_places[sliding] = graph.input(0 if shape.mla else tokens * rows * INDEX_BYTES)
        masks[sliding] = graph.input(cells * tokens * mask_bytes)
    return AttentionInputs(
        positions=positions,
        masks=(masks[0], masks[1]),
        k_places=(k_places[0], k_places[1]),
        v_places=(v_places[0], v_places[1]),
        k_turns=(k_turns[0], k_turns[1]),
        v_turns=(v_turns[0], v_turns[1]),
        rotations=rotations,
    )


def rotation_of(shape: ModelShape, settings: Settings, *, sliding: bool) -> Rotation:
    """Which rotations the cache's types and the heads' widths ask for, in one of the two caches."""
    cached = [layer for layer in shape.layers if layer.kv and layer.sliding == sliding]
    heads_k, heads_v = {layer.head_k for layer in cached}, {layer.head_v for layer in cached}
    turn_k = settings.type_k.quantized and len(heads_k) == 1 and next(iter(heads_k)) % ROTATION_STEP == 0
    turn_v = settings.type_v.quantized and len(heads_v) == 1 and next(iter(heads_v)) % ROTATION_STEP == 0
    if shape.mla:
        return Rotation(0, 0)
    size_k = ROTATION_STEP
    while turn_k and next(iter(heads_k)) % (2 * size_k) == 0:
        size_k *= 2
    return Rotation(size_k if turn_k else 0, ROTATION_STEP if turn_v else 0)


def attention(
    graph: Graph,
    shape: ModelShape,
    settings: Settings,
    layer: Layer,
    normed: Piece,
    inputs: AttentionInputs,
) -> Piece:
    """From the normed stream to what the heads give, before the output projection."""
    if shape.mla and layer.has("attn_k_b.weight"):
        return _compressed(graph, settings, layer, normed, inputs)
    return _plain(graph, shape, settings, layer, normed, inputs)


def projection(
    graph: Graph, shape: ModelShape, settings: Settings, layer: Layer, mixed: Piece, inputs: AttentionInputs
) -> Piece:
    """From what the heads give to the width of the stream; turned values are turned back first."""
    if inputs.rotations[layer.sliding].v and layer.kv:
        mixed = graph.op(mixed.n_bytes, mixed, inputs.v_turns[layer.sliding])
    return product(graph, shape, settings.batch_tokens * shape.n_embd * F32_BYTES, mixed)


def _plain(
    graph: Graph,
    shape: ModelShape,
    settings: Settings,
    layer: Layer,
    normed: Piece,
    inputs: AttentionInputs,
) -> Piece:
    tokens, rotation = settings.batch_tokens, inputs.rotations[layer.sliding]
    cached = layer.kv
    rows = layer.rows("attn_qkv")
    fused = product(graph, shape, tokens * rows * F32_BYTES, normed) if rows else None
    q_bytes = tokens * layer.n_heads * layer.head_k * F32_BYTES
    k_bytes, v_bytes = tokens * layer.k_elements * F32_BYTES, tokens * layer.v_elements * F32_BYTES

    # a query twice as wide as its heads carries a gate for what they give
    gated = layer.rows("attn_q") == 2 * layer.n_heads * layer.head_k
    asked = product(graph, shape, 2 * q_bytes, normed) if gated else None

    def project(n_bytes: int, name: str, *, turned: bool) -> Piece:
        """A matrix product, or a part of the fused one, by heads; then norm and rotation by position."""
        whole = asked if name == "attn_q" and asked is not None else fused
        piece = graph.view(whole if whole is not None else product(graph, shape, n_bytes, normed))
        if layer.has(f"{name}_norm.weight"):
            piece = norm(graph, piece, bias=layer.has(f"{name}_norm.bias"), n_bytes=n_bytes)
        if turned and shape.architecture.rotary:
            piece = graph.op(n_bytes, piece, inputs.positions, in_place=True)
        return piece

    q = project(q_bytes, "attn_q", turned=True)
    k_turn, v_turn = inputs.k_turns[layer.sliding], inputs.v_turns[layer.sliding]
    q = graph.op(q_bytes, q, k_turn) if rotation.k else q
    if not cached and shape.architecture.memory == "kv":
        return _mix(graph, settings, layer, (q, None, None), inputs)
    if not cached:
        k = project(k_bytes, "attn_k", turned=True)
        v = project(v_bytes, "attn_v", turned=False)
        return _mix(graph, settings, layer, (q, k, v), inputs)

    def keys() -> Piece:
        k = project(k_bytes, "attn_k", turned=True)
        return graph.op(k_bytes, k, k_turn) if rotation.k else k

    def values() -> Piece:
        v = project(v_bytes, "attn_v", turned=False)
        if shape.architecture.normed_values:
            v = graph.op(v_bytes, v)
        if rotation.v and fused is not None:
            v = graph.op(v_bytes, v)  # a part of a matrix is copied out before it is turned
        return graph.op(v_bytes, v, v_turn) if rotation.v else v

    if shape.window_tokens:
        k, v = keys(), values()
    else:
        v, k = values(), keys()
    graph.consume(k, inputs.k_places[layer.sliding])
    graph.consume(v, inputs.v_places[layer.sliding])
    mixed = _mix(graph, settings, layer, (q, None, None), inputs)
    if asked is not None:
        gate = graph.change(graph.op(q_bytes, asked))
        mixed = graph.op(mixed.n_bytes, graph.view(mixed), gate, in_place=True)
    return mixed


def _mix(
    graph: Graph,
    settings: Settings,
    layer: Layer,
    qkv: tuple[Piece, Piece | None, Piece | None],
    inputs: AttentionInputs,
) -> Piece:
    """`build_attn_mha`. Keys and values are None where they lie in the cache.

    Flash attention wants halves (f16), so f32 is copied first, a whole cache of it as well.
    """
    q, k, v = qkv
    tokens, mask = settings.batch_tokens, inputs.masks[layer.sliding]
    out_bytes = tokens * layer.n_heads * layer.head_v * F32_BYTES
    if settings.flash_attention:
        halves = [graph.op(piece.n_bytes // 2, piece) for piece in (k, v) if piece is not None]
        if k is None:
            halves = _cast_cache(graph, settings, layer)
        return graph.op(out_bytes, q, *halves, mask)
    cells = tokens if k is not None else cells_of(layer, settings)
    sources = (q,) if k is None else (k, q)
    values = () if v is None else (graph.op(v.n_bytes, v),)
    scores = graph.op(cells * tokens * layer.n_heads * F32_BYTES, *sources)
    scores = graph.change(scores, mask)
    return graph.op(out_bytes, graph.op(out_bytes, *values, scores))


def _cast_cache(graph: Graph, settings: Settings, layer: Layer) -> list[Piece]:
    rows = cells_of(layer, settings) * settings.streams
    sides = ((settings.type_k, layer.k_elements), (settings.type_v, layer.v_elements))
    return [graph.op(rows * width * F16_BYTES) for kind, width in sides if kind.row.name == "F32"]


def _compressed(
    graph: Graph, settings: Settings, layer: Layer, normed: Piece, inputs: AttentionInputs
) -> Piece:
    """MLA with the key matrix absorbed into the query, as models/deepseek2.cpp builds it."""
    tokens, heads = settings.batch_tokens, layer.n_heads
    k_up, v_up = layer.tensors["attn_k_b.weight"].shape, layer.tensors["attn_v_b.weight"].shape
    rank, v_head = k_up[1], v_up[1]
    rope = layer.rows("attn_kv_a_mqa") - rank

    def size(width: int) -> int:
        return tokens * width * F32_BYTES

    q = normed
    if layer.rows("attn_q_a"):
        q = norm(graph, graph.op(size(layer.rows("attn_q_a")), normed))
    q = graph.op(size(layer.rows("attn_q_b") or layer.rows("attn_q")), q)
    absorbed = graph.op(size(rank * heads), q)
    q_turned = graph.op(size(rope * heads), q, inputs.positions)
    query = graph.op(size((rank + rope) * heads), absorbed, q_turned)
    both = graph.op(size(rank + rope), normed)
    values = graph.change(graph.op(size(rank), both))
    k_turned = graph.op(size(rope), both, inputs.positions)
    graph.consume(graph.op(size(rank + rope), values, k_turned), inputs.k_places[0])
    if settings.flash_attention:
        halves = []
        if settings.type_k.row.name == "F32":
            rows = settings.cells * settings.streams
            halves = [graph.op(rows * width * F16_BYTES) for width in (rank + rope, rank)]
        mixed = graph.op(size(rank * heads), query, *halves, inputs.masks[0])
    else:
        turned = graph.op(settings.type_k.bytes_of(rank) * settings.cells * settings.streams)
        scores = graph.change(graph.op(settings.cells * size(heads), query), inputs.masks[0])
        mixed = graph.op(size(rank * heads), turned, scores)
    return graph.op(size(v_head * heads), graph.op(size(v_head * heads), mixed))

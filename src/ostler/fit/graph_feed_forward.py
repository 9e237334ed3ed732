"""Steps of norms, feed-forward parts and mixtures of experts."""

from __future__ import annotations

from ostler.fit.graph_memory import Graph, Piece
from ostler.fit.model_shape import Layer, ModelShape

F32_BYTES = 4


def norm(graph: Graph, piece: Piece, *, bias: bool = False, n_bytes: int | None = None) -> Piece:
    """A norm with its weight. RMS norms may work in place, layer norms (those with a bias) do not.

    `n_bytes` is the size of the result where `piece` shows more than is normed.
    """
    return graph.change(graph.op(n_bytes or piece.n_bytes, piece, in_place=not bias))


def product(graph: Graph, shape: ModelShape, n_bytes: int, *sources: Piece) -> Piece:
    """`build_lora_mm`: a matrix product; with adapters a second one through their rank is added to it."""
    out = graph.op(n_bytes, *sources)
    return graph.change(out, graph.op(n_bytes, *sources)) if shape.adapted else out


def feed_forward(
    graph: Graph, shape: ModelShape, layer: Layer, tokens: int, entry: Piece, *residuals: Piece
) -> Piece:
    """The second half of a layer, from its normed `entry` to the sum with what goes around it."""
    if layer.has("ffn_down_exps.weight"):
        out = _experts(graph, shape, layer, tokens, entry)
        if layer.has("ffn_down_shexp.weight"):
            shared = _dense(graph, shape, layer, tokens, entry, "_shexp")
            if layer.has("ffn_gate_inp_shexp.weight"):
                shared = graph.change(shared, graph.change(graph.op(tokens * F32_BYTES, entry)))
            out = graph.change(out, shared)
    else:
        out = _dense(graph, shape, layer, tokens, entry, "")
    if layer.has("post_ffw_norm.weight"):
        out = norm(graph, out)
    for residual in residuals:
        out = graph.change(out, residual)
    return out


def _dense(graph: Graph, shape: ModelShape, layer: Layer, tokens: int, entry: Piece, which: str) -> Piece:
    """`build_ffn`: gate and up side by side; or up alone, which may hold both."""
    up_rows = layer.rows(f"ffn_up{which}")
    down = layer.tensors.get(f"ffn_down{which}.weight")
    inner_rows = down.shape[0] if down else up_rows
    inner_bytes = tokens * inner_rows * F32_BYTES
    if layer.has(f"ffn_gate{which}.weight"):
        gate = product(graph, shape, inner_bytes, entry)
        up = product(graph, shape, inner_bytes, entry)
        inner = graph.op(inner_bytes, gate, up)
    elif up_rows == 2 * inner_rows:
        inner = graph.op(inner_bytes, product(graph, shape, tokens * up_rows * F32_BYTES, entry))
    else:
        inner = graph.change(product(graph, shape, inner_bytes, entry))
    return product(graph, shape, tokens * shape.n_embd * F32_BYTES, inner)


def _experts(graph: Graph, shape: ModelShape, layer: Layer, tokens: int, entry: Piece) -> Piece:
    """`build_moe_ffn`: choose experts for each token, run them, add their results up."""
    weights, chosen = _choice(graph, shape, layer, tokens, entry)
    used = max(1, shape.experts_used)
    inner_rows = layer.tensors["ffn_down_exps.weight"].shape[0]
    inner_bytes = tokens * used * inner_rows * F32_BYTES
    if layer.has("ffn_gate_up_exps.weight"):
        inner = graph.op(inner_bytes, product(graph, shape, 2 * inner_bytes, entry, chosen))
    elif layer.has("ffn_gate_exps.weight"):
        gate = product(graph, shape, inner_bytes, entry, chosen)
        up = product(graph, shape, inner_bytes, entry, chosen)
        inner = graph.op(inner_bytes, gate, up)
    else:
        inner = graph.change(product(graph, shape, inner_bytes, entry, chosen))
    row_bytes = tokens * shape.n_embd * F32_BYTES
    results = graph.change(product(graph, shape, used * row_bytes, inner, chosen), weights)
    return graph.op(row_bytes, results)


def _choice(graph: Graph, shape: ModelShape, layer: Layer, tokens: int, entry: Piece) -> tuple[Piece, Piece]:
    """The weights of the chosen experts, and which they are (a view of all, sorted)."""
    experts = layer.rows("ffn_gate_inp")
    scores = graph.change(graph.op(tokens * experts * F32_BYTES, entry))
    biased = scores
    if layer.has("exp_probs_b.bias"):
        biased = graph.op(scores.n_bytes, scores)
    chosen = graph.op(tokens * experts * 4, biased)
    weights = graph.op(tokens * shape.experts_used * F32_BYTES, scores, chosen)
    total = graph.op(tokens * F32_BYTES, weights)
    return graph.change(graph.view(weights), total), chosen

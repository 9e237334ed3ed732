"""Makers of small models of the newer decoders and mixtures of experts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.fit.small_writer import Writer


def _plain(*, norms: bool = False, bias: bool = False) -> Callable[[Writer], None]:
    """Attention and feed-forward, each behind its norm."""

    def write(w: Writer) -> None:
        w.basics()
        w.ends()
        for block in w.blocks():
            w.attention(block, norms=norms, bias=bias)
            w.dense(block)

    return write


def _seed_oss(w: Writer) -> None:
    """The norm after attention is the one before the feed-forward part."""
    w.basics()
    w.ends()
    for block in w.blocks():
        w.attention(block, bias=True)
        w.vector(f"{block}.post_attention_norm.weight", w.sizes.n_embd)
        w.gated(block)


def _glm4(w: Writer) -> None:
    s = w.sizes
    w.basics()
    w.ends()
    for block in w.blocks():
        w.attention(block, bias=True)
        w.vector(f"{block}.post_attention_norm.weight", s.n_embd)
        w.vector(f"{block}.ffn_norm.weight", s.n_embd)
        w.matrix(f"{block}.ffn_up", s.n_embd, 2 * s.n_ff)
        w.matrix(f"{block}.ffn_down", s.n_ff, s.n_embd)
        w.vector(f"{block}.post_ffw_norm.weight", s.n_embd)


def _exaone4(w: Writer) -> None:
    """Norms after attention and after the feed-forward part, none before; a window in most layers."""
    s = w.sizes = replace(w.sizes, head=w.sizes.n_embd // w.sizes.heads)
    w.basics()
    w.number("attention.sliding_window", s.window)
    w.ends()
    for block in w.blocks():
        for part, heads in (("q", s.heads), ("k", s.kv_heads), ("v", s.kv_heads)):
            w.matrix(f"{block}.attn_{part}", s.n_embd, heads * s.head)
        w.matrix(f"{block}.attn_output", s.heads * s.head, s.n_embd)
        w.vector(f"{block}.attn_q_norm.weight", s.head)
        w.vector(f"{block}.attn_k_norm.weight", s.head)
        w.vector(f"{block}.post_attention_norm.weight", s.n_embd)
        w.gated(block)
        w.vector(f"{block}.post_ffw_norm.weight", s.n_embd)


def _mixture(
    *,
    norms: bool = False,
    bias: bool = False,
    shared: bool = False,
    probs: bool = False,
    lead: int = 0,
    norm: str = "ffn_norm",
    heads_alike: bool = False,
    wide_experts: bool = False,
    fused: bool = False,
) -> Callable[[Writer], None]:
    """A mixture of experts: `lead` dense layers first; `wide_experts`: as wide as a dense layer."""

    def write(w: Writer) -> None:
        if heads_alike:
            w.sizes = replace(w.sizes, kv_heads=w.sizes.heads)
        if wide_experts:
            w.sizes = replace(w.sizes, n_ff=w.sizes.n_ff_expert)
        if fused:
            w.sizes = replace(w.sizes, head=w.sizes.n_embd // w.sizes.heads)
        w.basics()
        w.expert_keys()
        w.number("leading_dense_block_count", lead)
        w.number("expert_shared_count", 1)
        w.number("interleave_moe_layer_step", 1)
        w.number("expert_gating_func", 2)
        w.number("expert_shared_feed_forward_length", w.sizes.n_ff_expert)
        w.ends()
        for index, block in enumerate(w.blocks()):
            if fused:
                _fused(w, block)
            else:
                w.attention(block, norms=norms, bias=bias)
            w.vector(f"{block}.{norm}.weight", w.sizes.n_embd)
            if index < lead:
                w.gated(block)
                continue
            w.experts(block)
            if probs:
                w.vector(f"{block}.exp_probs_b.bias", w.sizes.experts)
            if shared:
                w.gated(block, "_shexp", w.sizes.n_ff_expert)

    return write


def _fused(w: Writer, block: str) -> None:
    s = w.sizes
    w.vector(f"{block}.attn_norm.weight", s.n_embd)
    w.matrix(f"{block}.attn_qkv", s.n_embd, (s.heads + 2 * s.kv_heads) * s.head)
    w.matrix(f"{block}.attn_output", s.heads * s.head, s.n_embd)
    w.vector(f"{block}.attn_q_norm.weight", s.head)
    w.vector(f"{block}.attn_k_norm.weight", s.head)


def _wide_norms(w: Writer) -> None:
    """Queries and keys are normed over all heads together."""
    s = w.sizes = replace(w.sizes, n_ff=w.sizes.n_ff_expert)
    w.basics()
    w.expert_keys()
    w.number("expert_gating_func", 2)
    w.ends()
    for block in w.blocks():
        w.attention(block)
        w.vector(f"{block}.attn_q_norm.weight", s.heads * s.head)
        w.vector(f"{block}.attn_k_norm.weight", s.kv_heads * s.head)
        w.vector(f"{block}.ffn_norm.weight", s.n_embd)
        w.experts(block)
        w.vector(f"{block}.exp_probs_b.bias", s.experts)


NEWER_MAKERS: dict[str, Callable[[Writer], None]] = {
    "smollm3": _plain(),
    "ernie4_5": _plain(),
    "hunyuan-dense": _plain(norms=True),
    "mistral3": _plain(),
    "seed_oss": _seed_oss,
    "glm4": _glm4,
    "exaone4": _exaone4,
    "glm4moe": _mixture(norms=True, bias=True, shared=True, probs=True, lead=1, norm="post_attention_norm"),
    "ernie4_5-moe": _mixture(shared=True, probs=True, lead=1),
    "hunyuan-moe": _mixture(norms=True, shared=True, wide_experts=True),
    "dots1": _mixture(norms=True, shared=True, probs=True, lead=1, heads_alike=True),
    "bailingmoe2": _mixture(shared=True, probs=True, lead=1, fused=True),
    "minimax-m2": _wide_norms,
}
"""Who writes which architecture."""

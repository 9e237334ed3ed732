"""Small GGUF files with zero weights, of many architectures, that llama.cpp loads.

Each maker writes the keys and tensors that the engine's loader asks for (models/*.cpp). The sizes are
those of `Sizes`; the vocabulary is a plain list of words, so a file of a few MB behaves like a large one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from tests.fit.gemma_models import GEMMA_MAKERS
from tests.fit.more_small_models import MORE_MAKERS
from tests.fit.newer_models import NEWER_MAKERS
from tests.fit.small_writer import Sizes, Writer
from tests.fit.state_models import STATE_MAKERS

__all__ = ["MAKERS", "Sizes", "write_model"]


def _decoder(*, norms: bool = False, bias: bool = False, tied: bool = False) -> Callable[[Writer], None]:
    def write(w: Writer) -> None:
        w.basics()
        w.ends(output=not tied)
        for block in w.blocks():
            w.attention(block, norms=norms, bias=bias)
            w.dense(block)

    return write


def _qwen3moe(w: Writer) -> None:
    w.basics()
    w.expert_keys()
    w.ends()
    for block in w.blocks():
        w.attention(block, norms=True)
        w.vector(f"{block}.ffn_norm.weight", w.sizes.n_embd)
        w.experts(block)


def _gemma(*, norms: bool) -> Callable[[Writer], None]:
    def write(w: Writer) -> None:
        w.basics()
        w.number("attention.sliding_window", w.sizes.window)
        w.ends(output=False)
        for block in w.blocks():
            w.attention(block, norms=norms)
            w.dense(block)
            w.vector(f"{block}.post_attention_norm.weight", w.sizes.n_embd)
            w.vector(f"{block}.post_ffw_norm.weight", w.sizes.n_embd)

    return write


def _phi3(w: Writer) -> None:
    s = w.sizes = replace(w.sizes, head=w.sizes.n_embd // w.sizes.heads)
    w.basics()
    w.ends()
    for block in w.blocks():
        w.vector(f"{block}.attn_norm.weight", s.n_embd)
        w.matrix(f"{block}.attn_qkv", s.n_embd, (s.heads + 2 * s.kv_heads) * s.head)
        w.matrix(f"{block}.attn_output", s.heads * s.head, s.n_embd)
        w.vector(f"{block}.ffn_norm.weight", s.n_embd)
        w.matrix(f"{block}.ffn_up", s.n_embd, 2 * s.n_ff)
        w.matrix(f"{block}.ffn_down", s.n_ff, s.n_embd)


def _gpt_oss(w: Writer) -> None:
    s = w.sizes
    w.basics()
    w.expert_keys()
    w.number("attention.sliding_window", s.window)
    w.ends()
    for block in w.blocks():
        w.attention(block, bias=True)
        w.vector(f"{block}.attn_output.bias", s.n_embd)
        w.vector(f"{block}.attn_sinks.weight", s.heads)
        w.vector(f"{block}.post_attention_norm.weight", s.n_embd)
        w.experts(block, bias=True)


def _deepseek2(w: Writer) -> None:
    s = w.sizes
    nope, v_head = s.head, s.head
    w.basics(heads=False)
    w.expert_keys()
    w.number("attention.head_count", s.heads)
    w.number("attention.head_count_kv", 1)
    w.number("attention.key_length", s.rank + s.rope)
    w.number("attention.value_length", s.rank)
    w.number("attention.key_length_mla", nope + s.rope)
    w.number("attention.value_length_mla", v_head)
    w.number("attention.q_lora_rank", s.rank)
    w.number("attention.kv_lora_rank", s.rank)
    w.number("rope.dimension_count", s.rope)
    w.number("leading_dense_block_count", 1)
    w.number("expert_shared_count", 1)
    w.real("expert_weights_scale", 1.0)
    w.ends()
    for index, block in enumerate(w.blocks()):
        w.vector(f"{block}.attn_norm.weight", s.n_embd)
        w.matrix(f"{block}.attn_q_a", s.n_embd, s.rank)
        w.vector(f"{block}.attn_q_a_norm.weight", s.rank)
        w.matrix(f"{block}.attn_q_b", s.rank, s.heads * (nope + s.rope))
        w.matrix(f"{block}.attn_kv_a_mqa", s.n_embd, s.rank + s.rope)
        w.vector(f"{block}.attn_kv_a_norm.weight", s.rank)
        w.matrix(f"{block}.attn_k_b", nope, s.rank, s.heads)
        w.matrix(f"{block}.attn_v_b", s.rank, v_head, s.heads)
        w.matrix(f"{block}.attn_output", s.heads * v_head, s.n_embd)
        if index == 0:
            w.dense(block)
            continue
        w.vector(f"{block}.ffn_norm.weight", s.n_embd)
        w.experts(block)
        w.vector(f"{block}.exp_probs_b.bias", s.experts)
        w.matrix(f"{block}.ffn_gate_shexp", s.n_embd, s.n_ff_expert)
        w.matrix(f"{block}.ffn_up_shexp", s.n_embd, s.n_ff_expert)
        w.matrix(f"{block}.ffn_down_shexp", s.n_ff_expert, s.n_embd)


def _mamba(w: Writer) -> None:
    s = w.sizes
    inner, dt_rank = 2 * s.n_embd, 32
    w.basics(heads=False)
    w.number("ssm.conv_kernel", 4)
    w.number("ssm.inner_size", inner)
    w.number("ssm.state_size", s.state)
    w.number("ssm.time_step_rank", dt_rank)
    w.ends(output=False)
    for block in w.blocks():
        _mamba_layer(w, block, inner, dt_rank)


def _mamba_layer(w: Writer, block: str, inner: int, dt_rank: int) -> None:
    s = w.sizes
    w.vector(f"{block}.attn_norm.weight", s.n_embd)
    w.matrix(f"{block}.ssm_in", s.n_embd, 2 * inner)
    w.vector(f"{block}.ssm_conv1d.weight", 4, inner)
    w.vector(f"{block}.ssm_conv1d.bias", inner)
    w.matrix(f"{block}.ssm_x", inner, dt_rank + 2 * s.state)
    w.matrix(f"{block}.ssm_dt", dt_rank, inner)
    w.vector(f"{block}.ssm_dt.bias", inner)
    w.vector(f"{block}.ssm_a", s.state, inner)
    w.vector(f"{block}.ssm_d", inner)
    w.matrix(f"{block}.ssm_out", inner, s.n_embd)


def _jamba(w: Writer) -> None:
    """Mamba layers and attention layers, one after the other; each with a feed-forward part."""
    s = w.sizes
    inner, dt_rank = 2 * s.n_embd, 32
    w.basics(heads=False)
    w.number("attention.head_count", s.heads)
    w.file.add_array(f"{w.name}.attention.head_count_kv", [s.kv_heads * (i % 2) for i in range(s.layers)])
    w.number("attention.key_length", s.head)
    w.number("attention.value_length", s.head)
    w.number("ssm.conv_kernel", 4)
    w.number("ssm.inner_size", inner)
    w.number("ssm.state_size", s.state)
    w.number("ssm.time_step_rank", dt_rank)
    w.ends()
    for index, block in enumerate(w.blocks()):
        if index % 2:
            w.attention(block)
        else:
            _mamba_layer(w, block, inner, dt_rank)
            w.vector(f"{block}.ssm_dt_norm.weight", dt_rank)
            w.vector(f"{block}.ssm_b_norm.weight", s.state)
            w.vector(f"{block}.ssm_c_norm.weight", s.state)
        w.dense(block)


def _bert(w: Writer) -> None:
    s = w.sizes
    w.number("block_count", s.layers)
    w.number("context_length", 512)
    w.number("embedding_length", s.n_embd)
    w.number("feed_forward_length", s.n_ff)
    w.number("attention.head_count", s.heads)
    w.real("attention.layer_norm_epsilon", 1e-12)
    w.file.add_bool("bert.attention.causal", False)
    w.number("pooling_type", 1)
    w.file.add_token_type_count(2)
    w.vocabulary("llama")
    w.matrix("token_embd", s.n_embd, s.vocab)
    w.matrix("token_types", s.n_embd, 2)
    w.matrix("position_embd", s.n_embd, 512)
    w.vector("token_embd_norm.weight", s.n_embd)
    w.vector("token_embd_norm.bias", s.n_embd)
    for block in w.blocks():
        for part in ("q", "k", "v", "output"):
            w.matrix(f"{block}.attn_{part}", s.n_embd, s.n_embd)
            w.vector(f"{block}.attn_{part}.bias", s.n_embd)
        for part in ("attn_output_norm", "layer_output_norm"):
            w.vector(f"{block}.{part}.weight", s.n_embd)
            w.vector(f"{block}.{part}.bias", s.n_embd)
        w.matrix(f"{block}.ffn_up", s.n_embd, s.n_ff)
        w.vector(f"{block}.ffn_up.bias", s.n_ff)
        w.matrix(f"{block}.ffn_down", s.n_ff, s.n_embd)
        w.vector(f"{block}.ffn_down.bias", s.n_embd)


MAKERS: dict[str, Callable[[Writer], None]] = {
    "llama": _decoder(),
    "qwen2": _decoder(bias=True, tied=True),
    "qwen3": _decoder(norms=True),
    "qwen3moe": _qwen3moe,
    "gemma2": _gemma(norms=False),
    "gemma3": _gemma(norms=True),
    "phi3": _phi3,
    "gpt-oss": _gpt_oss,
    "deepseek2": _deepseek2,
    "mamba": _mamba,
    "jamba": _jamba,
    "bert": _bert,
    **MORE_MAKERS,
    **NEWER_MAKERS,
    **STATE_MAKERS,
    **GEMMA_MAKERS,
    "mistral4": _deepseek2,
}
"""Who writes which architecture."""


def write_model(folder: Path, architecture: str, sizes: Sizes | None = None) -> Path:
    """Write a small model of an architecture and return the file."""
    path = folder / f"{architecture}.gguf"
    writer = Writer(path, architecture, sizes or Sizes())
    MAKERS[architecture](writer)
    return writer.close()

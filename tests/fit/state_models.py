"""Makers of small models that keep a state of fixed size: short convolutions, delta nets, RWKV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.fit.more_small_models import mamba2_keys, mamba2_layer
from tests.fit.small_writer import Writer

PERIOD = 4
"""Of so many layers one attends, the last."""


def _heads_by_layer(w: Writer, attends: Callable[[int], bool]) -> None:
    s = w.sizes
    w.number("attention.head_count", s.heads)
    counts = [s.kv_heads if attends(index) else 0 for index in range(s.layers)]
    w.file.add_array(f"{w.name}.attention.head_count_kv", counts)
    w.number("attention.key_length", s.head)
    w.number("attention.value_length", s.head)
    w.number("rope.dimension_count", s.head)


def _lfm2(w: Writer) -> None:
    s = w.sizes = replace(w.sizes, head=w.sizes.n_embd // w.sizes.heads)
    w.basics(heads=False)
    _heads_by_layer(w, lambda index: index % 3 == 2)
    w.number("shortconv.l_cache", 3)
    if w.name == "lfm2moe":
        w.expert_keys()
        w.number("leading_dense_block_count", 1)
        w.number("expert_gating_func", 2)
    w.matrix("token_embd", s.n_embd, s.vocab)
    w.vector("token_embd_norm.weight", s.n_embd)
    for index, block in enumerate(w.blocks()):
        if index % 3 == 2:
            w.attention(block, norms=True)
        else:
            w.vector(f"{block}.attn_norm.weight", s.n_embd)
            w.vector(f"{block}.shortconv.conv.weight", 3, s.n_embd)
            w.matrix(f"{block}.shortconv.in_proj", s.n_embd, 3 * s.n_embd)
            w.matrix(f"{block}.shortconv.out_proj", s.n_embd, s.n_embd)
        if w.name == "lfm2" or index == 0:
            w.dense(block)
        else:
            w.vector(f"{block}.ffn_norm.weight", s.n_embd)
            w.experts(block)
            w.vector(f"{block}.exp_probs_b.bias", s.experts)


def _delta_net(w: Writer) -> None:
    """Qwen's gated delta nets; attention with a gate in every fourth layer."""
    s = w.sizes
    state, k_heads, v_heads = 4 * s.state, 4, 8
    keys, values = state * k_heads, state * v_heads
    w.basics()
    w.number("full_attention_interval", PERIOD)
    w.number("ssm.conv_kernel", 4)
    w.number("ssm.inner_size", values)
    w.number("ssm.state_size", state)
    w.number("ssm.time_step_rank", v_heads)
    w.number("ssm.group_count", k_heads)
    if w.name != "qwen3next":
        w.file.add_array(f"{w.name}.rope.dimension_sections", [s.head // 8] * 3 + [0])
    if w.name != "qwen35":
        w.expert_keys()
        w.number("expert_shared_feed_forward_length", s.n_ff_expert)
    w.ends()
    for index, block in enumerate(w.blocks()):
        w.vector(f"{block}.attn_norm.weight", s.n_embd)
        w.vector(f"{block}.post_attention_norm.weight", s.n_embd)
        if (index + 1) % PERIOD == 0:
            for part, rows in (("q", 2 * s.heads), ("k", s.kv_heads), ("v", s.kv_heads)):
                w.matrix(f"{block}.attn_{part}", s.n_embd, rows * s.head)
            w.matrix(f"{block}.attn_output", s.heads * s.head, s.n_embd)
            w.vector(f"{block}.attn_q_norm.weight", s.head)
            w.vector(f"{block}.attn_k_norm.weight", s.head)
        else:
            w.matrix(f"{block}.attn_qkv", s.n_embd, 2 * keys + values)
            w.matrix(f"{block}.attn_gate", s.n_embd, values)
            w.vector(f"{block}.ssm_conv1d.weight", 4, 2 * keys + values)
            w.vector(f"{block}.ssm_dt.bias", v_heads)
            w.vector(f"{block}.ssm_a", v_heads)
            if w.name == "qwen3next":
                w.matrix(f"{block}.ssm_ba", s.n_embd, 2 * v_heads)
            else:
                w.matrix(f"{block}.ssm_beta", s.n_embd, v_heads)
                w.matrix(f"{block}.ssm_alpha", s.n_embd, v_heads)
            w.vector(f"{block}.ssm_norm.weight", state)
            w.matrix(f"{block}.ssm_out", values, s.n_embd)
        if w.name == "qwen35":
            w.gated(block)
            continue
        w.experts(block)
        w.vector(f"{block}.ffn_gate_inp_shexp.weight", s.n_embd)
        w.gated(block, "_shexp", s.n_ff_expert)


def _nemotron_h(w: Writer) -> None:
    """Mamba 2, attention and feed-forward parts, each a layer of its own."""
    s = w.sizes
    w.number("block_count", s.layers)
    w.number("context_length", s.context)
    w.number("embedding_length", s.n_embd)
    widths = [s.n_ff if index % 3 == 1 else 0 for index in range(s.layers)]
    w.file.add_array(f"{w.name}.feed_forward_length", widths)
    w.real("attention.layer_norm_epsilon", 1e-5)
    w.real("attention.layer_norm_rms_epsilon", 1e-6)
    w.vocabulary("llama")
    _heads_by_layer(w, lambda index: index % 3 == 2)
    mamba2_keys(w)
    w.ends()
    for index, block in enumerate(w.blocks()):
        if index % 3 == 0:
            mamba2_layer(w, block)
        elif index % 3 == 2:
            w.attention(block)
        else:
            w.vector(f"{block}.attn_norm.weight", s.n_embd)
            w.matrix(f"{block}.ffn_up", s.n_embd, s.n_ff)
            w.matrix(f"{block}.ffn_down", s.n_ff, s.n_embd)


def _rwkv_start(w: Writer) -> None:
    s = w.sizes
    w.basics(heads=False)
    w.real("attention.layer_norm_epsilon", 1e-5)
    w.number("attention.head_count", 0)
    w.number("wkv.head_size", 64)
    w.number("token_shift_count", 2)
    w.ends()
    for name in ("token_embd_norm.weight", "token_embd_norm.bias", "output_norm.bias"):
        w.vector(name, s.n_embd)


def _rwkv_norms(w: Writer, block: str) -> None:
    for name in ("attn_norm", "attn_norm_2", "time_mix_ln"):
        w.vector(f"{block}.{name}.weight", w.sizes.n_embd)
        w.vector(f"{block}.{name}.bias", w.sizes.n_embd)


def _rwkv6(w: Writer) -> None:
    s, extra = w.sizes, 32
    w.number("time_mix_extra_dim", extra)
    w.number("time_decay_extra_dim", 64)
    w.number("rescale_every_n_layers", 6)
    _rwkv_start(w)
    for block in w.blocks():
        _rwkv_norms(w, block)
        w.matrix(f"{block}.time_mix_w1", s.n_embd, extra * 5)
        w.matrix(f"{block}.time_mix_w2", extra, s.n_embd, 5)
        w.vector(f"{block}.time_mix_lerp_x.weight", s.n_embd, 1, 1)
        w.vector(f"{block}.time_mix_lerp_fused.weight", s.n_embd, 1, 1, 5)
        w.vector(f"{block}.time_mix_first.weight", 64, s.n_embd // 64)
        w.vector(f"{block}.time_mix_decay.weight", s.n_embd)
        w.matrix(f"{block}.time_mix_decay_w1", s.n_embd, 64)
        w.matrix(f"{block}.time_mix_decay_w2", 64, s.n_embd)
        for part in ("key", "value", "receptance", "gate", "output"):
            w.matrix(f"{block}.time_mix_{part}", s.n_embd, s.n_embd)
        w.vector(f"{block}.channel_mix_lerp_k.weight", s.n_embd, 1, 1)
        w.vector(f"{block}.channel_mix_lerp_r.weight", s.n_embd, 1, 1)
        w.matrix(f"{block}.channel_mix_key", s.n_embd, s.n_ff)
        w.matrix(f"{block}.channel_mix_value", s.n_ff, s.n_embd)
        w.matrix(f"{block}.channel_mix_receptance", s.n_embd, s.n_embd)


def _rwkv7(w: Writer) -> None:
    s, rank = w.sizes, 64
    for name in ("decay", "iclr", "value_residual_mix", "gate"):
        w.number(f"attention.{name}_lora_rank", rank)
    _rwkv_start(w)
    for block in w.blocks():
        _rwkv_norms(w, block)
        for part in ("w", "a", "v"):
            w.vector(f"{block}.time_mix_{part}0.weight", s.n_embd)
        for part in ("w", "a", "v", "g"):
            w.matrix(f"{block}.time_mix_{part}1", s.n_embd, rank)
            w.matrix(f"{block}.time_mix_{part}2", rank, s.n_embd)
        w.vector(f"{block}.time_mix_lerp_fused.weight", s.n_embd, 1, 1, 6)
        for part in ("k_k", "k_a", "r_k"):
            w.vector(f"{block}.time_mix_{part}.weight", s.n_embd)
        for part in ("key", "value", "receptance", "output"):
            w.matrix(f"{block}.time_mix_{part}", s.n_embd, s.n_embd)
        w.vector(f"{block}.channel_mix_lerp_k.weight", s.n_embd, 1, 1)
        w.matrix(f"{block}.channel_mix_key", s.n_embd, s.n_ff)
        w.matrix(f"{block}.channel_mix_value", s.n_ff, s.n_embd)


STATE_MAKERS: dict[str, Callable[[Writer], None]] = {
    "lfm2": _lfm2,
    "lfm2moe": _lfm2,
    "qwen3next": _delta_net,
    "qwen35": _delta_net,
    "qwen35moe": _delta_net,
    "nemotron_h": _nemotron_h,
    "rwkv6": _rwkv6,
    "rwkv7": _rwkv7,
}
"""Who writes which architecture."""

"""More makers of small models: parallel attention, post-norms, Mamba 2."""

from __future__ import annotations

from collections.abc import Callable

from tests.fit.small_writer import Writer


def _granite(w: Writer) -> None:
    w.basics()
    w.real("logit_scale", 8.0)
    w.real("residual_scale", 0.22)
    w.real("embedding_scale", 12.0)
    w.real("attention.scale", 0.015)
    w.ends(output=False)
    for block in w.blocks():
        w.attention(block)
        w.dense(block)


def _command(w: Writer) -> None:
    """Attention and feed-forward side by side, both from one norm."""
    s = w.sizes
    w.basics()
    w.real("attention.layer_norm_epsilon", 1e-5)
    w.real("logit_scale", 0.0625)
    if w.name == "cohere2":
        w.number("attention.sliding_window", s.window)
    w.ends(output=False)
    for block in w.blocks():
        w.attention(block)
        w.matrix(f"{block}.ffn_gate", s.n_embd, s.n_ff)
        w.matrix(f"{block}.ffn_up", s.n_embd, s.n_ff)
        w.matrix(f"{block}.ffn_down", s.n_ff, s.n_embd)


def _falcon(w: Writer) -> None:
    s = w.sizes
    w.basics()
    w.real("attention.layer_norm_epsilon", 1e-5)
    w.ends()
    w.vector("output_norm.bias", s.n_embd)
    for block in w.blocks():
        w.vector(f"{block}.attn_norm.weight", s.n_embd)
        w.vector(f"{block}.attn_norm.bias", s.n_embd)
        w.matrix(f"{block}.attn_qkv", s.n_embd, (s.heads + 2 * s.kv_heads) * s.head)
        w.matrix(f"{block}.attn_output", s.heads * s.head, s.n_embd)
        w.matrix(f"{block}.ffn_up", s.n_embd, s.n_ff)
        w.matrix(f"{block}.ffn_down", s.n_ff, s.n_embd)


def _starcoder2(w: Writer) -> None:
    s = w.sizes
    w.basics()
    w.real("attention.layer_norm_epsilon", 1e-5)
    w.ends()
    w.vector("output_norm.bias", s.n_embd)
    for block in w.blocks():
        w.attention(block, bias=True)
        w.vector(f"{block}.attn_norm.bias", s.n_embd)
        w.vector(f"{block}.attn_output.bias", s.n_embd)
        w.vector(f"{block}.ffn_norm.weight", s.n_embd)
        w.vector(f"{block}.ffn_norm.bias", s.n_embd)
        w.matrix(f"{block}.ffn_up", s.n_embd, s.n_ff)
        w.vector(f"{block}.ffn_up.bias", s.n_ff)
        w.matrix(f"{block}.ffn_down", s.n_ff, s.n_embd)
        w.vector(f"{block}.ffn_down.bias", s.n_embd)


def _olmo2(w: Writer) -> None:
    """Norms after attention and after the feed-forward part, none before."""
    s = w.sizes
    w.basics()
    w.ends()
    for block in w.blocks():
        for part, rows in (("q", s.heads), ("k", s.kv_heads), ("v", s.kv_heads)):
            w.matrix(f"{block}.attn_{part}", s.n_embd, rows * s.head)
        w.matrix(f"{block}.attn_output", s.heads * s.head, s.n_embd)
        w.vector(f"{block}.attn_q_norm.weight", s.heads * s.head)
        w.vector(f"{block}.attn_k_norm.weight", s.kv_heads * s.head)
        w.vector(f"{block}.post_attention_norm.weight", s.n_embd)
        w.matrix(f"{block}.ffn_gate", s.n_embd, s.n_ff)
        w.matrix(f"{block}.ffn_up", s.n_embd, s.n_ff)
        w.matrix(f"{block}.ffn_down", s.n_ff, s.n_embd)
        w.vector(f"{block}.post_ffw_norm.weight", s.n_embd)


def _mamba2(w: Writer) -> None:
    w.basics(heads=False)
    mamba2_keys(w)
    w.ends(output=False)
    for block in w.blocks():
        mamba2_layer(w, block)


def mamba2_keys(w: Writer) -> None:
    """The sizes of Mamba 2's state: heads of 64, two groups."""
    w.number("ssm.conv_kernel", 4)
    w.number("ssm.inner_size", 2 * w.sizes.n_embd)
    w.number("ssm.state_size", 4 * w.sizes.state)
    w.number("ssm.time_step_rank", 2 * w.sizes.n_embd // 64)
    w.number("ssm.group_count", 2)


def mamba2_layer(w: Writer, block: str) -> None:
    """The tensors of one layer."""
    s = w.sizes
    inner, state, heads, groups = 2 * s.n_embd, 4 * s.state, 2 * s.n_embd // 64, 2
    width = inner + 2 * groups * state
    w.vector(f"{block}.attn_norm.weight", s.n_embd)
    w.matrix(f"{block}.ssm_in", s.n_embd, inner + width + heads)
    w.vector(f"{block}.ssm_conv1d.weight", 4, width)
    w.vector(f"{block}.ssm_conv1d.bias", width)
    w.vector(f"{block}.ssm_dt.bias", heads)
    w.vector(f"{block}.ssm_a", 1, heads)
    w.vector(f"{block}.ssm_d", 1, heads)
    w.vector(f"{block}.ssm_norm.weight", inner // groups, groups)
    w.matrix(f"{block}.ssm_out", inner, s.n_embd)


def _granite_hybrid(w: Writer) -> None:
    """Mamba 2 layers and attention layers, one after the other; each with a feed-forward part."""
    s = w.sizes
    w.basics(heads=False)
    w.number("attention.head_count", s.heads)
    w.file.add_array(f"{w.name}.attention.head_count_kv", [s.kv_heads * (i % 2) for i in range(s.layers)])
    w.number("attention.key_length", s.head)
    w.number("attention.value_length", s.head)
    w.number("rope.dimension_count", s.head)
    mamba2_keys(w)
    w.ends(output=False)
    for index, block in enumerate(w.blocks()):
        if index % 2:
            w.attention(block)
        else:
            mamba2_layer(w, block)
        w.dense(block)


MORE_MAKERS: dict[str, Callable[[Writer], None]] = {
    "granite": _granite,
    "command-r": _command,
    "cohere2": _command,
    "falcon": _falcon,
    "starcoder2": _starcoder2,
    "olmo2": _olmo2,
    "mamba2": _mamba2,
    "granitehybrid": _granite_hybrid,
}
"""Who writes which architecture."""

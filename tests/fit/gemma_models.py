"""Makers of small models of Gemma 3n and Gemma 4, with embeddings for each layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tests.fit.small_writer import Writer

PER_LAYER = {"gemma3n": 256, "gemma4": 64}
"""Width of what each layer gets for each token; that of Gemma 3n is fixed in the engine."""


def _per_layer_ends(w: Writer) -> None:
    s, width = w.sizes, PER_LAYER[w.name]
    w.number("embedding_length_per_layer_input", width)
    w.matrix("per_layer_token_embd", width * s.layers, s.vocab)
    w.matrix("per_layer_model_proj", s.n_embd, width * s.layers)
    w.vector("per_layer_proj_norm.weight", width)


def _per_layer(w: Writer, block: str) -> None:
    w.matrix(f"{block}.inp_gate", w.sizes.n_embd, PER_LAYER[w.name])
    w.matrix(f"{block}.proj", PER_LAYER[w.name], w.sizes.n_embd)
    w.vector(f"{block}.post_norm.weight", w.sizes.n_embd)


def _norms(w: Writer, block: str) -> None:
    w.vector(f"{block}.post_attention_norm.weight", w.sizes.n_embd)
    w.vector(f"{block}.post_ffw_norm.weight", w.sizes.n_embd)


def _gemma3n(w: Writer) -> None:
    s, inputs, rank = w.sizes, 4, 64
    w.fill = 0.01  # streams are divided by their length
    w.basics()
    w.number("attention.sliding_window", s.window)
    w.number("altup.num_inputs", inputs)
    _per_layer_ends(w)
    w.ends(output=False)
    w.matrix("altup_proj", s.n_embd, s.n_embd, inputs - 1)
    w.matrix("altup_unembd_proj", s.n_embd, s.n_embd, inputs - 1)
    for block in w.blocks():
        w.attention(block, norms=True)
        w.dense(block)
        _norms(w, block)
        _per_layer(w, block)
        w.matrix(f"{block}.altup_correct_coef", inputs, inputs)
        w.vector(f"{block}.altup_correct_scale.weight", s.n_embd)
        w.matrix(f"{block}.altup_predict_coef", inputs, inputs * inputs)
        w.matrix(f"{block}.altup_router", s.n_embd, inputs)
        w.vector(f"{block}.altup_router_norm.weight", s.n_embd)
        w.matrix(f"{block}.laurel_l", s.n_embd, rank)
        w.matrix(f"{block}.laurel_r", rank, s.n_embd)
        w.vector(f"{block}.laurel_post_norm.weight", s.n_embd)


def _gemma4(w: Writer) -> None:
    """Full attention has wider heads than that with a window; the last layers take keys from before."""
    s = w.sizes = replace(w.sizes, layers=max(6, w.sizes.layers), head=2 * w.sizes.head)
    last_of_its_own = s.layers - 3  # attends to everything; the engine wants one with a window before it
    slides = [(index - last_of_its_own) % 3 > 0 for index in range(s.layers)]
    w.basics()
    w.file.add_array(f"{w.name}.attention.sliding_window_pattern", slides)
    w.number("attention.sliding_window", s.window)
    w.number("attention.key_length_swa", s.head // 2)
    w.number("attention.value_length_swa", s.head // 2)
    w.number("rope.dimension_count_swa", s.head // 2)
    w.number("attention.shared_kv_layers", 2)
    _per_layer_ends(w)
    w.ends(output=False)
    w.vector("rope_freqs.weight", s.head // 2)
    for slide, block in zip(slides, w.blocks(), strict=True):
        w.sizes = replace(s, head=s.head // 2 if slide else s.head)
        w.attention(block, norms=True)
        w.dense(block)
        _norms(w, block)
        _per_layer(w, block)
        w.vector(f"{block}.layer_output_scale.weight", 1)
    w.sizes = s


GEMMA_MAKERS: dict[str, Callable[[Writer], None]] = {"gemma3n": _gemma3n, "gemma4": _gemma4}
"""Who writes which architecture."""

"""Writes the keys and tensors of small models; `small_models.py` says which, by architecture."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a small model is. Widths are in elements."""

    layers: int = 4
    n_embd: int = 256
    heads: int = 8
    kv_heads: int = 4
    head: int = 32
    n_ff: int = 768
    vocab: int = 4_000
    context: int = 32_768
    experts: int = 8
    used: int = 2
    n_ff_expert: int = 192
    window: int = 512
    rank: int = 128
    rope: int = 32
    state: int = 16


class Writer:
    """A GGUF file in the making."""

    def __init__(self, path: Path, name: str, sizes: Sizes, dtype: type[np.generic] = np.float16) -> None:
        self.path, self.name, self.sizes, self._dtype = path, name, sizes, dtype
        self.fill = 0.0
        self.file = gguf.GGUFWriter(str(path), name)

    def number(self, key: str, value: int) -> None:
        self.file.add_uint32(f"{self.name}.{key}", value)

    def real(self, key: str, value: float) -> None:
        self.file.add_float32(f"{self.name}.{key}", value)

    def matrix(self, name: str, *shape: int) -> None:
        """A weight, its row length first, as the engine counts."""
        self.file.add_tensor(f"{name}.weight", np.full(tuple(reversed(shape)), self.fill, dtype=self._dtype))

    def vector(self, name: str, *shape: int) -> None:
        self.file.add_tensor(name, np.ones(tuple(reversed(shape)), dtype=np.float32))

    def basics(self, *, heads: bool = True) -> None:
        s = self.sizes
        self.number("block_count", s.layers)
        self.number("context_length", s.context)
        self.number("embedding_length", s.n_embd)
        self.number("feed_forward_length", s.n_ff)
        self.real("attention.layer_norm_rms_epsilon", 1e-6)
        if heads:
            self.number("attention.head_count", s.heads)
            self.number("attention.head_count_kv", s.kv_heads)
            self.number("attention.key_length", s.head)
            self.number("attention.value_length", s.head)
            self.number("rope.dimension_count", s.head)
        self.vocabulary("llama")

    def vocabulary(self, model: str) -> None:
        words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
        words += [f"\u2581w{index}" for index in range(len(words), self.sizes.vocab)]
        kinds = [gguf.TokenType.UNKNOWN, gguf.TokenType.CONTROL, gguf.TokenType.CONTROL]
        kinds += [gguf.TokenType.BYTE] * 256 + [gguf.TokenType.NORMAL] * (len(words) - 259)
        self.file.add_tokenizer_model(model)
        self.file.add_token_list(words)
        self.file.add_token_scores([0.0] * len(words))
        self.file.add_token_types([int(kind) for kind in kinds])
        self.file.add_bos_token_id(1)
        self.file.add_eos_token_id(2)

    def ends(self, *, output: bool = True) -> None:
        s = self.sizes
        self.matrix("token_embd", s.n_embd, s.vocab)
        self.vector("output_norm.weight", s.n_embd)
        if output:
            self.matrix("output", s.n_embd, s.vocab)

    def attention(self, block: str, *, norms: bool = False, bias: bool = False) -> None:
        s = self.sizes
        self.vector(f"{block}.attn_norm.weight", s.n_embd)
        for part, rows in (("q", s.heads * s.head), ("k", s.kv_heads * s.head), ("v", s.kv_heads * s.head)):
            self.matrix(f"{block}.attn_{part}", s.n_embd, rows)
            if bias:
                self.vector(f"{block}.attn_{part}.bias", rows)
        self.matrix(f"{block}.attn_output", s.heads * s.head, s.n_embd)
        if norms:
            self.vector(f"{block}.attn_q_norm.weight", s.head)
            self.vector(f"{block}.attn_k_norm.weight", s.head)

    def dense(self, block: str) -> None:
        self.vector(f"{block}.ffn_norm.weight", self.sizes.n_embd)
        self.gated(block)

    def gated(self, block: str, which: str = "", inner: int = 0) -> None:
        """Gate, up and down, without a norm."""
        n_embd, inner = self.sizes.n_embd, inner or self.sizes.n_ff
        self.matrix(f"{block}.ffn_gate{which}", n_embd, inner)
        self.matrix(f"{block}.ffn_up{which}", n_embd, inner)
        self.matrix(f"{block}.ffn_down{which}", inner, n_embd)

    def experts(self, block: str, *, bias: bool = False) -> None:
        s = self.sizes
        self.matrix(f"{block}.ffn_gate_inp", s.n_embd, s.experts)
        self.matrix(f"{block}.ffn_gate_exps", s.n_embd, s.n_ff_expert, s.experts)
        self.matrix(f"{block}.ffn_up_exps", s.n_embd, s.n_ff_expert, s.experts)
        self.matrix(f"{block}.ffn_down_exps", s.n_ff_expert, s.n_embd, s.experts)
        if bias:
            self.vector(f"{block}.ffn_gate_inp.bias", s.experts)
            self.vector(f"{block}.ffn_gate_exps.bias", s.n_ff_expert, s.experts)
            self.vector(f"{block}.ffn_up_exps.bias", s.n_ff_expert, s.experts)
            self.vector(f"{block}.ffn_down_exps.bias", s.n_embd, s.experts)

    def expert_keys(self) -> None:
        self.number("expert_count", self.sizes.experts)
        self.number("expert_used_count", self.sizes.used)
        self.number("expert_feed_forward_length", self.sizes.n_ff_expert)

    def blocks(self) -> list[str]:
        return [f"blk.{index}" for index in range(self.sizes.layers)]

    def close(self) -> Path:
        self.file.write_header_to_file()
        self.file.write_kv_data_to_file()
        self.file.write_tensors_to_file()
        self.file.close()
        return self.path

"""Small files that an engine loads beside a model: adapters (LoRA) and projectors (mmproj)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np

from ostler.library.gguf import read_gguf_header

__all__ = ["PROJECTOR_MAKERS", "VisionSizes", "write_adapter", "write_projector"]


def write_adapter(path: Path, model: Path, *, rank: int = 16) -> Path:
    """An adapter (LoRA) with two matrices for each matrix of the model's layers."""
    header = read_gguf_header(model)
    file = gguf.GGUFWriter(str(path), str(header.architecture))
    file.add_type("adapter")
    file.add_string("adapter.type", "lora")
    file.add_float32("adapter.lora.alpha", 16.0)
    for tensor in header.tensors:
        if tensor.name.startswith("blk.") and len(tensor.shape) > 1 and tensor.name.endswith(".weight"):
            columns, rows, *experts = tensor.shape
            file.add_tensor(f"{tensor.name}.lora_a", np.zeros((*experts, rank, columns), dtype=np.float16))
            file.add_tensor(f"{tensor.name}.lora_b", np.zeros((*experts, rows, rank), dtype=np.float16))
    return _close(file, path)


@dataclass(frozen=True, slots=True)
class VisionSizes:
    """How large a small projector is. `out` is the width of the model that it is for."""

    layers: int = 4
    n_embd: int = 128
    heads: int = 4
    n_ff: int = 512
    patch: int = 14
    image: int = 224
    out: int = 256
    merge: int = 2


class Vision:
    """A projector in the making."""

    def __init__(self, path: Path, kind: str, sizes: VisionSizes) -> None:
        self.path, self.kind, self.sizes = path, kind, sizes
        self.file = gguf.GGUFWriter(str(path), "clip")
        self.file.add_type("mmproj")
        self.file.add_bool("clip.has_vision_encoder", True)
        self.file.add_string("clip.projector_type", kind)
        self.file.add_bool("clip.use_silu" if kind == "qwen2.5vl_merger" else "clip.use_gelu", True)
        for key, value in (
            ("image_size", sizes.image),
            ("patch_size", sizes.patch),
            ("embedding_length", sizes.n_embd),
            ("feed_forward_length", sizes.n_ff),
            ("block_count", sizes.layers),
            ("projection_dim", sizes.out),
            ("attention.head_count", sizes.heads),
        ):
            self.number(key, value)
        self.file.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
        self.file.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
        self.file.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])

    def number(self, key: str, value: int) -> None:
        self.file.add_uint32(f"clip.vision.{key}", value)

    def matrix(self, name: str, columns: int, rows: int, *, bias: bool = True) -> None:
        self.file.add_tensor(f"{name}.weight", np.zeros((rows, columns), dtype=np.float16))
        if bias:
            self.vector(f"{name}.bias", rows)

    def vector(self, name: str, *shape: int) -> None:
        self.file.add_tensor(name, np.ones(tuple(reversed(shape)), dtype=np.float32))

    def norm(self, name: str, *, bias: bool = True) -> None:
        self.vector(f"{name}.weight", self.sizes.n_embd)
        if bias:
            self.vector(f"{name}.bias", self.sizes.n_embd)

    def pixels(self, *, bias: bool, pairs: bool = False) -> None:
        s = self.sizes
        kernel = np.zeros((s.n_embd, 3, s.patch, s.patch), dtype=np.float16)
        self.file.add_tensor("v.patch_embd.weight", kernel)
        if pairs:
            self.file.add_tensor("v.patch_embd.weight.1", kernel)
        if bias:
            self.vector("v.patch_embd.bias", s.n_embd)

    def positions(self, more: int = 0) -> None:
        s = self.sizes
        self.vector("v.position_embd.weight", s.n_embd, (s.image // s.patch) ** 2 + more)

    def layers(self, *, gate: bool = False, biases: bool = True, fused: bool = False) -> None:
        s = self.sizes
        for index in range(s.layers):
            block = f"v.blk.{index}"
            self.norm(f"{block}.ln1", bias=biases)
            self.norm(f"{block}.ln2", bias=biases)
            if fused:
                self.matrix(f"{block}.attn_qkv", s.n_embd, 3 * s.n_embd)
            for part in ("out",) if fused else ("q", "k", "v", "out"):
                self.matrix(f"{block}.attn_{part}", s.n_embd, s.n_embd, bias=biases or self.kind != "pixtral")
            if gate:
                self.matrix(f"{block}.ffn_gate", s.n_embd, s.n_ff)
            self.matrix(f"{block}.ffn_up", s.n_embd, s.n_ff)
            self.matrix(f"{block}.ffn_down", s.n_ff, s.n_embd)


def _llava(v: Vision) -> None:
    s = v.sizes
    v.file.add_bool("clip.has_llava_projector", True)
    v.pixels(bias=False)
    v.vector("v.class_embd", s.n_embd)
    v.positions(1)
    v.norm("v.pre_ln")
    v.layers()
    v.matrix("mm.0", s.n_embd, s.out)
    v.matrix("mm.2", s.out, s.out)


def _gemma3(v: Vision) -> None:
    s = v.sizes
    v.pixels(bias=True)
    v.positions()
    v.layers()
    v.norm("v.post_ln")
    v.number("projector.scale_factor", s.merge)
    v.file.add_tensor("mm.input_projection.weight", np.zeros((s.n_embd, s.out), dtype=np.float16))
    v.vector("mm.soft_emb_norm.weight", s.n_embd)


def _idefics3(v: Vision) -> None:
    s = v.sizes
    v.pixels(bias=True)
    v.positions()
    v.layers()
    v.norm("v.post_ln")
    v.number("projector.scale_factor", s.merge)
    v.matrix("mm.model.fc", s.n_embd * s.merge**2, s.out, bias=False)


def _internvl(v: Vision) -> None:
    s = v.sizes
    wide = s.n_embd * s.merge**2
    v.pixels(bias=True)
    v.vector("v.class_embd", s.n_embd)
    v.positions(1)
    v.layers()
    v.number("projector.scale_factor", s.merge)
    v.vector("mm.model.mlp.0.weight", wide)
    v.vector("mm.model.mlp.0.bias", wide)
    v.matrix("mm.model.mlp.1", wide, s.out)
    v.matrix("mm.model.mlp.3", s.out, s.out)


def _qwen(v: Vision) -> None:
    s = v.sizes
    newer, newest = v.kind == "qwen2.5vl_merger", v.kind == "qwen3vl_merger"
    if newer:
        v.number("n_wa_pattern", 2)
    v.pixels(bias=newest, pairs=True)
    if newest:
        v.positions()
    v.layers(gate=newer, biases=True, fused=newest)
    v.norm("v.post_ln", bias=not newer)
    v.matrix("mm.0", 4 * s.n_embd, 4 * s.n_embd)
    v.matrix("mm.2", 4 * s.n_embd, s.out)


def _pixtral(v: Vision) -> None:
    s = v.sizes
    v.number("spatial_merge_size", s.merge)
    v.pixels(bias=False)
    v.norm("v.pre_ln", bias=False)
    v.layers(gate=True, biases=False)
    v.vector("mm.input_norm.weight", s.n_embd)
    v.matrix("mm.patch_merger", s.n_embd * s.merge**2, s.n_embd, bias=False)
    v.matrix("mm.1", s.n_embd, s.out)
    v.matrix("mm.2", s.out, s.out)
    v.vector("v.token_embd.img_break", s.out)


PROJECTOR_MAKERS: dict[str, Callable[[Vision], None]] = {
    "mlp": _llava,
    "gemma3": _gemma3,
    "idefics3": _idefics3,
    "internvl": _internvl,
    "pixtral": _pixtral,
    "qwen2vl_merger": _qwen,
    "qwen2.5vl_merger": _qwen,
    "qwen3vl_merger": _qwen,
}
"""Who writes which kind."""


def write_projector(path: Path, kind: str, sizes: VisionSizes | None = None) -> Path:
    """A projector for images."""
    vision = Vision(path, kind, sizes or VisionSizes())
    PROJECTOR_MAKERS[kind](vision)
    return _close(vision.file, path)


def _close(file: gguf.GGUFWriter, path: Path) -> Path:
    file.write_header_to_file()
    file.write_kv_data_to_file()
    file.write_tensors_to_file()
    file.close()
    return path

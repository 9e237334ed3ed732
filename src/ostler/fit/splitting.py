"""How several GPUs share a model: the split modes of llama.cpp, as facts and fractions.

    layer    whole layers, one GPU after the other (the usual way)
    row      the rows of each matrix, by `tensor_split`; the rest lies with its layer. Only a backend with
             split buffers can do it: in build 11434 that is SYCL (`ggml_backend_split_buffer_type`),
             CUDA's are gone, so that `make_gpu_buft_list` in llama-model.cpp refuses
    tensor   heads and inner widths, equally or by `tensor_split`; norms and the like are on every GPU
             (`llama_meta_device_get_split_state` in llama-model.cpp)

Slices are rounded to whole heads and blocks by the engine, in turn for another GPU; here they are not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any, Literal

from ostler.fit.device import Device, Kind
from ostler.fit.errors import ImpossibleOption
from ostler.library.ggml_types import TensorInfo

Mode = Literal["layer", "row", "tensor"]
ROW_KINDS: tuple[Kind, ...] = ("xpu",)
"""Kinds of devices whose backend (SYCL) has split buffers."""
_SLICED = re.compile(
    r"blk\.\d+\.("
    r"attn_(q|k|v|qkv|output|gate)\.weight|attn_(q|k|v|qkv)\.bias|attn_sinks\.weight"
    r"|ffn_(up|gate|gate_up|down)(_exps)?\.weight|ffn_(up|gate)(_exps)?\.bias"
    r"|ssm_(alpha|beta|ba|conv1d|out)\.weight|ssm_dt\.bias|ssm_a)"
    r"|output\.(weight|bias)"
)
_WHOLE_STATES = ("lfm2", "lfm2moe")
"""Architectures whose recurrent states are on every GPU in the mode `tensor`."""


def mode_of(options: Mapping[str, Any], gpus: Sequence[Device]) -> Mode:
    """The mode that counts: with one GPU or none there is nothing to split."""
    stated = options.get("split_mode")
    if len(gpus) < 2 or stated not in ("row", "tensor"):
        return "layer"
    return "row" if stated == "row" else "tensor"


def shares_of(options: Mapping[str, Any], gpus: Sequence[Device], mode: Mode) -> tuple[float, ...]:
    """Each GPU's part of 1: as stated, else by free memory, or equally in the mode `tensor`.

    Raises ImpossibleOption.
    """
    stated = options.get("tensor_split") or []
    if isinstance(stated, str):
        stated = [float(part) for part in re.split(r"[,/]", stated) if part]
    if len(stated) > len(gpus) and gpus:
        raise ImpossibleOption("tensor_split", f"{len(stated)} shares for {len(gpus)} GPUs")
    shares = [float(share) for share in stated] + [0.0] * (len(gpus) - len(stated))
    if sum(shares) == 0:
        shares = [1.0 if mode == "tensor" else float(gpu.free_bytes) for gpu in gpus]
    whole = sum(shares) or 1.0
    return tuple(share / whole for share in shares)


def ends_of(shares: Sequence[float]) -> list[float]:
    """Where each GPU's share ends, between 0 and 1."""
    return list(accumulate(shares))


def fractions(mode: Mode, shares: Sequence[float], where: int, name: str, tensor: TensorInfo) -> list[float]:
    """How much of a tensor each GPU holds, if its layer is at `where`."""
    if mode == "row" and len(tensor.shape) > 1:
        return list(shares)
    if mode == "tensor":
        return list(shares) if _SLICED.fullmatch(name) else [1.0] * len(shares)
    return [float(index == where) for index in range(len(shares))]


def cache_is_whole(architecture: str, *, recurrent: bool) -> bool:
    """True where a layer's cache is on every GPU in the mode `tensor`."""
    return recurrent and architecture in _WHOLE_STATES

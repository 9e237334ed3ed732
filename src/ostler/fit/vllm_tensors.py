"""How vLLM deals a model's tensors out to GPUs, by their names in the files.

Under tensor parallelism `ColumnParallelLinear`, `RowParallelLinear` and the layers of experts are split
evenly, `QKVParallelLinear` repeats heads of keys and values where there are fewer of them than GPUs, and
`ReplicatedLinear`, norms and small vectors are whole on each (model_executor/layers/linear.py, vLLM 0.32.0).
Which class a tensor belongs to shows in its name: the rules are rows, the first that matches counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum

from ostler.fit.vllm_quantization import STORED_AS_THEY_ARE
from ostler.library.safetensors import SafetensorsTensor


class Split(Enum):
    """What one GPU of a tensor parallel group holds of a tensor."""

    EVEN = "even"
    KV = "kv"
    WHOLE = "whole"


class Stage(Enum):
    """Where tensors go that belong to no layer: in a pipeline, to the first stage or to the last."""

    FIRST = "first"
    EMBEDDING = "embedding"
    HEAD = "head"
    LAST = "last"


F32_BYTES = 4
"""Decay rates of Mamba-like layers are always float32 (model_executor/layers/mamba/mamba_mixer.py)."""
Place = int | Stage
"""A layer's number, or a stage."""

_LAYER = re.compile(r"(?:^|\.)(?:layers?|h|blocks)\.(\d+)\.(.+)$")
_VISION = re.compile(r"(?:^|\.)(?:vision\w*|visual|image\w*|audio\w*|multi_modal_projector|mm_projector)\.")
_UNLOADED = re.compile(r"(?:^|\.)mtp\.|rotary_emb\.(?:inv_freq|cos_cached|sin_cached)$|\.masked_bias$")
_EMBEDDING = re.compile(
    r"(?:^|\.)(?:embed_tokens|embed_in|wte|word_embeddings|tok_embeddings|embeddings?)\.weight$"
)
_HEAD = re.compile(r"(?:^|\.)(?:lm_head|output|embed_out)\.weight$")
_END = re.compile(r"(?:^|\.)(?:lm_head|norm|norm_f|ln_f|final_layer\w*norm|score)\b")
_SPLITS = (
    (re.compile(r"norm|\bln_\d|inv_freq|patch_embed|position|conv_in|\bsinks?$"), Split.WHOLE),
    (re.compile(r"\.(?:gate|router|shared_expert_gate|e_score\w*)(?:\.\w+)?$"), Split.WHOLE),
    (re.compile(r"q_a_proj|kv_a_proj_with_mqa|fused_qkv_a_proj"), Split.WHOLE),
    (re.compile(r"(?:o_proj|down_proj|out_proj|dense|dense_4h_to_h|c_proj|fc2|w2)\.bias$"), Split.WHOLE),
    (re.compile(r"\.(?:k|v)_proj\."), Split.KV),
)
_LINEAR = re.compile(r"proj|\.(?:fc|w)\d|qkv|\.dense|query_key_value|c_attn|c_fc|experts")


@dataclass(slots=True)
class Sum:
    """Tensors of one place and split, together: bytes that stay as they are, and numbers that are cast.

    `linear_elements` of the numbers may be quantized while they are loaded.
    """

    fixed_bytes: int = 0
    elements: int = 0
    linear_elements: int = 0

    def bytes_at(self, dtype_bytes: int, linear_bytes: float | None) -> float:
        """Bytes where a number takes `dtype_bytes`, and one of a quantized linear layer `linear_bytes`."""
        if linear_bytes is None:
            return self.fixed_bytes + self.elements * dtype_bytes
        plain = self.elements - self.linear_elements
        return self.fixed_bytes + plain * dtype_bytes + self.linear_elements * linear_bytes


@dataclass(frozen=True, slots=True)
class Weights:
    """A model's tensors in sums. `vision_bytes` are those of encoders of images and sound, as in the files.

    `head` says that there is an output matrix of its own, `vocab_rows` how many rows the embedding has.
    """

    sums: Mapping[tuple[Place, Split], Sum] = field(repr=False)
    head: bool
    vocab_rows: int
    vision_bytes: int


def sum_up(tensors: Iterable[SafetensorsTensor], n_layers: int, *, tied: bool) -> Weights:
    """Sort the tensors of all files into sums.

    `n_layers` of the language part are loaded: layers behind those are for speculation. With `tied`, an
    output matrix in the file is left out.
    """
    sums: dict[tuple[Place, Split], Sum] = {}
    head, vocab_rows, vision_bytes = False, 0, 0
    for tensor in _loaded(tensors):
        is_vision = _VISION.search(tensor.name) is not None
        place = Stage.FIRST if is_vision else _place(tensor.name, n_layers)
        if place is None or (tied and place is Stage.HEAD):
            continue
        vision_bytes += tensor.n_bytes if is_vision else 0
        head = head or place is Stage.HEAD
        if place is Stage.EMBEDDING:
            vocab_rows = tensor.shape[0] if tensor.shape else 0
        into = sums.setdefault((place, _split(tensor)), Sum())
        if tensor.dtype in STORED_AS_THEY_ARE or _is_scale(tensor.name):
            into.fixed_bytes += tensor.n_bytes
            continue
        if tensor.name.endswith(".A_log"):
            into.fixed_bytes += tensor.elements * F32_BYTES
            continue
        into.elements += tensor.elements
        if len(tensor.shape) > 1 and isinstance(place, int) and _LINEAR.search(tensor.name):
            into.linear_elements += tensor.elements
    return Weights(sums, head, vocab_rows, vision_bytes)


def _loaded(tensors: Iterable[SafetensorsTensor]) -> Iterator[SafetensorsTensor]:
    return (tensor for tensor in tensors if not _UNLOADED.search(tensor.name))


def _place(name: str, n_layers: int) -> Place | None:
    match = _LAYER.search(name)
    if match:
        index = int(match[1])
        return index if index < n_layers else None
    if _EMBEDDING.search(name):
        return Stage.EMBEDDING
    if _HEAD.search(name):
        return Stage.HEAD
    return Stage.LAST if _END.search(name) else Stage.FIRST


def _split(tensor: SafetensorsTensor) -> Split:
    for pattern, split in _SPLITS:
        if pattern.search(tensor.name):
            return split
    is_vector = len(tensor.shape) < 2 and not tensor.name.endswith((".bias", "A_log", ".D", "dt_bias"))
    return Split.WHOLE if is_vector and not _is_scale(tensor.name) else Split.EVEN


def _is_scale(name: str) -> bool:
    """Scales and zero points of quantized weights stay in their own format, split like the weights."""
    return re.search(r"scale|absmax|zero_point|qzeros", name) is not None

"""Naming a quantization: from the tensors, and the tag in a file's name.

llama.cpp's recipes mix types: `Q4_K_M` is mostly Q4_K with Q6_K for some `attn_v` and `ffn_down`
(`llama_tensor_get_type_impl` in llama-quant.cpp). So the type that holds most weights decides, the
header's `general.file_type` chooses among recipes with that main type, and without it the mix does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from ostler.library.ggml_types import FILE_TYPES, TensorInfo

_EMBEDDINGS = ("token_embd.", "output.weight", "per_layer_token_embd.", "position_embd.", "token_types.")
_ROLES = ("attn_v.", "attn_qkv.", "attn_output.", "ffn_down")
_SHARD = re.compile(r"-\d{5}-of-\d{5}$")
_TAG = re.compile(
    r"(?:^|[-._ ])(?P<tag>(?:UD-)?(?:"
    r"(?:I?Q|TQ)\d(?:_(?:K|\d|XXS|XS|S|M|L|XL|NL))*(?:_[48]){0,2}|BF16|F16|F32|FP16|FP8|MXFP4(?:_MOE)?|NVFP4"
    r"))$",
    re.IGNORECASE,
)


@dataclass(slots=True)
class TypeCounts:
    """Elements by the tensor's part ("attn_v.", "ffn_down", "embedding", "") and its type.

    Counts of several shards add up with `add`.
    """

    counts: dict[tuple[str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, tensors: Iterable[TensorInfo]) -> TypeCounts:
        """Count the weight matrices; norms and biases (one dimension) say nothing."""
        counts: dict[tuple[str, str], int] = {}
        for tensor in tensors:
            if len(tensor.shape) > 1:
                key = (_role(tensor.name), tensor.ggml_type)
                counts[key] = counts.get(key, 0) + tensor.elements
        return cls(counts)

    def add(self, other: TypeCounts) -> None:
        """Take in the counts of another shard."""
        for key, elements in other.counts.items():
            self.counts[key] = self.counts.get(key, 0) + elements

    def label(self, file_type: int | None) -> str | None:
        """The quantization's usual name; None if there are no matrices."""
        main = self._main_type()
        if main is None:
            return None
        hint = FILE_TYPES.get(file_type) if file_type is not None else None
        if hint is not None and main in hint.main_types:
            return hint.label
        return self._recipe(main)

    def to_json(self) -> dict[str, int]:
        """A JSON-ready form: "part:type" to elements."""
        return {f"{role}:{name}": elements for (role, name), elements in self.counts.items()}

    @classmethod
    def from_json(cls, data: Mapping[str, int]) -> TypeCounts:
        """Read what `to_json` wrote."""
        found = cls()
        for key, elements in data.items():
            role, _, name = key.partition(":")
            found.counts[role, name] = elements
        return found

    def _main_type(self) -> str | None:
        for with_embeddings in (False, True):
            totals: dict[str, int] = {}
            for (role, name), elements in self.counts.items():
                if with_embeddings or role != "embedding":
                    totals[name] = totals.get(name, 0) + elements
            if totals:
                return max(totals, key=lambda name: (totals[name], name))
        return None

    def _recipe(self, main: str) -> str:
        """Tell S, M and L of the K-quants apart by what the sensitive parts got."""
        in_values = self._types("attn_v.", "attn_qkv.", "ffn_down")
        if main in ("Q4_K", "Q5_K"):
            return f"{main}_M" if "Q6_K" in in_values else f"{main}_S"
        if main == "Q3_K":
            if "Q5_K" in self._types("attn_output."):
                return "Q3_K_L"
            return "Q3_K_M" if in_values & {"Q4_K", "Q5_K"} else "Q3_K_S"
        return main

    def _types(self, *roles: str) -> set[str]:
        return {name for role, name in self.counts if role in roles}


def _role(name: str) -> str:
    if name.startswith(_EMBEDDINGS):
        return "embedding"
    for role in _ROLES:
        if role in name:
            return role
    return ""


def tag_from_name(path: str) -> str | None:
    """The quantization's tag in a GGUF's name or folder, in upper case: `Q4_K_M`, `UD-Q4_K_XL`, `BF16`.

    `x-Q4_K_M.gguf`, `x.Q4_K_M-00001-of-00002.gguf` and `Q4_K_M/x-00001-of-00002.gguf` all give `Q4_K_M`.
    """
    place = PurePosixPath(path)
    stem = re.sub(r"\.gguf$", "", place.name, flags=re.IGNORECASE)
    for text in (_SHARD.sub("", stem), place.parent.name):
        if found := _TAG.search(text):
            return found["tag"].upper()
    return None


def stem_without_tag(path: str) -> str:
    """The file's name without ending, shard number and tag: what several quantizations have in common."""
    stem = _SHARD.sub("", re.sub(r"\.gguf$", "", PurePosixPath(path).name, flags=re.IGNORECASE))
    return _TAG.sub("", stem).strip("-._ ")

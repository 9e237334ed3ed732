"""What a model is, as its files say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Facts about one file set, read from headers and never from file names.

    `parameters` counts elements over all tensors; `size_bytes` is all files together,
    `weights_bytes` the tensor data. `quantization` is `Q4_K_M`, `F16`, `awq`, ... `kind` is "model",
    "mmproj", "lora", "vocab" or "other" (an importance matrix, for example). `capabilities` are
    words out of "chat", "tools", "embeddings", "rerank", "vision", "audio". `head_dim_k` and
    `head_dim_v` are elements per head; per-layer head counts are given by their largest.
    None means that the files do not say.
    """

    format: str
    kind: str = "model"
    architecture: str | None = None
    name: str | None = None
    license: str | None = None
    parameters: int | None = None
    quantization: str | None = None
    context_length: int | None = None
    size_bytes: int = 0
    weights_bytes: int = 0
    block_count: int | None = None
    embedding_length: int | None = None
    n_heads: int | None = None
    n_kv_heads: int | None = None
    head_dim_k: int | None = None
    head_dim_v: int | None = None
    vocab_size: int | None = None
    expert_count: int | None = None
    experts_used: int | None = None
    chat_template: bool = False
    capabilities: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form."""
        return {**asdict(self), "capabilities": list(self.capabilities)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> ModelFacts:
        """Read what `to_json` wrote; unknown names are ignored."""
        known = {f.name for f in fields(cls)}
        values = {key: value for key, value in data.items() if key in known}
        values["capabilities"] = tuple(values.get("capabilities") or ())
        return cls(**values)

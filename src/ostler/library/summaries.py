"""What one file's header says, in the short form that is cached; and how shards add up."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ostler.library.errors import BrokenFile
from ostler.library.facts import ModelFacts
from ostler.library.gguf import read_gguf_header
from ostler.library.gguf_header import GgufHeader
from ostler.library.quantization import TypeCounts

MAX_TEXT = 200
_PLAIN = (
    "n_tensors",
    "split_no",
    "split_count",
    "split_tensors",
    "file_type",
    "quantization_version",
    "error",
)
EMBEDDING_ARCHITECTURES = ("bert", "t5encoder", "gemma-embedding", "pangu-embedded", "llama-embed")
_POOLING_RANK = 4
"""`LLAMA_POOLING_TYPE_RANK` in llama.h: the model scores pairs."""


@dataclass(frozen=True, slots=True)
class Summary:
    """One inspected file.

    `facts` are this file's own. `counts` are elements by part and type (`TypeCounts`, or by
    "role:dtype" for safetensors). `files` are the names that an index mentions. `error` is set,
    and nothing else, where the header is broken.
    """

    facts: ModelFacts | None = None
    counts: Mapping[str, int] = field(default_factory=dict)
    n_tensors: int = 0
    split_no: int | None = None
    split_count: int | None = None
    split_tensors: int | None = None
    file_type: int | None = None
    quantization_version: int | None = None
    files: tuple[str, ...] = ()
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready form, without what is empty."""
        data = {
            **{name: getattr(self, name) for name in _PLAIN},
            "facts": self.facts.to_json() if self.facts else None,
            "counts": dict(self.counts),
            "files": list(self.files),
        }
        return {key: value for key, value in data.items() if value not in (None, [], {})}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Summary:
        """Read what `to_json` wrote."""
        values = dict(data)
        values["facts"] = ModelFacts.from_json(data["facts"]) if data.get("facts") else None
        values["files"] = tuple(data.get("files", ()))
        return cls(**values)


def summarize_gguf(path: Path) -> Summary:
    """Read a GGUF's header. Raises as `read_gguf_header` does."""
    return summary_of_gguf(read_gguf_header(path))


def summary_of_gguf(header: GgufHeader) -> Summary:
    """The short form of a header that has been read, from wherever."""
    counts = TypeCounts.of(header.tensors)
    return Summary(
        facts=gguf_facts(header, counts),
        counts=counts.to_json(),
        n_tensors=len(header.tensors),
        split_no=header.split_no,
        split_count=header.split_count,
        split_tensors=header.split_tensors,
        file_type=header.count("general.file_type", zero=True),
        quantization_version=header.count("general.quantization_version"),
    )


def gguf_facts(header: GgufHeader, counts: TypeCounts | None = None) -> ModelFacts:
    """The facts of one GGUF file; `counts` are those of its tensors, where they are made already."""
    if counts is None:
        counts = TypeCounts.of(header.tensors)
    return ModelFacts(
        format="gguf",
        kind=header.kind,
        architecture=clean(header.architecture),
        name=clean(header.name),
        license=clean(header.text("general.license")),
        parameters=header.parameters,
        quantization=counts.label(header.count("general.file_type", zero=True)),
        context_length=header.context_length,
        size_bytes=header.size_bytes,
        weights_bytes=header.weights_bytes,
        block_count=header.block_count,
        embedding_length=header.embedding_length,
        n_heads=header.n_heads,
        n_kv_heads=header.n_kv_heads,
        head_dim_k=header.head_dim_k,
        head_dim_v=header.head_dim_v,
        vocab_size=header.vocab_size,
        expert_count=header.model_count("expert_count"),
        experts_used=header.model_count("expert_used_count"),
        chat_template=header.chat_template is not None,
        capabilities=_capabilities(header),
    )


def combine_shards(shards: Sequence[Summary]) -> ModelFacts:
    """The facts of a whole GGUF model: what the first part says, with counts over all that are here.

    Raises BrokenFile if parts contradict each other.
    """
    first = next((shard for shard in shards if shard.split_no == 0), shards[0])
    if first.facts is None:
        raise BrokenFile(first.error or "the first part has no facts")
    if len(shards) == 1:
        return first.facts
    counts, parameters, weights_bytes, size_bytes = TypeCounts(), 0, 0, 0
    for shard in shards:
        if shard.facts is None:
            raise BrokenFile(shard.error or "a part has no facts")
        if shard.split_count != first.split_count or shard.split_tensors != first.split_tensors:
            raise BrokenFile("the parts of this model are not of one and the same model")
        counts.add(TypeCounts.from_json(shard.counts))
        parameters += shard.facts.parameters or 0
        weights_bytes += shard.facts.weights_bytes
        size_bytes += shard.facts.size_bytes
    return replace(
        first.facts,
        parameters=parameters,
        weights_bytes=weights_bytes,
        size_bytes=size_bytes,
        quantization=counts.label(first.file_type),
    )


def clean(text: object, limit: int = MAX_TEXT) -> str | None:
    """A text from a file, safe to store and print: no control characters, at most `limit` long."""
    if not isinstance(text, str):
        return None
    if text.isascii() and text.isprintable():
        return text.strip()[:limit] or None
    shown = "".join(" " if unicodedata.category(char)[0] == "C" else char for char in text[: 4 * limit])
    return " ".join(shown.split())[:limit] or None


def _capabilities(header: GgufHeader) -> tuple[str, ...]:
    if header.is_mmproj:
        named = {"clip.has_vision_encoder": "vision", "clip.has_audio_encoder": "audio"}
        return tuple(word for key, word in named.items() if header.metadata.get(key) is True)
    found = []
    template = header.chat_template
    pooling = header.count(f"{header.architecture}.pooling_type", zero=True)
    if template:
        found.append("chat")
        if "tools" in template:
            found.append("tools")
    if pooling == _POOLING_RANK:
        found.append("rerank")
    elif pooling or (header.architecture or "").endswith(EMBEDDING_ARCHITECTURES):
        found.append("embeddings")
    return tuple(found)

"""What Ollama says of a model: details, digest, capabilities, parameters."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from ostler.api.dialects.ollama.options import OPTIONS
from ostler.library.filesets import FileSet
from ostler.library.gguf_header import GgufHeader
from ostler.models.records import Model

_CAPABILITIES = {"chat": "completion", "tools": "tools", "vision": "vision", "embeddings": "embedding"}
_THINKS = ("enable_thinking", "<think>", "reasoning_content", "reasoning_effort")
_FILLS_IN = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")
_SHORT = {row.llamacpp: name for name, row in OPTIONS.items() if row.llamacpp} | {
    "repetition_penalty": "repeat_penalty",
    "max_completion_tokens": "num_predict",
}


def details(files: FileSet | None) -> dict[str, Any]:
    """The object `details`; what is not known is empty."""
    facts = files.facts if files else None
    family = (facts.architecture if facts else None) or ""
    return {
        "parent_model": "",
        "format": files.format if files else "",
        "family": family,
        "families": [family] if family else None,
        "parameter_size": _short_count(facts.parameters if facts else None),
        "quantization_level": (facts.quantization if facts else None) or (files.tag if files else None) or "",
    }


def digest(name: str, files: FileSet | None) -> str:
    """What changes when the files do: the commit on the hub, else a hash of path, size and time.

    Models of the same files have the same. It is no hash of the contents: nobody read gigabytes for it.
    """
    if files is None:
        return hashlib.sha256(name.encode()).hexdigest()
    if files.revision is not None:
        return files.revision
    seen = f"{files.path}\0{files.size_bytes}\0{files.modified_at.isoformat()}"
    return hashlib.sha256(seen.encode()).hexdigest()


def capabilities(files: FileSet | None, header: GgufHeader | None) -> list[str]:
    """What it can, in Ollama's words."""
    facts = files.facts if files else None
    found = {_CAPABILITIES[word] for word in (facts.capabilities if facts else ()) if word in _CAPABILITIES}
    if files is not None and files.mmproj is not None:
        found.add("vision")
    if "embedding" not in found:
        found.add("completion")
    template = (header.chat_template if header else None) or ""
    if any(word in template for word in _THINKS):
        found.add("thinking")
    if header is not None and any(key in header.metadata for key in _FILLS_IN):
        found.add("insert")
    return sorted(found)


def model_info(files: FileSet | None, header: GgufHeader | None) -> dict[str, Any]:
    """The keys of GGUF with their values; arrays that were stepped over are null, as with Ollama."""
    facts = files.facts if files else None
    if facts is None:
        return {}
    architecture = facts.architecture or "unknown"
    told: dict[str, Any] = {
        "general.architecture": architecture,
        "general.parameter_count": facts.parameters,
        f"{architecture}.context_length": facts.context_length,
        f"{architecture}.embedding_length": facts.embedding_length,
        f"{architecture}.block_count": facts.block_count,
        f"{architecture}.attention.head_count": facts.n_heads,
        f"{architecture}.attention.head_count_kv": facts.n_kv_heads,
    }
    told = {name: value for name, value in told.items() if value is not None}
    for key, value in (header.metadata if header else {}).items():
        if key != "tokenizer.chat_template":
            told[key] = value if isinstance(value, str | int | float | bool) else None
    return told


def parameters(model: Model) -> list[tuple[str, Any]]:
    """The parameters that requests need not say, by Ollama's names; a list gives one line each."""
    found: list[tuple[str, Any]] = []
    for name, row in OPTIONS.items():
        if row.at_start and row.at_start in model.options:
            found.append((name, model.options[row.at_start]))
    for name, value in model.request_defaults.items():
        if (theirs := _SHORT.get(name)) is not None:
            found += [(theirs, one) for one in (value if isinstance(value, list) else [value])]
    return sorted(found, key=lambda pair: pair[0])


def parameter_text(model: Model) -> str:
    """The parameters as Ollama shows them, one a line."""
    return "\n".join(f"{name:<30} {_shown(value)}" for name, value in parameters(model))


def modelfile(model: Model, system: str | None) -> str:
    """The model as a Modelfile that says the same (https://docs.ollama.com/modelfile)."""
    lines = ["# Written by Ostler: what `ollama create` would be told.", f"FROM {model.source.label}"]
    lines += [f"PARAMETER {name} {_shown(value)}" for name, value in parameters(model)]
    if system:
        lines.append(f'SYSTEM """{system}"""')
    return "\n".join(lines) + "\n"


def kept(model: Model) -> Mapping[str, Any]:
    """What only this dialect keeps of a model."""
    found: Mapping[str, Any] = model.dialect_data.get("ollama") or {}
    return found


def newest_first(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """As Ollama sorts: what changed last comes first; by name where that is the same."""
    by_name = sorted(rows, key=lambda row: str(row["name"]))
    return sorted(by_name, key=lambda row: str(row["modified_at"]), reverse=True)


def _shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _short_count(count: int | None) -> str:
    """`8.0B`, `494.03M`, `27K`; empty where nobody knows."""
    if count is None:
        return ""
    for size, letter, form in ((10**9, "B", ".1f"), (10**6, "M", ".2f"), (10**3, "K", ".0f")):
        if count >= size:
            return f"{count / size:{form}}{letter}"
    return str(count)

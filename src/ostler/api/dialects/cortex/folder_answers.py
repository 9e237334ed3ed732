"""What is in a folder, in Cortex's words: groups of GGUF files, safetensors, and the engine for them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ostler.api.dialects.cortex.words import gb, mb
from ostler.engines.recommending import Recommendation, recommend
from ostler.engines.registry import Engines
from ostler.library.filesets import FileSet
from ostler.library.finding import is_model
from ostler.library.folders import FolderView
from ostler.library.grouping import shard_number
from ostler.library.tokenizer_hints import tokenizer_hint

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
_CONFIGS = ("config.json", "generation_config.json", "special_tokens_map.json")
_FULL_PRECISION_BITS = 9.0
"""From here on a weight is not quantized: such a file is the last that is recommended."""
_CORTEX_LABEL = {"llamacpp": "Use llama.cpp", "vllm": "Use vLLM"}


def folder_out(view: FolderView, base: Path, engines: Engines) -> dict[str, Any]:
    """The answer of `inspect-folder`; `base` is where `local_path` of a new model starts."""
    models = [item for item in view.file_sets if is_model(item)]
    gguf = [item for item in models if item.format == "gguf"]
    safetensors = _main_safetensors(view, [item for item in models if item.format == "safetensors"])
    groups = _groups(view, base, gguf)
    shown = safetensors or next((item for item in gguf if item.facts), None)
    facts = shown.facts if shown else None
    return {
        "has_safetensors": safetensors is not None,
        "safetensor_info": _safetensors(view, safetensors) if safetensors else None,
        "gguf_files": list(view.gguf_files),
        "gguf_groups": groups,
        "tokenizer_files": [name for name in view.names if name.lower() in _TOKENIZERS],
        "config_files": [name for name in view.names if name.lower() in _CONFIGS],
        "warnings": _warnings(view, gguf, safetensors),
        "params_b": round(facts.parameters / 1e9, 3) if facts and facts.parameters else None,
        "hidden_size": facts.embedding_length if facts else None,
        "num_hidden_layers": facts.block_count if facts else None,
        "num_attention_heads": facts.n_heads if facts else None,
        "engine_recommendation": _recommendation(engines, gguf, safetensors, groups),
        "gguf_validation": _validation(view) if view.gguf_files else None,
        "tokenizer_suggestions": _tokenizers(view, gguf),
    }


def _main_safetensors(view: FolderView, found: Sequence[FileSet]) -> FileSet | None:
    """The folder's own safetensors model, else the first below it."""
    return min(found, key=lambda item: (item.path != view.path, str(item.path)), default=None)


def _groups(view: FolderView, base: Path, models: Sequence[FileSet]) -> list[dict[str, Any]]:
    """One group for each model: the usable first, then the finer quantization; full precision last."""
    ordered = sorted(models, key=lambda item: (not item.complete, *_rank(item), str(item.path)))
    names = Counter(_quantization(item) for item in ordered)
    best = next((item.id for item in ordered if item.complete), None)
    return [_group(view, base, item, names, item.id == best) for item in ordered]


def _rank(item: FileSet) -> tuple[bool, float]:
    facts = item.facts
    bits = 8 * facts.weights_bytes / facts.parameters if facts and facts.parameters else 0.0
    return bits > _FULL_PRECISION_BITS, -bits


def _quantization(item: FileSet) -> str:
    return item.tag or "Unknown"


def _group(
    view: FolderView, base: Path, item: FileSet, names: Counter[str], is_recommended: bool
) -> dict[str, Any]:
    weights = [file for file in item.files if file.path != item.mmproj]
    parts = len(weights) + len(item.missing)
    quantization = _quantization(item)
    shown = quantization if names[quantization] == 1 else f"{quantization} ({view.relative(item.path)})"
    return {
        "quant_type": quantization,
        "display_name": f"{shown}, {parts} parts" if parts > 1 else shown,
        "files": [view.relative(file.path) for file in weights],
        "full_paths": [str(file.path) for file in weights],
        "is_multipart": shard_number(item.path.name) is not None,
        "expected_parts": parts,
        "actual_parts": len(weights),
        "total_size_mb": mb(sum(file.size_bytes for file in weights)),
        "status": "ready" if item.complete else "incomplete",
        "can_use": item.complete,
        "warning": _warning(item),
        "is_recommended": is_recommended,
        "metadata": _metadata(view, item),
        "local_path": _from_base(item.path, base),
        "mmproj": view.relative(item.mmproj) if item.mmproj else None,
        "file_set_id": item.id,
    }


def _warning(item: FileSet) -> str | None:
    if item.error is not None:
        return item.error
    return f"missing: {', '.join(item.missing)}" if item.missing else None


def _metadata(view: FolderView, item: FileSet) -> dict[str, Any] | None:
    facts, details = item.facts, view.gguf.get(item.id)
    if facts is None:
        return None
    return {
        "architecture": facts.architecture,
        "model_name": facts.name,
        "context_length": facts.context_length,
        "embedding_length": facts.embedding_length,
        "block_count": facts.block_count,
        "attention_head_count": facts.n_heads,
        "attention_head_count_kv": facts.n_kv_heads,
        "vocab_size": facts.vocab_size,
        "file_type": details.file_type if details else None,
        "quantization_version": details.quantization_version if details else None,
        "file_type_name": details.file_type_name if details else None,
    }


def _from_base(path: Path, base: Path) -> str:
    return str(path.relative_to(base) if path.is_relative_to(base) else path)


def _safetensors(view: FolderView, item: FileSet) -> dict[str, Any]:
    weights = [file for file in item.files if file.path.suffix == ".safetensors"]
    facts, config = item.facts, view.config.get(item.path)
    return {
        "files": [view.relative(file.path) for file in weights],
        "total_size_gb": gb(sum(file.size_bytes for file in weights)),
        "file_count": len(weights),
        "architecture": facts.architecture if facts else None,
        "model_type": config.model_type if config else None,
        "vocab_size": facts.vocab_size if facts else None,
        "max_position_embeddings": facts.context_length if facts else None,
        "torch_dtype": config.torch_dtype if config else None,
        "tie_word_embeddings": config.tie_word_embeddings if config else None,
        "is_complete": item.complete,
        "missing": list(item.missing),
    }


def _warnings(view: FolderView, gguf: Sequence[FileSet], safetensors: FileSet | None) -> list[str]:
    """Words of Cortex before the colon, then what exactly."""
    found = []
    broken = sum(1 for item in view.file_sets if item.format == "gguf" and item.error)
    if broken:
        found.append(f"gguf_validation_errors: {broken} file(s) failed validation")
    for item in gguf:
        if item.missing:
            name = view.relative(item.path)
            found.append(f"gguf_parts_missing: {name} needs {', '.join(item.missing)}")
    if safetensors and safetensors.missing:
        found.append(f"safetensors_incomplete: {', '.join(safetensors.missing)}")
    if safetensors and safetensors.error:
        found.append(f"safetensors_error: {safetensors.error}")
    config = view.config.get(view.path)
    if config and config.error:
        found.append(f"config_error: {config.error}")
    return found


def _validation(view: FolderView) -> dict[str, Any]:
    """Every GGUF file here is counted, projectors and adapters too; a broken model is one error."""
    sets = [item for item in view.file_sets if item.format == "gguf"]
    broken = [item for item in sets if item.error]
    in_broken = {file.path for item in broken for file in item.files}
    return {
        "total_files": len(view.gguf_files),
        "valid_files": len(view.gguf_files) - len(in_broken),
        "invalid_files": len(in_broken),
        "warnings": [
            f"{view.relative(item.path)}: {_warning(item)}"
            for item in sets
            if item.missing and not item.error
        ],
        "errors": [f"{view.relative(item.path)}: {item.error}" for item in broken],
    }


def _recommendation(
    engines: Engines, gguf: Sequence[FileSet], safetensors: FileSet | None, groups: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Safetensors where they can be served, else GGUF; each format has one engine."""
    usable = next((item for item in gguf if item.complete), gguf[0] if gguf else None)
    answers = [(item.format, recommend(engines, item)) for item in (safetensors, usable) if item is not None]
    options = [_option(form, found) for form, found in answers if found.engine is not None]
    if options:
        options[0]["is_recommended"] = True
    reasons = [found.reason for _, found in answers if found.engine is not None] or [
        found.reason for _, found in answers
    ]
    return {
        "recommended": options[0]["engine"] if options else "either",
        "reason": reasons[0] if reasons else "There is no model in this folder that an engine could serve.",
        "has_multipart_gguf": any(group["is_multipart"] for group in groups),
        "has_safetensors": safetensors is not None,
        "has_gguf": bool(gguf),
        "vllm_gguf_compatible": False,
        "options": options,
    }


def _option(form: str, found: Recommendation) -> dict[str, Any]:
    engine = str(found.engine)
    return {
        "engine": engine,
        "format": form,
        "label": _CORTEX_LABEL.get(engine, f"Use {engine}"),
        "description": found.reason,
        "is_recommended": False,
        "requires_merge": False,
    }


def _tokenizers(view: FolderView, gguf: Sequence[FileSet]) -> list[dict[str, Any]]:
    """Repos that hold the original tokenizers of the GGUF models here, each family once."""
    found: dict[str, dict[str, Any]] = {}
    for item in gguf:
        names = [name for name in (item.facts.name if item.facts else None, item.name) if name]
        hint = tokenizer_hint([*names, view.path.name], item.facts.architecture if item.facts else None)
        if hint is not None:
            found.setdefault(hint.family, {"label": hint.family, "repos": list(hint.repos)})
    return list(found.values())

"""A folder with safetensors files: which of them form the model, whether all are there, and what it is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ostler.library.bounded_json import read_json_object
from ostler.library.byte_windows import open_regular, reader_of
from ostler.library.errors import BrokenFile, NotAModelFile, PathNotFound, UnsafePath
from ostler.library.facts import ModelFacts
from ostler.library.hf_config import summarize_adapter_config, summarize_config, with_template
from ostler.library.paths import safe_join
from ostler.library.safetensors import SafetensorsHeader, SafetensorsTensor, read_safetensors_header
from ostler.library.summaries import Summary

MAX_INDEX_BYTES = 32 * 1024 * 1024
MAX_TEMPLATE_BYTES = 8 * 1024 * 1024
INDEX_ENDING = ".safetensors.index.json"
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "tekken.json", "vocab.txt", "vocab.json", "spiece.model")
TEMPLATES = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
"""Where a chat template stands, the first one counts."""
COMPANION_ENDINGS = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".py")
"""Small files that a safetensors model needs beside its weights."""

_SHARD = re.compile(r"(?P<stem>.+)-(?P<no>\d{5})-of-(?P<count>\d{5})\.safetensors")
_PACKED = (".qweight", ".weight_packed", "_blocks")
_SIDE = re.compile(
    r"(\.|_)(qzeros|g_idx|scales?|scale_inv|zero_point|weight_shape|absmax|quant_map|nested_\w+|zeros"
    r"|global_scale|quant_state\..+)$"
)
_MAX_SHARDS = 2_000

Read = Callable[[Path, Callable[[Path], Summary]], Summary]
"""Gives a file's summary, from a cache where there is one."""


@dataclass(frozen=True, slots=True)
class FolderInspection:
    """What a safetensors folder holds. `weights` are names of the weight files that are here."""

    facts: ModelFacts
    weights: tuple[str, ...]
    missing: tuple[str, ...]
    has_tokenizer: bool
    has_generation_config: bool


def inspect_folder(
    folder: Path,
    names: Sequence[str] | None = None,
    read: Read | None = None,
    read_text: Callable[[Path], bytes] | None = None,
) -> FolderInspection:
    """Inspect a safetensors folder; `names` are its files where they are known already.

    `read` and `read_text` (up to MAX_TEMPLATE_BYTES of a file) may get contents from elsewhere: with both
    and `names` the folder need not be on this disk.

    Raises PathNotFound, NotAModelFile (no safetensors in it), BrokenFile, UnsupportedFile.
    """
    read = read or (lambda path, reader: reader(path))
    if names is None:
        if not folder.is_dir():
            raise PathNotFound(f"there is no folder {folder}", path=str(folder))
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    present = set(names)
    weights, missing = _weight_files(folder, present, read)
    if not weights and not missing:
        raise NotAModelFile(f"{folder} holds no safetensors files", path=str(folder))
    facts, missing_config = _config_facts(folder, present, read, read_text or _read_text)
    shards = [_checked(read(folder / name, summarize_safetensors)) for name in weights]
    return FolderInspection(
        facts=_add_weights(facts, shards),
        weights=tuple(weights),
        missing=(*missing_config, *missing),
        has_tokenizer=not present.isdisjoint(TOKENIZERS),
        has_generation_config="generation_config.json" in present,
    )


def summarize_safetensors(path: Path) -> Summary:
    """Read one file's header. Raises as `read_safetensors_header` does."""
    return summary_of_safetensors(read_safetensors_header(path))


def summary_of_safetensors(header: SafetensorsHeader) -> Summary:
    """The short form of a header that has been read, from wherever."""
    counts: dict[str, int] = {}
    for tensor in header.tensors:
        key = f"{_role(tensor)}:{tensor.dtype}"
        counts[key] = counts.get(key, 0) + tensor.elements
    facts = ModelFacts(
        format="safetensors",
        parameters=header.parameters,
        size_bytes=header.size_bytes,
        weights_bytes=header.weights_bytes,
    )
    return Summary(facts=facts, counts=counts, n_tensors=len(header.tensors))


def summarize_index(path: Path) -> Summary:
    """Read the names of files in a `*.safetensors.index.json`. Raises PathNotFound, BrokenFile."""
    return summary_of_index(read_json_object(path, MAX_INDEX_BYTES), path)


def summary_of_index(index: Mapping[str, Any], path: Path) -> Summary:
    """The names of files in a parsed index that lies at `path`. Raises BrokenFile."""
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BrokenFile(f"{path} has no weight_map", path=str(path))
    files = set(weight_map.values()) if all(isinstance(v, str) for v in weight_map.values()) else set()
    if not 0 < len(files) <= _MAX_SHARDS:
        raise BrokenFile(f"the weight_map of {path} names no or too many files", path=str(path))
    for name in files:
        try:
            safe_join(path.parent, name)
        except UnsafePath as error:
            raise BrokenFile(f"{path} points outside its folder: {error.message}", path=str(path)) from error
    return Summary(files=tuple(sorted(files)))


def _weight_files(folder: Path, present: set[str], read: Read) -> tuple[list[str], list[str]]:
    """Names of the weight files here, and of those that are missing."""
    index = next(
        (n for n in ("model" + INDEX_ENDING, *sorted(present)) if n in present and n.endswith(INDEX_ENDING)),
        None,
    )
    if index is not None:
        wanted = _checked(read(folder / index, summarize_index)).files
    else:
        wanted = _wanted_by_name(sorted(name for name in present if name.endswith(".safetensors")))
    return [n for n in wanted if n in present], [n for n in wanted if n not in present]


def _wanted_by_name(found: list[str]) -> tuple[str, ...]:
    for name in ("model.safetensors", "adapter_model.safetensors"):
        if name in found:
            return (name,)
    shards = [match for name in found if (match := _SHARD.fullmatch(name))]
    for match in sorted(shards, key=lambda match: match["stem"] != "model"):
        count = int(match["count"])
        if 0 < count <= _MAX_SHARDS:
            return tuple(
                f"{match['stem']}-{n:05}-of-{match['count']}.safetensors" for n in range(1, count + 1)
            )
    return tuple(found)


def _config_facts(
    folder: Path, present: set[str], read: Read, read_text: Callable[[Path], bytes]
) -> tuple[Summary, tuple[str, ...]]:
    if "config.json" in present:
        config = _checked(read(folder / "config.json", summarize_config))
        template = _template(folder, present, read_text)
        return replace(config, facts=with_template(config.facts, template) if config.facts else None), ()
    if "adapter_config.json" in present:
        return _checked(read(folder / "adapter_config.json", summarize_adapter_config)), ()
    return Summary(facts=ModelFacts(format="safetensors")), ("config.json",)


def _template(folder: Path, present: set[str], read_text: Callable[[Path], bytes]) -> str | None:
    """The chat template's text: a file of its own, or an entry of the tokenizer's configuration."""
    for name in TEMPLATES:
        if name not in present:
            continue
        text = read_text(folder / name)
        if name.endswith(".jinja") or b'"chat_template"' in text:
            return text.decode("utf-8", "replace")
    return None


def _read_text(path: Path) -> bytes:
    with open_regular(path) as (descriptor, size_bytes):
        return reader_of(descriptor, path)(0, min(size_bytes, MAX_TEMPLATE_BYTES))


def _add_weights(config: Summary, shards: Sequence[Summary]) -> ModelFacts:
    """Counts from the headers join what the configuration says."""
    facts = config.facts or ModelFacts(format="safetensors")
    totals: dict[str, int] = {}
    for shard in shards:
        for key, elements in shard.counts.items():
            totals[key] = totals.get(key, 0) + elements
    return replace(
        facts,
        parameters=_parameters(totals, config.counts.get("bits"), is_quantized=facts.quantization is not None)
        or None,
        quantization=facts.quantization or _main_dtype(totals),
        size_bytes=sum(shard.facts.size_bytes for shard in shards if shard.facts),
        weights_bytes=sum(shard.facts.weights_bytes for shard in shards if shard.facts),
    )


def _parameters(totals: Mapping[str, int], bits: int | None, *, is_quantized: bool) -> int:
    """Weights of a quantized model may be packed, several in one integer, and have scales beside them."""
    if not is_quantized:
        return sum(totals.values())
    count = 0
    for key, elements in totals.items():
        role, _, dtype = key.partition(":")
        width = {"I32": 32, "U8": 8, "I64": 64}.get(dtype)
        is_packed = role == "packed" or (dtype == "U8" and bits == 4)
        if role == "side":
            continue
        count += elements * width // bits if is_packed and width and bits else elements
    return count


def _main_dtype(totals: Mapping[str, int]) -> str | None:
    dtypes: dict[str, int] = {}
    for key, elements in totals.items():
        name = key.partition(":")[2]
        dtypes[name] = dtypes.get(name, 0) + elements
    return max(dtypes, key=lambda name: (dtypes[name], name)) if dtypes else None


def _role(tensor: SafetensorsTensor) -> str:
    if tensor.name.endswith(_PACKED):
        return "packed"
    return "side" if _SIDE.search(tensor.name) else "plain"


def _checked(summary: Summary) -> Summary:
    if summary.error is not None:
        raise BrokenFile(summary.error)
    return summary

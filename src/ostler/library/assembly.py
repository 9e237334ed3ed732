"""From groups of files to file sets: headers are read, shards add up, projectors find their models."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ostler.core.errors import OstlerError
from ostler.library.errors import BrokenFile
from ostler.library.facts import ModelFacts
from ostler.library.filesets import File, FileSet, file_set_id
from ostler.library.grouping import Group, companions, groups_in, shard_number
from ostler.library.hf_folder import inspect_folder
from ostler.library.inspections import Reader
from ostler.library.quantization import stem_without_tag, tag_from_name
from ostler.library.scanning import Neighbourhood, SeenFile
from ostler.library.summaries import Summary, combine_shards, summarize_gguf

MAX_MISSING_NAMED = 100
PROJECTOR_ORDER = ("F16", "BF16", "Q8_0", "F32")
"""Which of several projectors a model gets; llama.cpp's converter writes F16 unless asked otherwise."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MAX_TIME_US = 8_000 * 365 * 86_400 * 1_000_000

Summarize = Callable[[SeenFile, Reader], Summary]


@dataclass(frozen=True, slots=True)
class Where:
    """The root that file sets are in; both None for a path outside every root."""

    root_id: int | None
    root: Path | None
    layout: str | None


@dataclass(frozen=True, slots=True)
class _Read:
    """A group whose headers were read."""

    group: Group
    weights: tuple[SeenFile, ...]
    facts: ModelFacts | None
    missing: tuple[str, ...]
    error: str | None

    @property
    def is_projector(self) -> bool:
        return self.facts is not None and self.facts.kind == "mmproj"

    @property
    def is_model(self) -> bool:
        return self.group.format == "gguf" and (self.facts is None or self.facts.kind == "model")


def file_sets(
    where: Where, near: Neighbourhood, summarize: Summarize, groups: Sequence[Group] | None = None
) -> list[FileSet]:
    """The file sets of one neighbourhood, or of these groups in it.

    Blocking; bad files give sets with an error, never a raise.
    """
    if groups is None:
        groups = [group for place in near.places for group in groups_in(place)]
    read = [_read(group, summarize) for group in groups]
    projectors = [item for item in read if item.is_projector]
    models = [item for item in read if item.is_model]
    chosen = {id(model): _projector_of(model, models, projectors) for model in models} if projectors else {}
    taken = {id(projector) for projector in chosen.values() if projector}
    return [
        _file_set(where, near, item, chosen.get(id(item)))
        for item in read
        if id(item) not in taken and not _is_empty(item)
    ]


def _is_empty(item: _Read) -> bool:
    """An index without any of its weights and without a configuration is no model."""
    return item.group.format == "safetensors" and not item.weights and "config.json" in item.missing


def _read(group: Group, summarize: Summarize) -> _Read:
    try:
        if group.format == "gguf":
            return _Read(group, group.weights, _gguf_facts(group, summarize), group.missing, None)
        return _read_folder(group, summarize)
    except OstlerError as error:
        # The error becomes the set's own: a listing shows it beside the file.
        return _Read(group, group.weights, None, group.missing, error.message)


def _gguf_facts(group: Group, summarize: Summarize) -> ModelFacts:
    names = [os.path.basename(file.path) for file in group.weights]  # noqa: PTH119
    summaries = [summarize(file, summarize_gguf) for file in group.weights]
    return facts_of_gguf(names, summaries, group.shard_count, complete=not group.missing)


def facts_of_gguf(
    names: Sequence[str], summaries: Sequence[Summary], shard_count: int, *, complete: bool = True
) -> ModelFacts:
    """The facts of a GGUF model by the headers of its files; `complete` when all shards are among them.

    Raises BrokenFile where the files contradict each other or their names.
    """
    for name, summary in zip(names, summaries, strict=True):
        if summary.error is not None:
            raise BrokenFile(summary.error)
        _check_shard(name, summary, shard_count)
    expected = summaries[0].split_tensors
    if complete and shard_count > 1 and expected is not None:
        found = sum(summary.n_tensors for summary in summaries)
        if found != expected:
            raise BrokenFile(f"the parts hold {found} tensors, the model has {expected}")
    return combine_shards(summaries)


def _check_shard(name: str, summary: Summary, count_by_name: int) -> None:
    count = summary.split_count or 1
    if count != count_by_name:
        raise BrokenFile(
            f"{name} says that it is one of {count} parts, by its name it is one of {count_by_name}",
            hint="Parts of a split model must keep their names (...-00001-of-00003.gguf).",
        )
    if count > 1 and summary.split_no != shard_number(name):
        raise BrokenFile(f"{name} holds part {(summary.split_no or 0) + 1} of the model")


def _read_folder(group: Group, summarize: Summarize) -> _Read:
    files = group.place.files
    inspection = inspect_folder(
        Path(group.place.path),
        list(files),
        lambda path, reader: summarize(_seen_in(files, path), reader),
    )
    weights = tuple(_seen_in(files, Path(group.place.path, name)) for name in inspection.weights)
    return _Read(group, weights, inspection.facts, inspection.missing, None)


def _seen_in(files: Mapping[str, SeenFile], path: Path) -> SeenFile:
    found = files.get(path.name)
    if found is None:
        raise BrokenFile(f"{path} is not beside its index")
    return found


def _projector_of(model: _Read, models: Sequence[_Read], projectors: Sequence[_Read]) -> _Read | None:
    """The projector for a model: in its folder or above, and by name where several models could have it."""
    fitting = [p for p in projectors if _is_near(p, model) and _belongs(p, model, models)]
    return min(fitting, key=_preference, default=None)


def _is_near(projector: _Read, model: _Read) -> bool:
    above, below = projector.group.place.relative, model.group.place.relative
    return above == below or below.startswith(above + "/") or above == ""


def _belongs(projector: _Read, model: _Read, models: Sequence[_Read]) -> bool:
    families = {_family(other) for other in models if _is_near(projector, other)}
    if len(families) == 1:
        return True
    own = _family(projector).replace("mmproj", "").strip("-._ ")
    family = _family(model)
    return bool(own) and own != "model" and (own in family or family in own)


def _family(item: _Read) -> str:
    return stem_without_tag(item.group.first).lower()


def _preference(projector: _Read) -> tuple[int, str]:
    kind = projector.facts.quantization if projector.facts else None
    rank = PROJECTOR_ORDER.index(kind) if kind in PROJECTOR_ORDER else len(PROJECTOR_ORDER)
    return rank, projector.group.first


def _file_set(where: Where, near: Neighbourhood, item: _Read, projector: _Read | None) -> FileSet:
    group = item.group
    files = [*item.weights]
    if group.format == "safetensors":
        files += [file for file in companions(group.place) if file not in files]
    facts = item.facts
    if projector is not None:
        files += projector.weights
        facts = with_projector(facts, projector.facts)
    size_bytes = sum(file.size_bytes for file in files)
    tag = tag_from_name(group.key) if group.format == "gguf" else None
    return FileSet(
        id=file_set_id(where.root, group.key),
        root_id=where.root_id,
        layout=where.layout,
        name=_name(near, group, facts, tag),
        path=Path(group.place.path, group.first),
        files=tuple(File(Path(file.path), file.size_bytes) for file in files),
        size_bytes=size_bytes,
        format=group.format,
        mmproj=Path(projector.weights[0].path) if projector else None,
        repo=near.repo,
        revision=near.revision,
        refs=near.refs,
        tag=tag or (facts.quantization if facts else None),
        complete=item.error is None and not item.missing,
        missing=_shortened(item.missing),
        facts=replace(facts, size_bytes=size_bytes) if facts else None,
        error=item.error,
        modified_at=_time(max((file.mtime_ns for file in files), default=0)),
    )


def with_projector(facts: ModelFacts | None, projector: ModelFacts | None) -> ModelFacts | None:
    """The model's facts with what its projector adds."""
    if facts is None or projector is None:
        return facts
    words = projector.capabilities or ("vision",)
    return replace(
        facts,
        capabilities=(*facts.capabilities, *(word for word in words if word not in facts.capabilities)),
        weights_bytes=facts.weights_bytes + projector.weights_bytes,
    )


def _name(near: Neighbourhood, group: Group, facts: ModelFacts | None, tag: str | None) -> str:
    """A name that a model of it could have: `org/repo:TAG` for a repo, else the file's or folder's own."""
    if near.repo is not None:
        if group.format == "safetensors":
            below = group.place.relative.removeprefix(near.base).strip("/")
            return f"{near.repo}:{below}" if below else near.repo
        if facts is not None and facts.kind != "model":
            tag = None
        return f"{near.repo}:{tag or stem_of(group.first)}"
    return stem_of(group.first) if group.first else Path(group.place.path).name


def stem_of(name: str) -> str:
    """A GGUF's name without its ending and shard number."""
    if shard_number(name) is not None:
        return name[: -len("-00001-of-00001.gguf")]
    return name[: -len(".gguf")] if name.lower().endswith(".gguf") else name


def _time(mtime_ns: int) -> datetime:
    """A file's time may lie beyond what a datetime holds."""
    return EPOCH + timedelta(microseconds=min(max(mtime_ns // 1000, 0), MAX_TIME_US))


def _shortened(missing: tuple[str, ...]) -> tuple[str, ...]:
    if len(missing) <= MAX_MISSING_NAMED:
        return missing
    return (*missing[:MAX_MISSING_NAMED], f"and {len(missing) - MAX_MISSING_NAMED} more")

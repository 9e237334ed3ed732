"""Looking into one folder: its sub-folders, and every model in it and below it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ostler.library.bounded_json import read_json_object
from ostler.library.errors import BrokenFile, OutsideRoots, PathNotFound
from ostler.library.filesets import FileSet
from ostler.library.ggml_types import FILE_TYPES
from ostler.library.hf_config import MAX_CONFIG_BYTES, language_part
from ostler.library.inspections import Inspections
from ostler.library.listing import Scanner
from ostler.library.paths import is_inside
from ostler.library.roots import Root
from ostler.library.scanning import Walk, regular
from ostler.library.summaries import clean, summarize_gguf


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder that may hold models."""

    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class GgufDetails:
    """What a GGUF's header says beyond the facts: `general.file_type` by number and by llama.cpp's name."""

    file_type: int | None
    file_type_name: str | None
    quantization_version: int | None


@dataclass(frozen=True, slots=True)
class ConfigDetails:
    """What a `config.json` says beyond the facts. `error` is one sentence where it cannot be read."""

    model_type: str | None = None
    torch_dtype: str | None = None
    tie_word_embeddings: bool | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class FolderView:
    """A folder with what is in it and below.

    `names` are the files directly in it, `gguf_files` every GGUF relative to it, `gguf` the details of
    GGUF models by file set id, `config` those of each folder with a `config.json` (absolute path).
    """

    path: Path
    file_sets: tuple[FileSet, ...]
    names: tuple[str, ...]
    gguf_files: tuple[str, ...]
    gguf: Mapping[str, GgufDetails] = field(default_factory=dict)
    config: Mapping[Path, ConfigDetails] = field(default_factory=dict)

    def relative(self, path: Path) -> str:
        """A path in this folder as seen from it; "" for the folder itself."""
        shown = os.path.relpath(path, self.path)
        return "" if shown == "." else shown


def root_holding(roots: Iterable[Root], path: Path) -> Root:
    """The root that `path` lies in, also with every link followed. Blocking. Raises OutsideRoots."""
    for root in roots:
        if path.is_relative_to(root.path) and is_inside(path, root.path):
            return root
    raise OutsideRoots(f"{path} is outside every library folder", path=str(path))


def subfolders(root: Root, base: Path) -> list[Folder]:
    """The folders directly in `base` by name, without hidden ones and links that lead out of the root.

    Blocking. Raises PathNotFound.
    """
    _check_folder(base)
    found = []
    for entry in Walk().entries_of(str(base)):
        is_link = entry.is_symlink()
        if entry.is_dir() and (not is_link or is_inside(Path(entry.path), root.path)):
            found.append(Folder(entry.name, base / entry.name))
    return found


def look_into(root: Root, folder: Path, scanner: Scanner, inspections: Inspections) -> FolderView:
    """All in a folder of a root; broken files are sets with an error. Blocking. Raises PathNotFound."""
    _check_folder(folder)
    within = os.path.relpath(folder, root.path)
    nearby, found = scanner.scan_below(root, "" if within == "." else within)
    places = [place for near in nearby for place in near.places]
    file_sets = sorted(found, key=lambda item: str(item.path))
    return FolderView(
        path=folder,
        file_sets=tuple(file_sets),
        names=tuple(sorted(name for place in places if Path(place.path) == folder for name in place.files)),
        gguf_files=tuple(
            sorted(
                os.path.relpath(file.path, folder)
                for place in places
                for name, file in place.files.items()
                if name.lower().endswith(".gguf")
            )
        ),
        gguf={item.id: _gguf_details(item, inspections) for item in file_sets if item.format == "gguf"},
        config={
            Path(place.path): _config_details(Path(place.path, "config.json"))
            for place in places
            if "config.json" in place.files
        },
    )


def _check_folder(path: Path) -> None:
    try:
        is_folder = path.is_dir()
    except (OSError, ValueError):
        is_folder = False  # a name that no file can have
    if not is_folder:
        raise PathNotFound(f"there is no folder {path}", path=str(path))


def _gguf_details(item: FileSet, inspections: Inspections) -> GgufDetails:
    file = regular(str(item.path))
    summary = inspections.read(file, summarize_gguf) if file else None
    number = summary.file_type if summary else None
    known = FILE_TYPES.get(number) if number is not None else None
    return GgufDetails(
        file_type=number,
        file_type_name=known.label if known else item.facts.quantization if item.facts else None,
        quantization_version=summary.quantization_version if summary else None,
    )


def _config_details(path: Path) -> ConfigDetails:
    try:
        config = read_json_object(path, MAX_CONFIG_BYTES)
    except (BrokenFile, PathNotFound) as error:
        return ConfigDetails(error=error.message)
    text = language_part(config)
    tied = config.get("tie_word_embeddings", text.get("tie_word_embeddings"))
    return ConfigDetails(
        model_type=clean(config.get("model_type")),
        torch_dtype=clean(
            config.get("torch_dtype") or config.get("dtype") or text.get("torch_dtype") or text.get("dtype")
        ),
        tie_word_embeddings=tied if isinstance(tied, bool) else None,
    )

"""From a file set on disk, or the headers of one on the hub, to the shape that the estimate starts from."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from ostler.fit.counting import Shape
from ostler.fit.errors import NotEstimable
from ostler.fit.model_shape import ModelShape
from ostler.fit.vllm_shape import VllmShape
from ostler.library.bounded_json import read_json_object
from ostler.library.filesets import FileSet
from ostler.library.gguf import read_gguf_header
from ostler.library.gguf_header import GgufHeader
from ostler.library.hf_config import MAX_CONFIG_BYTES
from ostler.library.safetensors import read_safetensors_header

MAX_KEPT = 64


Read = tuple[Shape, GgufHeader | None]
"""A model's shape, and the header of its projector (mmproj) if it has one."""


class Shapes:
    """Reads shapes and keeps the last ones, by path, size and time of change: headers are large."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], Read] = OrderedDict()

    async def of(self, files: FileSet) -> Read:
        """What to estimate a file set from. Raises NotEstimable and what reading a header raises."""
        return await asyncio.to_thread(self._of, files)

    def _of(self, files: FileSet) -> Read:
        paths, mmproj = model_files(files), files.mmproj
        key = tuple((str(path), *_state(path)) for path in (*paths, *([mmproj] if mmproj else [])))
        read = self._kept.pop(key, None) or _read(files, paths)
        self._kept[key] = read
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return read


def model_files(files: FileSet) -> list[Path]:
    """The files that say what the model is, the one with the metadata first. Raises NotEstimable."""
    if files.missing:
        named = ", ".join(files.missing[:3])
        raise NotEstimable(f"files of the model are missing: {named}", hint="Fetch them: ostler pull")
    if files.format == "safetensors":
        return [files.path / "config.json", *_with_ending(files, ".safetensors")]
    if files.format == "gguf":
        return [files.path, *(path for path in _with_ending(files, ".gguf") if path != files.path)]
    raise NotEstimable(f"the memory of a model in the format '{files.format}' is not known here")


def _with_ending(files: FileSet, ending: str) -> list[Path]:
    return sorted(f.path for f in files.files if f.path.suffix == ending and f.path != files.mmproj)


def _read(files: FileSet, paths: Sequence[Path]) -> Read:
    if files.format == "safetensors":
        config = read_json_object(paths[0], MAX_CONFIG_BYTES)
        return VllmShape.of([read_safetensors_header(path) for path in paths[1:]], config), None
    shape = ModelShape.of([read_gguf_header(path) for path in paths])
    return shape, read_gguf_header(files.mmproj) if files.mmproj else None


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)  # reading it says what is wrong
    return (stat.st_size, stat.st_mtime_ns)

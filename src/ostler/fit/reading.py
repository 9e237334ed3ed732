"""From a file set on disk, or the headers of one on the hub, to the shape that the estimate starts from."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from ostler.fit.beside import Beside
from ostler.fit.counting import Shape
from ostler.fit.errors import NotEstimable
from ostler.fit.model_shape import ModelShape
from ostler.fit.vllm_shape import VllmShape
from ostler.hub.inspecting import RemoteModel
from ostler.library.bounded_json import read_json_object
from ostler.library.filesets import FileSet
from ostler.library.gguf import read_gguf_header
from ostler.library.gguf_header import GgufHeader
from ostler.library.hf_config import MAX_CONFIG_BYTES
from ostler.library.loose import inspect_loose
from ostler.library.safetensors import read_safetensors_header

MAX_KEPT = 64
Kept = TypeVar("Kept")


Read = tuple[Shape, Beside]
"""A model's shape, and what goes beside it: its projector (mmproj), and a reader of files in options."""


class Shapes:
    """Reads shapes and keeps the last ones, by path, size and time of change: headers are large."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], Read] = OrderedDict()
        self._headers: OrderedDict[tuple[object, ...], tuple[GgufHeader, ...]] = OrderedDict()

    async def of(self, files: FileSet) -> Read:
        """What to estimate a file set from. Raises NotEstimable and what reading a header raises."""
        return await asyncio.to_thread(self._of, files)

    def _of(self, files: FileSet) -> Read:
        paths, mmproj = model_files(files), files.mmproj
        key = tuple((str(path), *_state(path)) for path in (*paths, *([mmproj] if mmproj else [])))
        read = self._kept.pop(key, None) or self._read(files, paths)
        _keep(self._kept, key, read)
        return read

    def _read(self, files: FileSet, paths: Sequence[Path]) -> Read:
        if files.format == "safetensors":
            config = read_json_object(paths[0], MAX_CONFIG_BYTES)
            return VllmShape.of([read_safetensors_header(path) for path in paths[1:]], config), Beside()
        shape = ModelShape.of([read_gguf_header(path) for path in paths])
        return shape, Beside(read_gguf_header(files.mmproj) if files.mmproj else None, self.headers)

    def headers(self, path: Path) -> tuple[GgufHeader, ...]:
        """The headers of any GGUF file, with its further shards. Blocking.

        Raises NotEstimable and what reading a header raises.
        """
        key = (str(path), *_state(path))
        headers = self._headers.pop(key, None) or tuple(
            read_gguf_header(part) for part in model_files(inspect_loose(path))
        )
        _keep(self._headers, key, headers)
        return headers


def _keep(kept: OrderedDict[tuple[object, ...], Kept], key: tuple[object, ...], value: Kept) -> None:
    kept[key] = value
    while len(kept) > MAX_KEPT:
        kept.popitem(last=False)


def shape_on_hub(remote: RemoteModel) -> Read:
    """The same of a model on the hub, whose headers were read there. Raises as `Shapes.of` does."""
    if remote.safetensors is not None:
        return VllmShape.of(remote.safetensors.values(), remote.config), Beside()
    if remote.format != "gguf":
        raise NotEstimable(f"the memory of a model in the format '{remote.format}' is not known here")
    return ModelShape.of(remote.gguf), Beside(remote.mmproj_header)


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


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)  # reading it says what is wrong
    return (stat.st_size, stat.st_mtime_ns)

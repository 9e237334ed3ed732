"""From a file set on disk to the shape that the estimate starts from."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path

from ostler.fit.errors import NotEstimable
from ostler.fit.model_shape import ModelShape
from ostler.hub.inspecting import RemoteModel
from ostler.library.filesets import FileSet
from ostler.library.gguf import read_gguf_header
from ostler.library.gguf_header import GgufHeader

MAX_KEPT = 64


Read = tuple[ModelShape, GgufHeader | None]
"""A model's shape, and the header of its projector (mmproj) if it has one."""


class Shapes:
    """Reads shapes and keeps the last ones, by path, size and time of change: headers are large."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], Read] = OrderedDict()

    async def of(self, files: FileSet) -> Read:
        """What to estimate a GGUF file set from. Raises NotEstimable and what reading a header raises."""
        return await asyncio.to_thread(self._of, files)

    def _of(self, files: FileSet) -> Read:
        paths, mmproj = model_files(files), files.mmproj
        key = tuple((str(path), *_state(path)) for path in (*paths, *([mmproj] if mmproj else [])))
        read = self._kept.pop(key, None) or (
            ModelShape.of([read_gguf_header(path) for path in paths]),
            read_gguf_header(mmproj) if mmproj else None,
        )
        self._kept[key] = read
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return read


def shape_on_hub(remote: RemoteModel) -> Read:
    """The same of a model on the hub, whose headers were read there. Raises as `Shapes.of` does."""
    if remote.format != "gguf":
        raise NotEstimable(f"the memory of a model in the format '{remote.format}' is not known here")
    return ModelShape.of(remote.gguf), remote.mmproj_header


def model_files(files: FileSet) -> list[Path]:
    """The files with the model's own tensors, the one with the metadata first."""
    if files.format != "gguf":
        raise NotEstimable(f"the memory of a model in the format '{files.format}' is not known here")
    rest = [file.path for file in files.files if file.path not in (files.path, files.mmproj)]
    return [files.path, *sorted(path for path in rest if path.suffix == ".gguf")]


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)  # reading it says what is wrong
    return (stat.st_size, stat.st_mtime_ns)

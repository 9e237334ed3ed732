"""From a file set on disk to the shape that the estimate starts from."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path

from ostler.fit.errors import NotEstimable
from ostler.fit.model_shape import ModelShape
from ostler.library.filesets import FileSet
from ostler.library.gguf import read_gguf_header
from ostler.library.gguf_header import GgufHeader

MAX_KEPT = 64


class Shapes:
    """Reads shapes and keeps the last ones, by path, size and time of change: headers are large."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], ModelShape] = OrderedDict()

    async def of(self, files: FileSet) -> ModelShape:
        """The shape of a GGUF file set. Raises NotEstimable and what reading a header raises."""
        return await asyncio.to_thread(self._of, files)

    def _of(self, files: FileSet) -> ModelShape:
        paths = model_files(files)
        key = tuple((str(path), *_state(path)) for path in paths)
        shape = self._kept.pop(key, None) or ModelShape.of([read_gguf_header(path) for path in paths])
        self._kept[key] = shape
        while len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)
        return shape


def model_files(files: FileSet) -> list[Path]:
    """The files with the model's own tensors, the one with the metadata first."""
    if files.format != "gguf":
        raise NotEstimable(f"the memory of a model in the format '{files.format}' is not known here")
    rest = [file.path for file in files.files if file.path not in (files.path, files.mmproj)]
    return [files.path, *sorted(path for path in rest if path.suffix == ".gguf")]


async def projector_of(files: FileSet) -> GgufHeader | None:
    """The header of the file set's mmproj, if it has one. Raises what reading a header raises."""
    if files.mmproj is None:
        return None
    return await asyncio.to_thread(read_gguf_header, files.mmproj)


def _state(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)  # reading it says what is wrong
    return (stat.st_size, stat.st_mtime_ns)

"""From a file set on disk to the shape that the estimate starts from."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path
from typing import TypeVar

from ostler.fit.beside import Beside
from ostler.fit.errors import NotEstimable
from ostler.fit.model_shape import ModelShape
from ostler.library.filesets import FileSet
from ostler.library.gguf import read_gguf_header
from ostler.library.gguf_header import GgufHeader
from ostler.library.loose import inspect_loose

MAX_KEPT = 64
Kept = TypeVar("Kept")


Read = tuple[ModelShape, Beside]
"""A model's shape, and what goes beside it: its projector (mmproj), and a reader of files in options."""


class Shapes:
    """Reads shapes and keeps the last ones, by path, size and time of change: headers are large."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[object, ...], Read] = OrderedDict()
        self._headers: OrderedDict[tuple[object, ...], tuple[GgufHeader, ...]] = OrderedDict()

    async def of(self, files: FileSet) -> Read:
        """What to estimate a GGUF file set from. Raises NotEstimable and what reading a header raises."""
        return await asyncio.to_thread(self._of, files)

    def _of(self, files: FileSet) -> Read:
        paths, mmproj = model_files(files), files.mmproj
        key = tuple((str(path), *_state(path)) for path in (*paths, *([mmproj] if mmproj else [])))
        read = self._kept.pop(key, None) or (
            ModelShape.of([read_gguf_header(path) for path in paths]),
            Beside(read_gguf_header(mmproj) if mmproj else None, self.headers),
        )
        _keep(self._kept, key, read)
        return read

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

"""What an engine loads beside the model: a projector, a drafting model, adapters.

The projector usually lies beside the model (`mmproj`); the others are files that options name. They
are read when they are counted, and one that cannot be read is told of and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostler.core.errors import OstlerError
from ostler.fit.model_shape import ModelShape
from ostler.library.gguf_header import GgufHeader

ReadHeaders = Callable[[Path], tuple[GgufHeader, ...]]
"""The headers of a file and of its further shards, the first file's first. Blocking."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The headers of what these options load beside the model.

    `unread` are sentences about files that are not counted. `adapters` change how the model computes
    unless `adapters_off`.
    """

    projector: GgufHeader | None = None
    draft: ModelShape | None = None
    adapters: tuple[GgufHeader, ...] = ()
    adapters_off: bool = False
    unread: tuple[str, ...] = ()

    @property
    def adapts(self) -> bool:
        """True if adapters change how the model computes from the start."""
        return bool(self.adapters) and not self.adapters_off


@dataclass(frozen=True, slots=True)
class Beside:
    """The projector that lies beside a model, and a way to read files that options name.

    Without `read` (for a model on the hub) such files are told of and not counted.
    """

    projector: GgufHeader | None = None
    read: ReadHeaders | None = None

    def loaded(self, options: Mapping[str, Any]) -> Loaded:
        """Read what these canonical engine options name. Blocking; raises nothing for a broken file."""
        unread: list[str] = []
        drafts = list(self._read(options.get("draft_model"), "draft model", unread))
        named = list(self._read(options.get("mmproj"), "projector", unread))
        beside = None if options.get("mmproj_auto") is False else self.projector
        return Loaded(
            projector=named[0][0] if named else None if options.get("mmproj") else beside,
            draft=_shape(drafts[0], unread) if drafts else None,
            adapters=tuple(
                headers[0]
                for path in _adapter_paths(options)
                for headers in self._read(path, "adapter (LoRA)", unread)
            ),
            adapters_off=bool(options.get("lora_init_without_apply")),
            unread=tuple(unread),
        )

    def _read(self, path: Any, what: str, unread: list[str]) -> Iterator[tuple[GgufHeader, ...]]:
        if not path:
            return
        if self.read is None:
            unread.append(f"the {what} {path} is not counted: it is not read for a model that is not here")
            return
        try:
            yield self.read(Path(str(path)))
        except OstlerError as error:
            unread.append(f"the {what} is not counted: {error.message}")


def _shape(headers: tuple[GgufHeader, ...], unread: list[str]) -> ModelShape | None:
    try:
        return ModelShape.of(headers)
    except OstlerError as error:
        unread.append(f"the draft model is not counted: {error.message}")
        return None


def _adapter_paths(options: Mapping[str, Any]) -> Iterator[str]:
    """Of `lora` and of `lora_scaled`, whose entries end in `:SCALE`."""
    for name in ("lora", "lora_scaled"):
        stated = options.get(name) or []
        for entry in [stated] if isinstance(stated, str) else stated:
            yield str(entry).rpartition(":")[0] or str(entry) if name == "lora_scaled" else str(entry)

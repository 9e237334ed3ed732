"""Which engine serves a file set, and why."""

from __future__ import annotations

from dataclasses import dataclass

from ostler.engines.base import UnknownEngine
from ostler.engines.registry import Engines
from ostler.library.filesets import FileSet

_NO_MODEL = {
    "mmproj": "It is a projector: it is loaded beside its model, not alone.",
    "lora": "It is an adapter: it is loaded beside its model, not alone.",
    "vocab": "It holds a vocabulary and no weights.",
}


@dataclass(frozen=True, slots=True)
class Recommendation:
    """`engine` is None where no engine can serve the files as they are; `reason` is a sentence."""

    engine: str | None
    reason: str


def recommend(engines: Engines, files: FileSet) -> Recommendation:
    """The engine for these files: each format has one that reads it natively."""
    if files.error is not None:
        return Recommendation(None, f"The files cannot be used: {files.error}")
    if files.facts is not None and files.facts.kind != "model":
        return Recommendation(None, _NO_MODEL.get(files.facts.kind, "It is no model."))
    try:
        engine = engines.for_format(files.format)
    except UnknownEngine as error:
        return Recommendation(None, f"{error.message[:1].upper()}{error.message[1:]}.")
    if not files.complete:
        missing = ", ".join(files.missing[:3])
        return Recommendation(None, f"{engine.title} would serve it, but files are missing: {missing}")
    return Recommendation(engine.name, f"{engine.title} {engine.serves}.")

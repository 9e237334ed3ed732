"""What a merge or a split can fail with."""

from __future__ import annotations

from ostler.core.errors import Conflict, DiskFull, Invalid, OstlerError
from ostler.library.errors import BrokenFile


class NothingToMerge(Invalid):
    """The model is in one file already, or is no GGUF."""


class NameTaken(Conflict):
    """A file of that name, with other contents, is in the target folder."""

    hint = "Choose another folder (--to) or another name (--name); Ostler never writes over a model file."


class ReshapingFailed(OstlerError):
    """The process ended without saying why, or the disk refused to write."""

    hint = "Try it again: what is written so far is kept. See also: ostler doctor"


class DifferentTensor(BrokenFile):
    """A new file does not hold what it was made of: a failing disk, or a source that changed."""

    hint = "Check the disk, and that nobody writes to the model's files; then try again."


def error_from(code: str, message: str) -> OstlerError:
    """The error for what the worker said."""
    match code:
        case "disk_full":
            hint = "Free some space and try again: what is written so far is kept."
            return DiskFull(f"the disk is full: {message}", hint=hint)
        case "different_tensor":
            return DifferentTensor(message)
        case "broken_file":
            return BrokenFile(message)
        case "name_taken":
            return NameTaken(message)
        case _:
            return ReshapingFailed(message)

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


def no_room(name: str, need_bytes: int, free_bytes: int, reserve_bytes: int) -> DiskFull:
    """DiskFull, before the first byte is written."""
    return DiskFull(
        f"{name} needs {need_bytes / 1e9:.2f} GB, {free_bytes / 1e9:.2f} GB is free and "
        f"{reserve_bytes / 1e9:.2f} GB of it is to stay free (setting disk_reserve_bytes)",
        hint="Free some space, or choose a folder on another disk with --to",
        need_bytes=need_bytes,
        free_bytes=free_bytes,
        reserve_bytes=reserve_bytes,
    )


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

"""What can go wrong with files."""

from __future__ import annotations

from ostler.core.errors import Conflict, Invalid, InvalidField, NotAllowed, NotFound, Unsupported


class BrokenFile(Invalid):
    """A model file's header is damaged, truncated or hostile."""

    hint = "Fetch the file again; a partial or wrong download looks like this."


class UnreadableFile(BrokenFile):
    """The operating system does not let us read it: permissions, a failing disk."""

    hint = "Check the file's permissions and the disk."


class UnsupportedFile(Unsupported):
    """A valid file of a kind that this version does not know (GGUF 1, a new tensor type)."""


class NotAModelFile(Invalid):
    """The path exists and holds no model that we know."""

    hint = "Ostler reads GGUF files and folders with safetensors files."


class PathNotFound(NotFound):
    """Nothing is at that path."""

    hint = "Check the path; see what is in the library with: ostler ls --files"


class OutsideRoots(NotAllowed):
    """A path outside every library folder."""

    hint = "Use a path inside a library folder; an administrator may add the folder to the library."


class FileSetNotFound(NotFound):
    """No file set has that id."""

    hint = "See what is in the library with: ostler ls --files"


class UnsafePath(InvalidField):
    """A path that would leave its root, or that no file may have."""

    hint = "Give a path inside the folder, without '..'."

    def __init__(self, message: str, *, hint: str | None = None, **facts: object) -> None:
        super().__init__("path", message, hint=hint, **facts)


class RootNotFound(NotFound):
    """No root has that id."""


class RootExists(Conflict):
    """The folder is a root already."""


class RootIsConfigured(Conflict):
    """The folder comes from the settings and stays as long as they name it."""

    hint = "Change the setting models_dir or hub_cache_dir instead, and start the server again."


class NestedRoots(Conflict):
    """A root that Ostler fills lies inside one that it must never change, or the other way round."""

    hint = "Library folders lie side by side, neither inside the other: name another folder."


class DeletionFailed(Conflict):
    """The operating system refused to delete a file; what was deleted before is in the facts."""


class FileInUse(Conflict):
    """A model that uses the file is not stopped."""


class DeletionNotAllowed(NotAllowed):
    """The file is in a root that Ostler does not fill; its owner deletes it, not we."""

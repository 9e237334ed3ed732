"""What can go wrong while bytes are fetched, in the worker's own words.

`code` travels to the server, which raises the error of that name (`errors.py`).
"""

from __future__ import annotations


class Fault(Exception):
    """The download cannot go on."""

    code = "hub_error"


class Gated(Fault):
    """The hub knows the file and does not give it to this token (401, 403)."""

    code = "gated"


class Gone(Fault):
    """The file is not there (404, 410)."""

    code = "not_found"


class Changed(Fault):
    """The hub serves another commit or another file than was asked for."""

    code = "changed"


class WrongBytes(Fault):
    """The contents do not have the hash that the hub promised, also when fetched again."""

    code = "wrong_bytes"


class NoSpace(Fault):
    """The disk is full."""

    code = "disk_full"


class UnsafeName(Fault):
    """A file's name leads out of its folder."""

    code = "unsafe_name"


class Passing(Exception):
    """A fault that may be over at the next try. `retry_after_s` is what the hub asked to wait."""

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, code: str = "unreachable"
    ) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.code = code


class RangesIgnored(Exception):
    """The server answered a range with the whole file."""

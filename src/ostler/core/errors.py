"""The one family of errors.

A room raises what happened, in domain words, with facts and a next step; only the doors
(API, gateway, CLI) turn a `Kind` into an HTTP status, an error envelope or an exit code.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, ClassVar


class Kind(StrEnum):
    """What sort of failure it is; the doors map these to statuses and exit codes."""

    INVALID = "invalid"
    UNAUTHENTICATED = "unauthenticated"
    NOT_ALLOWED = "not_allowed"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    DOES_NOT_FIT = "does_not_fit"
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"
    BUSY = "busy"
    DISK_FULL = "disk_full"
    ENGINE = "engine"
    UPSTREAM = "upstream"
    OFFLINE = "offline"
    TIMEOUT = "timeout"
    UNSUPPORTED = "unsupported"
    INTERNAL = "internal"


class OstlerError(Exception):
    """A failure that a person can read.

    `message` is one plain sentence. `hint` says what to try next, often a command.
    `facts` are JSON-ready details (names, numbers, paths; never a secret).
    `code` is a stable snake_case name for programs, by default made from the class name.
    """

    kind: ClassVar[Kind] = Kind.INTERNAL
    hint: str | None = None

    def __init__(self, message: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        if hint is not None:
            self.hint = hint
        self.facts: Mapping[str, Any] = facts

    @property
    def code(self) -> str:
        """The stable name of this sort of failure."""
        return self.code_of_class()

    @classmethod
    def code_of_class(cls) -> str:
        """The class name in snake_case: `ModelNotFound` is `model_not_found`."""
        letters = enumerate(cls.__name__)
        return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in letters)


class Invalid(OstlerError):
    """The caller sent something that cannot be right."""

    kind = Kind.INVALID


class InvalidField(Invalid):
    """One field of a request is wrong; `field` names it in dotted form."""

    def __init__(self, field: str, message: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(message, hint=hint, field=field, **facts)


class Unauthenticated(OstlerError):
    """Who is asking is not known."""

    kind = Kind.UNAUTHENTICATED
    hint = "Send a key as 'Authorization: Bearer ostler-...'; make one with: ostler keys create NAME"


class NotAllowed(OstlerError):
    """The one who asks is known and may not do this."""

    kind = Kind.NOT_ALLOWED


class NotFound(OstlerError):
    """The thing asked for does not exist."""

    kind = Kind.NOT_FOUND


class Conflict(OstlerError):
    """The thing is in a state in which this cannot be done."""

    kind = Kind.CONFLICT


class Busy(OstlerError):
    """Not now, but soon: `retry_after_s` says when to ask again."""

    kind = Kind.BUSY

    def __init__(self, message: str, *, retry_after_s: float, hint: str | None = None, **facts: Any) -> None:
        super().__init__(message, hint=hint, retry_after_s=retry_after_s, **facts)
        self.retry_after_s = retry_after_s


class RateLimited(Busy):
    """A limit of the caller's key is reached."""

    kind = Kind.RATE_LIMITED


class TooLarge(OstlerError):
    """The input is over a limit."""

    kind = Kind.TOO_LARGE


class DiskFull(OstlerError):
    """There is not enough free space for what was asked."""

    kind = Kind.DISK_FULL


class EngineError(OstlerError):
    """The inference engine failed or gave an answer that cannot be used."""

    kind = Kind.ENGINE


class UpstreamError(OstlerError):
    """A service outside (the hub, a registry) failed."""

    kind = Kind.UPSTREAM


class Offline(OstlerError):
    """Offline mode is on and this would need the network."""

    kind = Kind.OFFLINE
    hint = "Offline mode is on. Unset OSTLER_OFFLINE (or HF_HUB_OFFLINE), or use files that are already here."


class TimedOut(OstlerError):
    """It took longer than its limit."""

    kind = Kind.TIMEOUT


class Unsupported(OstlerError):
    """It is known, and it cannot be done here."""

    kind = Kind.UNSUPPORTED

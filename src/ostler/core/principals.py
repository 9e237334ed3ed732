"""Who asks: every service function that changes something takes a principal."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from ostler.core.errors import NotAllowed


class Role(IntEnum):
    """Roles, each including the ones before it (design, section 10)."""

    USER = 1
    POWER_USER = 2
    MANAGER = 3
    ADMIN = 4

    @property
    def label(self) -> str:
        """The name in APIs and listings: `power_user`."""
        return self.name.lower()

    @classmethod
    def parse(cls, text: str) -> Role:
        """Read a role's name. Raises ValueError with the known names."""
        try:
            return cls[text.strip().upper().replace("-", "_")]
        except KeyError:
            known = ", ".join(role.label for role in cls)
            raise ValueError(f"unknown role {text!r}; one of: {known}") from None


SCOPES = ("chat", "completions", "embeddings")
"""Kinds of inference that a key may be for."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one key; None means unlimited.

    `concurrency` counts requests at once, `concurrent_streams` streamed answers among them. Tokens are
    those of prompts and answers together; they are known afterwards, so the request that goes over is
    the last one that is let in. A day is one of UTC.
    """

    requests_per_minute: int | None = None
    concurrency: int | None = None
    concurrent_streams: int | None = None
    tokens_per_minute: int | None = None
    requests_per_day: int | None = None
    tokens_per_day: int | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """One who asks, already authenticated.

    `models` is the allow-list of model names (shell-style patterns), None for all.
    `key_id` and `user_id` are set where a stored key or person stands behind the request, `org_id` where
    that belongs to an organisation. `scopes` says which kinds of inference a key is for (`SCOPES`), None
    for all.
    """

    name: str
    role: Role
    key_id: int | None = None
    user_id: int | None = None
    org_id: int | None = None
    models: tuple[str, ...] | None = None
    scopes: frozenset[str] | None = None
    limits: Limits = field(default_factory=Limits)

    def require(self, role: Role, what: str) -> None:
        """Raise NotAllowed unless this principal has at least `role`; `what` completes "may not ..."."""
        if self.role < role:
            raise NotAllowed(
                f"{self.name} has the role {self.role.label} and may not {what}",
                hint=f"Ask an administrator for a key with the role {role.label}.",
                needs=role.label,
                has=self.role.label,
            )


LOCAL_ADMIN = Principal(name="local", role=Role.ADMIN)
"""The person at this machine, on loopback without keys."""

SYSTEM = Principal(name="ostler", role=Role.ADMIN)
"""Ostler itself: timers, adoption, restarts."""

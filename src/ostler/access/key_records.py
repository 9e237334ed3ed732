"""What a key is to those who look at it, and what may be wrong with one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ostler.core.errors import Conflict, NotAllowed, NotFound, Unauthenticated
from ostler.core.principals import Limits, Role


class KeyNotFound(NotFound):
    """No key has this id or name."""

    hint = "See them with: ostler keys list"


class KeyNameTaken(Conflict):
    """Another key has this name."""

    hint = "Choose another name, or revoke that key first."


class KeyDisabled(Unauthenticated):
    """The key is switched off."""

    hint = "An administrator can switch it on again."


class WrongAddress(NotAllowed):
    """The key may not be used from this address."""

    hint = "An administrator can change the addresses from which the key may be used."


class KeyExpired(Unauthenticated):
    """The key was valid once."""

    hint = "Ask for a new key; an administrator makes one with: ostler keys create NAME"


@dataclass(frozen=True, slots=True)
class Key:
    """A stored key, without its secret. `prefix` are its first characters, to recognise it by.

    `models`: shell-style patterns of model names that it may use, None for all. `scopes`: kinds of
    inference, None for all. `addresses`: from where it may be used, None for everywhere. `user_id` and
    `org_id`: whose it is. A `disabled` key is kept and does not work.
    """

    id: int
    name: str
    prefix: str
    role: Role
    models: tuple[str, ...] | None
    limits: Limits
    user_id: int | None
    org_id: int | None
    scopes: tuple[str, ...] | None
    addresses: tuple[str, ...] | None
    disabled: bool
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a key is: a person, an organisation, both or (NOBODY) neither."""

    user_id: int | None = None
    org_id: int | None = None


NOBODY = Owner()

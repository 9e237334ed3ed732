"""What a provider says of a person, read: a name and a role."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ostler.access.names import MAX_NAME
from ostler.access.oidc.errors import NoRoleForYou
from ostler.core.principals import Role

_NAMES = ("preferred_username", "nickname", "email", "name", "sub")


def name_in(claims: Mapping[str, Any]) -> str:
    """The best name for this person, as a name may be here."""
    for claim in _NAMES:
        value = claims.get(claim)
        if isinstance(value, str):
            name = re.sub(r"[^A-Za-z0-9._@+ -]+", "-", value)[: MAX_NAME - 10].strip(" -._@+")
            if name and not name.isdecimal():
                return name
    return f"person-{hashlib.sha256(str(claims.get('sub')).encode()).hexdigest()[:12]}"


def role_in(
    claims: Mapping[str, Any], claim: str, mapping: Mapping[str, Role], otherwise: Role | None
) -> Role | None:
    """The highest role that the provider's words lead to; None where they say nothing of roles here.

    `claim` may be a path such as `realm_access.roles`; a text is taken as words. Without a mapping nothing
    is said. Raises NoRoleForYou where none of them leads in and there is no other role.
    """
    if not mapping:
        return None
    found = [mapping[word] for word in words_in(claims, claim) if word in mapping]
    if not found and otherwise is None:
        raise NoRoleForYou(f"nothing in the claim {claim!r} leads to a role here")
    return max(found, default=otherwise)


def words_in(claims: Mapping[str, Any], path: str) -> Iterable[str]:
    """The texts at that place."""
    value: Any = claims
    if path in claims:  # some providers have names with dots in them, such as URLs
        value = claims[path]
    else:
        for part in path.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return value.split()
    return [word for word in value if isinstance(word, str)] if isinstance(value, list) else []

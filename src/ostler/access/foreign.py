"""Secrets that came from another system as hashes: checked once, then kept as ours are.

Cortex keeps bcrypt hashes and the first characters of each key; llamactl keeps Argon2id hashes and nothing to
find a key by, so a key in its shape is compared with each of them.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

PREFIX_LENGTH = 8
"""How many first characters of a foreign key were stored in clear, to find it by."""

_HASH = re.compile(r"\$2[abxy]?\$\d\d\$[./A-Za-z0-9]{53}")
_ARGON2 = re.compile(
    r"\$argon2id\$v=19\$m=(?P<kib>\d{1,7}),t=\d{1,2},p=\d{1,2}\$[A-Za-z0-9+/]{11,86}\$[A-Za-z0-9+/]{22,86}"
)
_MOST_KIB = 1024 * 1024
_TOKEN = re.compile(r"[A-Za-z0-9]{40}")
_LLAMACTL = re.compile(r"llamactl-[0-9a-f]{64}")
UNMARKED = "llamactl"
"""Stands where the first characters of a key would, for keys of which none are known."""
_MOST_BYTES = 72
_AT_ONCE = 1
_MOST_WAITING = 32
_REMEMBERED = 10_000


def is_foreign_hash(text: str) -> bool:
    """True for a bcrypt hash, whatever its flavour, and for an Argon2id hash of at most 1 GiB."""
    return _HASH.fullmatch(text) is not None or is_unmarked(text)


def is_unmarked(foreign_hash: str) -> bool:
    """True for a hash of llamactl's, which has nothing to find its key by."""
    found = _ARGON2.fullmatch(foreign_hash)
    return found is not None and int(found["kib"]) <= _MOST_KIB


def looks_foreign(token: str) -> bool:
    """True for text in the shape of a foreign key: Cortex's 40 letters and digits, or llamactl's."""
    return _TOKEN.fullmatch(token) is not None or looks_unmarked(token)


def looks_unmarked(token: str) -> bool:
    """True for text in the shape of llamactl's keys."""
    return _LLAMACTL.fullmatch(token) is not None


class ForeignSecrets:
    """Compares secrets with foreign hashes, one at a time and off the event loop.

    One comparison takes up to a quarter of a second of a core, so what failed once is remembered, and who
    comes while many wait is not compared at all.
    """

    def __init__(self) -> None:
        self._argon2 = PasswordHasher()
        self._waiting = 0
        self._working = asyncio.Semaphore(_AT_ONCE)
        self._failed: OrderedDict[str, None] = OrderedDict()

    async def matches(self, foreign_hash: str, secret: str) -> bool:
        """True where this is the secret. Only its first 72 bytes count, as bcrypt has it."""
        given = secret.encode("utf-8", "surrogatepass")
        tried = hashlib.sha256(foreign_hash.encode() + b"\0" + given).hexdigest()
        if tried in self._failed or self._waiting >= _MOST_WAITING:
            return False
        self._waiting += 1
        try:
            async with self._working:
                found = await asyncio.to_thread(self._compare, foreign_hash, given)
        finally:
            self._waiting -= 1
        if not found:
            self._failed[tried] = None
            if len(self._failed) > _REMEMBERED:
                self._failed.popitem(last=False)
        return found

    def _compare(self, foreign_hash: str, given: bytes) -> bool:
        """Blocking."""
        try:
            if is_unmarked(foreign_hash):
                return self._argon2.verify(foreign_hash, given)
            return bcrypt.checkpw(given[:_MOST_BYTES], foreign_hash.encode())
        except (ValueError, Argon2Error, InvalidHashError):  # no match, no hash, or a NUL character
            return False

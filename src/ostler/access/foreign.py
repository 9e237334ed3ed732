"""Secrets that came from another system as bcrypt hashes: checked once, then kept as ours are."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections import OrderedDict

import bcrypt

PREFIX_LENGTH = 8
"""How many first characters of a foreign key were stored in clear, to find it by."""

_HASH = re.compile(r"\$2[abxy]?\$\d\d\$[./A-Za-z0-9]{53}")
_TOKEN = re.compile(r"[A-Za-z0-9]{40}")
_MOST_BYTES = 72
_AT_ONCE = 1
_REMEMBERED = 10_000


def is_foreign_hash(text: str) -> bool:
    """True for a bcrypt hash, whatever its flavour."""
    return _HASH.fullmatch(text) is not None


def looks_foreign(token: str) -> bool:
    """True for text in the shape of a foreign key: 40 letters and digits."""
    return _TOKEN.fullmatch(token) is not None


class ForeignSecrets:
    """Compares secrets with foreign hashes, one at a time and off the event loop.

    One comparison takes a quarter of a second of a core, so what failed once is remembered.
    """

    def __init__(self) -> None:
        self._working = asyncio.Semaphore(_AT_ONCE)
        self._failed: OrderedDict[str, None] = OrderedDict()

    async def matches(self, foreign_hash: str, secret: str) -> bool:
        """True where this is the secret. Only its first 72 bytes count, as bcrypt has it."""
        given = secret.encode("utf-8", "surrogatepass")
        tried = hashlib.sha256(foreign_hash.encode() + b"\0" + given).hexdigest()
        if tried in self._failed:
            return False
        async with self._working:
            try:
                found = await asyncio.to_thread(bcrypt.checkpw, given[:_MOST_BYTES], foreign_hash.encode())
            except ValueError:  # a hash that is none, or a secret with a NUL character
                found = False
        if not found:
            self._failed[tried] = None
            if len(self._failed) > _REMEMBERED:
                self._failed.popitem(last=False)
        return found

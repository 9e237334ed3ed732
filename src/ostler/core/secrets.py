"""The server's own secret, and what is derived from it."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from pathlib import Path


class ServerSecret:
    """32 random bytes kept in the data directory (mode 0600), made at first use.

    From it come the engines' internal API keys and the signatures of session cookies, so neither
    is stored anywhere and both survive a restart.
    """

    def __init__(self, value: bytes) -> None:
        self._value = value

    @classmethod
    def load(cls, path: Path) -> ServerSecret:
        """Read the secret, or make it. Raises OSError where the folder cannot be written."""
        try:
            return cls(bytes.fromhex(path.read_text().strip()))
        except FileNotFoundError:
            value = secrets.token_bytes(32)
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except FileExistsError:
                return cls.load(path)
            with os.fdopen(fd, "w") as file:
                file.write(value.hex())
            return cls(value)

    def derive(self, purpose: str) -> str:
        """A key for one purpose ("engine:12"), 64 hex digits, HMAC-SHA256."""
        return hmac.new(self._value, purpose.encode(), hashlib.sha256).hexdigest()

    def engine_key(self, instance_id: int) -> str:
        """The internal key of one engine: derived, so stored nowhere and the same after a restart."""
        return self.derive(f"engine:{instance_id}")

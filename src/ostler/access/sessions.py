"""Browser sessions: signed cookies, nothing stored.

A cookie holds the person's id, the epoch of their sessions, when it ends and a nonce, signed with
HMAC-SHA256 by a key from the server's secret. The CSRF token is another HMAC over the same nonce:
a page that cannot read our answers cannot know it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from ostler.access.users import User, Users
from ostler.core.clock import Clock
from ostler.core.secrets import ServerSecret

COOKIE = "ostler_session"
CORTEX_COOKIE = "cortex_session"
COOKIES = (COOKIE, CORTEX_COOKIE)
"""Names under which a session comes: ours, and the one that Cortex's clients know."""

LIFETIME = timedelta(days=7)
MAX_COOKIE = 1_024


@dataclass(frozen=True, slots=True)
class Session:
    """A person who is signed in. `csrf_token` belongs into the header X-CSRF-Token."""

    user: User
    expires_at: datetime
    csrf_token: str


class Sessions:
    """Makes and reads session cookies."""

    def __init__(self, secret: ServerSecret, clock: Clock, users: Users) -> None:
        self._cookie_key = secret.derive("session-cookie").encode()
        self._csrf_key = secret.derive("session-csrf").encode()
        self._clock = clock
        self._users = users

    def open(self, user: User, lifetime: timedelta = LIFETIME) -> tuple[str, Session]:
        """A cookie value for this person, and the session that it means."""
        nonce = secrets.token_urlsafe(16)
        expires_at = (self._clock.now() + lifetime).replace(microsecond=0)
        content = {"u": user.id, "e": user.session_epoch, "x": int(expires_at.timestamp()), "n": nonce}
        body = base64.urlsafe_b64encode(json.dumps(content, separators=(",", ":")).encode()).decode()
        cookie = f"{body}.{_sign(self._cookie_key, body)}"
        return cookie, Session(user, expires_at, _sign(self._csrf_key, nonce))

    def read(self, cookie: str) -> Session | None:
        """The session behind a cookie; None if it is forged, over, or its person may not come in."""
        body, dot, signature = cookie.rpartition(".")
        if not dot or len(cookie) > MAX_COOKIE:
            return None
        if not hmac.compare_digest(_sign(self._cookie_key, body).encode(), signature.encode()):
            return None
        try:
            content = json.loads(base64.urlsafe_b64decode(body))
            user_id, epoch = int(content["u"]), int(content["e"])
            expires, nonce = int(content["x"]), str(content["n"])
        except (ValueError, KeyError, TypeError, binascii.Error):
            return None
        user = self._users.find(user_id)
        if user is None or user.disabled or user.session_epoch != epoch:
            return None
        now = self._clock.now()
        expires_at = datetime.fromtimestamp(expires, tz=now.tzinfo)
        if expires_at <= now:
            return None
        return Session(user, expires_at, _sign(self._csrf_key, nonce))

    def csrf_matches(self, session: Session, token: str | None) -> bool:
        """True when the token belongs to this session, compared in constant time."""
        return token is not None and hmac.compare_digest(session.csrf_token.encode(), token.encode())


def _sign(key: bytes, text: str) -> str:
    digest = hmac.new(key, text.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

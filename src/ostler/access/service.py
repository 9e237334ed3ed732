"""Who asks: from a request's headers to a principal, in memory and without waiting."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta

from argon2 import PasswordHasher
from sqlalchemy.exc import SQLAlchemyError

from ostler.access.addresses import client_address, networks_of
from ostler.access.attempts import Attempts
from ostler.access.browser import (
    check_browser,
    host_name,
    is_loopback_name,
    origin_allowed,
    origin_named,
    same_origin,
)
from ostler.access.headers import Credentials, RawHeaders, read_credentials
from ostler.access.key_records import KeyNameTaken
from ostler.access.keys import Keys, looks_like_key
from ostler.access.limits import Limiter
from ostler.access.oidc.identities import Identities
from ostler.access.oidc.service import OidcSignIn
from ostler.access.organisations import Organisations
from ostler.access.sessions import LIFETIME, Session, Sessions
from ostler.access.users import User, Users, WrongPassword
from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.errors import NotAllowed, Unauthenticated
from ostler.core.events import EventLog, NewEvent
from ostler.core.principals import LOCAL_ADMIN, SYSTEM, Principal, Role
from ostler.core.secrets import ServerSecret
from ostler.core.settings import Settings

log = logging.getLogger(__name__)

FIRST_KEY = "admin"
UPKEEP_S = 10.0
"""How often the last use of keys is written, and what other control planes changed is read."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class UnknownKey(Unauthenticated):
    """The key is not one of ours, or was revoked."""

    hint = "Check the key; an administrator makes a new one with: ostler keys create NAME"


class MissingCsrfToken(NotAllowed):
    """A browser session asks for a change without its CSRF token."""

    hint = "Send the csrf_token of GET /ostler/v1/session in the header X-CSRF-Token."


class Access:
    """Keys, people, sessions and limits of one server.

    `settings` gives the settings that hold now. Call `start` before the first request.
    """

    def __init__(
        self,
        database: Database,
        events: EventLog,
        clock: Clock,
        secret: ServerSecret,
        settings: Callable[[], Settings],
        *,
        hasher: PasswordHasher | None = None,
    ) -> None:
        self.keys = Keys(database, events, clock)
        self.users = Users(database, events, clock, hasher)
        self.organisations = Organisations(database, events, clock)
        self.sessions = Sessions(secret, clock, self.users)
        self.oidc = OidcSignIn(settings, Identities(database, self.users), secret, clock)
        self.limiter = Limiter(clock)
        self._attempts = Attempts(clock)
        self._events = events
        self._settings = settings
        self._upkeep: asyncio.Task[None] | None = None
        self.keys.on_revoke(self.limiter.forget)

    async def start(self) -> None:
        """Read keys and people into memory and begin the upkeep."""
        await self._refresh()
        self._upkeep = asyncio.create_task(self._keep_up(), name="access upkeep")

    def begin_day(self, used: Mapping[int, tuple[int, int]]) -> None:
        """Requests and tokens by key id that were used today before this server was started."""
        for principal in self.keys.principals():
            if principal.key_id is not None and (spent := used.get(principal.key_id)):
                self.limiter.begin_day(principal, *spent)

    async def close(self) -> None:
        """End the upkeep and write what is still in memory."""
        if self._upkeep is not None:
            self._upkeep.cancel()
            with suppress(asyncio.CancelledError):
                await self._upkeep
            self._upkeep = None
        await self.keys.write_used()
        await self.oidc.close()

    def admit(
        self,
        headers: RawHeaders,
        method: str = "GET",
        peer: str | None = None,
        *,
        trust_origin: bool = False,
    ) -> Principal:
        """Check for foreign pages, then say who asks. For every door's every request.

        `peer` is the address that connected. `trust_origin`: a session may change things without a CSRF
        token where the browser says that a page of this server, or an allowed one, asks; for dialects
        whose web pages know no such token. Raises ForeignHost, ForeignOrigin, Unauthenticated,
        MissingCsrfToken, WrongAddress.
        """
        given = read_credentials(headers)
        self.check_browser(given)
        return self.authenticate(given, method, peer, trust_origin=trust_origin)

    @property
    def has_foreign_keys(self) -> bool:
        """True while there are keys of another system that were not used here yet."""
        return self.keys.has_foreign

    async def recognise(self, headers: RawHeaders) -> None:
        """Before `admit`, where `has_foreign_keys`: take over a key of another system at its first use."""
        token = read_credentials(headers).token
        if token is not None:
            await self.keys.adopt(token)

    def client_address(self, given: Credentials, peer: str | None) -> str | None:
        """Where a request comes from, behind the proxies that the settings trust."""
        proxies = self._settings().trusted_proxies
        return client_address(peer, given.forwarded_for, networks_of(proxies)) if proxies else peer

    def check_browser(self, given: Credentials) -> None:
        """Refuse requests that a foreign web page could have caused, where the server is on loopback."""
        settings = self._settings()
        if settings.is_loopback:
            check_browser(
                given.host,
                given.origin,
                allowed_hosts=settings.allowed_hosts,
                allowed_origins=settings.allowed_origins,
            )

    def authenticate(
        self,
        given: Credentials | str | None,
        method: str = "GET",
        peer: str | None = None,
        *,
        trust_origin: bool = False,
    ) -> Principal:
        """Who asks, by credentials or a bare token.

        On loopback, one without a key, or with a placeholder such as "sk-xxx", is the local person.
        A stored key always counts as itself; one that looks like ours and is not stored was revoked.
        Raises Unauthenticated (KeyExpired, KeyDisabled, UnknownKey), MissingCsrfToken, WrongAddress.
        """
        if not isinstance(given, Credentials):
            given = Credentials(token=given)
        if given.token is not None:
            principal = self.keys.principal_of(given.token, self.client_address(given, peer))
            if principal is not None:
                return principal
            if looks_like_key(given.token):
                raise UnknownKey("this key is not known here, or it was revoked")
        session = self.session_of(given)
        if session is not None:
            if not (trust_origin and self._is_own_page(given)):
                self._check_csrf(session, given, method)
            return session.user.principal
        if self._is_local(given):
            return LOCAL_ADMIN
        if given.token is not None:
            raise UnknownKey("this key is not known here")
        raise Unauthenticated("this server needs a key")

    def session_of(self, given: Credentials) -> Session | None:
        """The session that a request comes with; None where there is none that holds."""
        found = (self.sessions.read(cookie) for cookie in given.session_cookies)
        return next((session for session in found if session is not None), None)

    async def sign_in(
        self, name: str, password: str, address: str, *, lifetime: timedelta = LIFETIME
    ) -> tuple[str, Session]:
        """Open a session: the cookie's value and the session. Raises WrongPassword, RateLimited."""
        self._attempts.check(name, address)
        try:
            user = await self.users.verify(name, password)
        except WrongPassword:
            self._attempts.failed(name, address)
            log.warning("a sign-in as %.100r from %s failed", name, address)
            raise
        self._attempts.succeeded(name, address)
        return await self._open_session(user, lifetime)

    async def sign_in_by_provider(
        self, answer: Mapping[str, str], cookie: str | None
    ) -> tuple[str, Session, str]:
        """End a sign-in that `oidc.begin` began: cookie, session, and the own path to go on to.

        Raises what `OidcSignIn.finish` raises.
        """
        user, then = await self.oidc.finish(answer, cookie)
        return (*await self._open_session(user, LIFETIME), then)

    async def _open_session(self, user: User, lifetime: timedelta) -> tuple[str, Session]:
        await self._events.record(NewEvent("user.signed_in", "user", user.id, user.name, user.name))
        return self.sessions.open(user, lifetime)

    async def ensure_first_admin_key(self) -> str | None:
        """On an address that others can reach: make an admin key if nobody could come in.

        Gives the key, to be printed once, alone on its line; None where none was needed.
        """
        if self._settings().is_loopback or await self.keys.has_admin() or await self.users.has_admin():
            return None
        try:
            _, token = await self.keys.create(FIRST_KEY, Role.ADMIN, SYSTEM)
        except KeyNameTaken:
            if await self.keys.has_admin():
                return None
            _, token = await self.keys.create(f"{FIRST_KEY}-2", Role.ADMIN, SYSTEM)
        return token

    def _is_local(self, given: Credentials) -> bool:
        """True for the person at this machine; never through a proxy or under another name."""
        if not self._settings().is_loopback or given.proxied:
            return False
        return given.host is None or is_loopback_name(host_name(given.host))

    def _is_own_page(self, given: Credentials) -> bool:
        """True where a browser says that a page of this server, or one of an allowed origin, asks."""
        if given.fetch_site == "same-origin":
            return True
        return given.origin is not None and (
            same_origin(given.origin, given.host) or self.may_read(given.origin)
        )

    def may_read(self, origin: str) -> bool:
        """True for a page that may read the answers: on loopback one of this machine, and those allowed."""
        settings = self._settings()
        allowed = origin_allowed if settings.is_loopback else origin_named
        return allowed(origin, settings.allowed_origins)

    def _check_csrf(self, session: Session, given: Credentials, method: str) -> None:
        if method.upper() not in _SAFE and not self.sessions.csrf_matches(session, given.csrf_token):
            raise MissingCsrfToken("a change from a browser session needs its CSRF token")

    async def _refresh(self) -> None:
        await self.keys.refresh()
        await self.users.refresh()

    async def _keep_up(self) -> None:
        while True:
            await asyncio.sleep(UPKEEP_S)
            try:
                await self.keys.write_used()
                await self._refresh()
            except (SQLAlchemyError, OSError) as error:
                log.warning("access upkeep failed and is tried again: %s", error)

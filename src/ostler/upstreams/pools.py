"""Upstreams that Ostler does not start: engines elsewhere, named by the settings or by an administrator.

Each says at `/v1/models` which models it serves; those names are routed to it, several upstreams with one
name share the work. Ostler's own models come first. A name that nobody serves is an error, never sent to
whoever is there. Start reading at `Pools.find`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError

from ostler.core.clock import Clock
from ostler.core.errors import Busy
from ostler.core.settings import Settings
from ostler.upstreams.breaker import Breaker
from ostler.upstreams.entries import External

log = logging.getLogger(__name__)

PROBE_TIMEOUT = timedelta(seconds=3)
DISCOVER_EVERY_S = 60.0
HISTORY = 50
BODY_BYTES = 1024 * 1024
MAX_NAMES = 1_000


class NoUpstream(Busy):
    """The name is known, and none of its upstreams takes requests now."""

    hint = "See what they say: GET /ostler/v1/upstreams"


@dataclass(frozen=True, slots=True)
class Probe:
    """One look at an upstream. `status` None: it could not be reached. `latency_s` in seconds."""

    at: datetime
    ok: bool
    status: int | None
    latency_s: float


@dataclass(frozen=True, slots=True)
class ExternalModel:
    """A model that others serve, as the gateway routes to it. It has no id: it is no recipe of ours."""

    name: str
    engine: str
    id: None = None
    request_defaults: Mapping[str, Any] = field(default_factory=dict)


class Member:
    """One upstream. `names` are the models that it serves: told by it, or given by a person.

    `times_lost` counts how often it answered and then no more.
    """

    def __init__(self, url: str, engine: str, task: str, breaker: Breaker) -> None:
        self.url = url
        self.engine = engine
        self.task = task
        self.breaker = breaker
        self.given: frozenset[str] = frozenset()
        self.told: frozenset[str] = frozenset()
        self.history: deque[Probe] = deque(maxlen=HISTORY)
        self.in_flight = 0
        self.times_lost = 0
        self.discovered_at = float("-inf")

    @property
    def names(self) -> frozenset[str]:
        """Every name that leads here."""
        return self.given | self.told

    def serves(self, name: str) -> bool:
        """True for a name that leads here."""
        return name in self.given or name in self.told

    @property
    def healthy(self) -> bool | None:
        """What the last look said; None before the first."""
        return self.history[-1].ok if self.history else None


class PoolLease:
    """One request to one upstream; release it, always."""

    served_name: str | None = None

    def __init__(self, member: Member, api_key: str | None) -> None:
        self._member: Member | None = member
        self.base_url = member.url
        self.engine = member.engine
        self.api_key = api_key
        member.in_flight += 1
        member.breaker.begin()

    def release(self, *, broken: bool = False, answered: bool = True) -> None:
        """The request is over. `broken`: the upstream failed; `answered`: it said something."""
        member, self._member = self._member, None
        if member is None:
            return
        member.in_flight -= 1
        if broken:
            member.breaker.failed()
        elif answered:
            member.breaker.succeeded()
        else:
            member.breaker.left()


class Pools:
    """The upstreams of the settings and those that `externals` names (read anew at each look)."""

    def __init__(
        self,
        settings: Callable[[], Settings],
        clock: Clock,
        externals: Callable[[], Iterable[External]],
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._externals = externals
        self._members: dict[str, Member] = {}
        self._client: Client | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look after the upstreams."""
        builder = ClientBuilder().no_proxy().follow_redirects(False).error_for_status(False)
        self._client = builder.timeout(PROBE_TIMEOUT).build()
        self._task = asyncio.create_task(self._look_after(), name="upstreams")

    async def close(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._client is not None:
            await self._client.close()
            self._client = None

    @property
    def members(self) -> list[Member]:
        """Every upstream, by URL."""
        self._sync()
        return [self._members[url] for url in sorted(self._members)]

    def find(self, name: str) -> ExternalModel | None:
        """The model of that name, if an upstream serves it."""
        for member in self._members.values():
            if member.serves(name):
                return ExternalModel(name, member.engine)
        return None

    def all(self) -> list[ExternalModel]:
        """Every model that some upstream serves, by name."""
        found: dict[str, ExternalModel] = {}
        for member in self._members.values():
            for name in member.names:
                found.setdefault(name, ExternalModel(name, member.engine))
        return [found[name] for name in sorted(found)]

    def has_other(self, name: str, tried: Iterable[str]) -> bool:
        """True if an upstream of that name may take requests that is not among the tried URLs."""
        return any(m.serves(name) and m.breaker.allows and m.url not in tried for m in self._members.values())

    def lease(self, name: str, without: Iterable[str] = ()) -> PoolLease:
        """The right to send one request to the least busy upstream that may take it.

        Healthy ones come first; `without` leaves out URLs that were tried. Raises NoUpstream.
        """
        serving = [member for member in self._members.values() if member.serves(name)]
        able = [m for m in serving if m.breaker.allows and m.url not in without]
        if not able:
            wait_s = min((m.breaker.retry_after_s for m in serving), default=0.0)
            raise NoUpstream(f"no upstream of {name} takes requests now", retry_after_s=max(1.0, wait_s))
        chosen = min(able, key=lambda member: (member.healthy is False, member.in_flight))
        key = self._settings().upstream_api_key
        return PoolLease(chosen, key.get_secret_value() if key else None)

    async def look(self, urls: Iterable[str] | None = None) -> None:
        """Look at the upstreams now: all, or those with these URLs."""
        wanted = set(urls) if urls is not None else None
        chosen = [m for m in self.members if wanted is None or m.url in wanted]
        await asyncio.gather(*(self._look_at(member) for member in chosen))

    async def _look_after(self) -> None:
        while True:
            try:
                await self.look()
            except Exception:
                log.exception("the upstreams could not be looked at; the next try follows")
            await asyncio.sleep(self._settings().upstream_poll_s)

    def _sync(self) -> None:
        """Bring the members up to date with the settings and the entries."""
        settings = self._settings()
        wanted: dict[str, tuple[str, str]] = {}
        for urls, engine, task in (
            (settings.vllm_gen_urls, "vllm", "generate"),
            (settings.vllm_emb_urls, "vllm", "embed"),
            (settings.llamacpp_gen_urls, "llamacpp", "generate"),
        ):
            wanted |= {url.rstrip("/"): (engine, task) for url in urls}
        given: dict[str, set[str]] = {}
        for external in self._externals():
            wanted.setdefault(external.url, (external.engine, external.task))
            given.setdefault(external.url, set()).add(external.name)
        for url in [url for url in self._members if url not in wanted]:
            del self._members[url]
        for url, (engine, task) in wanted.items():
            if url not in self._members:
                self._members[url] = Member(url, engine, task, self._breaker())
            self._members[url].given = frozenset(given.get(url, ()))

    def _breaker(self) -> Breaker:
        return Breaker(
            self._clock.monotonic,
            lambda: self._settings().breaker_failures,
            lambda: self._settings().breaker_cooldown_s,
        )

    async def _look_at(self, member: Member) -> None:
        began = self._clock.monotonic()
        status, _ = await self._get(member, "/health")
        ok = status is not None and status < 500
        member.times_lost += member.healthy is True and not ok
        member.history.append(Probe(self._clock.now(), ok, status, self._clock.monotonic() - began))
        if ok and began - member.discovered_at >= DISCOVER_EVERY_S:
            status, body = await self._get(member, "/v1/models")
            if status == 200:
                member.told = _names_in(body)
                member.discovered_at = began

    async def _get(self, member: Member, path: str) -> tuple[int | None, bytes]:
        """Status and the beginning of the body; None where it could not be reached."""
        assert self._client is not None, "it was started"
        request = self._client.get(member.url + path).streamed_read_buffer_limit(BODY_BYTES)
        if key := self._settings().upstream_api_key:
            request = request.header("authorization", f"Bearer {key.get_secret_value()}")
        try:
            async with request.build_streamed() as response:
                return response.status, bytes(await response.body_reader.read(BODY_BYTES) or b"")
        except (PyreqwestError, ValueError) as error:
            log.debug("the upstream %s does not answer: %r", member.url, error)
            return None, b""


def _names_in(body: bytes) -> frozenset[str]:
    """The ids in an answer of `GET /v1/models`; whatever else stands there is passed over."""
    try:
        rows = json.loads(body)["data"]
        names = [row["id"] for row in rows if isinstance(row, dict) and isinstance(row.get("id"), str)]
    except (ValueError, KeyError, TypeError):
        return frozenset()
    return frozenset(name for name in names[:MAX_NAMES] if 0 < len(name) <= 300 and name.isprintable())

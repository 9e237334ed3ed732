"""What each running engine does now: requests, tokens, cache and latencies, asked of the engine itself.

Nothing here runs by itself: engines are asked when somebody asks, all at once, each for a bounded time, and
askers that come together share one look. What an engine does not tell is taken from our own account of the
requests that it got, or is None; no number is made up.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import PyreqwestError

from ostler.core.clock import Clock
from ostler.core.states import InstanceState
from ostler.engines.base import Engine, UnknownEngine
from ostler.engines.metrics import EngineMetrics, merged, read_metrics, read_slots
from ostler.engines.registry import Engines
from ostler.usage.figures import Spread, UsageFigures
from ostler.usage.filters import RequestFilter

log = logging.getLogger(__name__)

TIMEOUT_S = 2.0
FRESH_S = 1.0
AT_ONCE = 16
BODY_BYTES = 4 * 1024 * 1024
RATE_WINDOW_S = 60.0
LATENCY_WINDOW = timedelta(hours=1)


class SeenInstance(Protocol):
    """An instance, as far as it is asked for its numbers."""

    @property
    def id(self) -> int | None:
        """Its number; None where it never ran."""

    @property
    def model_id(self) -> int:
        """Its model's number."""

    @property
    def model_name(self) -> str:
        """Its model's name."""

    @property
    def engine(self) -> str:
        """Which engine it is."""

    @property
    def state(self) -> InstanceState:
        """How it stands."""

    @property
    def reason(self) -> str | None:
        """Why it stands so."""

    @property
    def url(self) -> str | None:
        """Where it listens."""

    @property
    def memory_bytes(self) -> int | None:
        """What it was seen to hold, over all devices."""

    @property
    def shares(self) -> str | None:
        """The model whose engine it uses; that one's numbers are the engine's."""


@dataclass(frozen=True, slots=True)
class EngineNumbers:
    """One instance's numbers; None is not known.

    `error` says why the engine was not read. Totals count from the engine's start. Tokens per second are
    those between this look and an earlier one, at most a minute before; the first look has none. Latencies
    are `told_by` the engine (since its start) or by the gateway (of the last hour), in seconds. Cache use is
    a share from 0 to 1. `memory_bytes` is measured, over all devices.
    """

    model_id: int
    model_name: str
    instance_id: int | None
    engine: str
    state: InstanceState
    error: str | None = None
    requests_running: float | None = None
    requests_waiting: float | None = None
    requests_swapped: float | None = None
    prompt_tokens_total: float | None = None
    generation_tokens_total: float | None = None
    prompt_tokens_per_second: float | None = None
    generation_tokens_per_second: float | None = None
    first_token_p50_s: float | None = None
    first_token_p95_s: float | None = None
    request_p50_s: float | None = None
    request_p95_s: float | None = None
    told_by: Literal["engine", "gateway"] | None = None
    kv_cache_usage_ratio: float | None = None
    cpu_kv_cache_usage_ratio: float | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class _Look:
    """The token counters of one engine at one moment (monotonic seconds)."""

    at: float
    prompt: float
    generation: float


class EngineReader:
    """Asks running engines for their numbers. `key_of` gives the internal key of an instance."""

    def __init__(
        self, engines: Engines, figures: UsageFigures, clock: Clock, key_of: Callable[[int], str]
    ) -> None:
        self._engines = engines
        self._figures = figures
        self._clock = clock
        self._key_of = key_of
        self._client: Client | None = None
        self._looks: dict[int, deque[_Look]] = {}
        self._reading = asyncio.Lock()
        self._read_at = float("-inf")
        self._last: list[EngineNumbers] = []

    async def start(self) -> None:
        """Make ready to ask."""
        builder = ClientBuilder().no_proxy().follow_redirects(False).error_for_status(False)
        self._client = builder.timeout(timedelta(seconds=TIMEOUT_S)).build()

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def read(self, instances: Iterable[SeenInstance]) -> list[EngineNumbers]:
        """The numbers of these instances, by model name. What is a second old at most counts as now."""
        async with self._reading:
            seen = sorted(instances, key=lambda one: one.model_name)
            known = [(one.instance_id, one.state) for one in self._last]
            is_fresh = self._clock.monotonic() - self._read_at < FRESH_S
            if is_fresh and known == [(one.id, one.state) for one in seen]:
                return self._last
            places = asyncio.Semaphore(AT_ONCE)
            self._last = list(await asyncio.gather(*(self._of(one, places) for one in seen)))
            self._read_at = self._clock.monotonic()
            there = {one.id for one in seen}
            self._looks = {number: looks for number, looks in self._looks.items() if number in there}
            return self._last

    async def expositions(self, instances: Iterable[SeenInstance]) -> bytes:
        """What every running engine says of itself, as one text for Prometheus; `model` says whose it is."""
        places = asyncio.Semaphore(AT_ONCE)
        running = [one for one in instances if one.state is InstanceState.RUNNING and one.shares is None]
        said = await asyncio.gather(*(self._said(one, places) for one in running))
        whole = [({"model": one.model_name}, text) for one, text in zip(running, said, strict=True) if text]
        return await asyncio.to_thread(merged, whole)

    async def _said(self, instance: SeenInstance, places: asyncio.Semaphore) -> str | None:
        async with places:
            try:
                return await self.exposition(instance)
            except NoNumbers as error:
                log.info("the numbers of %s are left out: %s", instance.model_name, error)
                return None

    async def exposition(self, instance: SeenInstance) -> str:
        """What the engine says at its metrics path, as it says it. Raises NoNumbers."""
        engine = self._engine(instance)
        status, body = await self._get(instance, engine.metrics_path or "")
        if status != 200:
            raise NoNumbers(_why(status, engine.metrics_path))
        return body.decode(errors="replace")

    async def _of(self, instance: SeenInstance, places: asyncio.Semaphore) -> EngineNumbers:
        if instance.state is not InstanceState.RUNNING or instance.id is None or instance.url is None:
            return _numbers(instance, error=instance.reason)
        if instance.shares is not None:
            return _numbers(instance, error=f"it shares the engine of {instance.shares}: see there")
        async with places:
            try:
                engine = self._engine(instance)
                text = await self.exposition(instance)
            except NoNumbers as error:
                return _numbers(instance, error=str(error))
            told = await asyncio.to_thread(read_metrics, text, engine.metric_names)
            cache = told.get("kv_cache_usage_ratio")
            if cache is None and engine.slots_path is not None:
                status, body = await self._get(instance, engine.slots_path)
                cache = read_slots(body) if status == 200 else None
            rates = self._rates(instance.id, told)
            latencies = await self._latencies(instance.id, told)
        return _numbers(instance, told, cache, rates, latencies)

    def _engine(self, instance: SeenInstance) -> Engine:
        try:
            engine = self._engines.get(instance.engine)
        except UnknownEngine as error:
            raise NoNumbers(error.message) from error
        if engine.metrics_path is None:
            raise NoNumbers(f"{engine.title} has no metrics")
        return engine

    async def _get(self, instance: SeenInstance, path: str) -> tuple[int | None, bytes]:
        """Status and body of one answer, at most `BODY_BYTES` of it; None where none came in time."""
        if self._client is None or instance.url is None or instance.id is None:
            return None, b""
        request = self._client.get(instance.url + path).bearer_auth(self._key_of(instance.id))
        try:
            async with asyncio.timeout(TIMEOUT_S):
                async with request.streamed_read_buffer_limit(64 * 1024).build_streamed() as response:
                    parts: list[bytes] = []
                    size = 0
                    while size < BODY_BYTES and (part := await response.body_reader.read(64 * 1024)):
                        parts.append(bytes(part))
                        size += len(part)
                    return response.status, b"".join(parts)
        except (PyreqwestError, TimeoutError, ValueError) as error:
            log.debug("the engine of %s does not tell its numbers: %r", instance.model_name, error)
            return None, b""

    def _rates(self, number: int, told: EngineMetrics) -> tuple[float | None, float | None]:
        """Tokens per second since the oldest look of the last minute."""
        now = self._clock.monotonic()
        prompt, generation = told.get("prompt_tokens_total"), told.get("generation_tokens_total")
        if prompt is None or generation is None:
            return None, None
        looks = self._looks.setdefault(number, deque(maxlen=int(RATE_WINDOW_S / FRESH_S) + 1))
        while looks and now - looks[0].at > RATE_WINDOW_S:
            looks.popleft()
        before = looks[0] if looks else None
        looks.append(_Look(now, prompt, generation))
        if before is None or now - before.at < FRESH_S / 2 or prompt < before.prompt:
            return None, None
        passed = now - before.at
        return (prompt - before.prompt) / passed, max(0.0, generation - before.generation) / passed

    async def _latencies(
        self, number: int, told: EngineMetrics
    ) -> tuple[Spread, Spread, Literal["engine", "gateway"]]:
        """First token and whole request, by the engine's histograms or else by our own account."""
        if "request_seconds" in told.histograms:
            first, whole = _spread(told, "time_to_first_token_seconds"), _spread(told, "request_seconds")
            return first, whole, "engine"
        since: datetime = self._clock.now() - LATENCY_WINDOW
        wanted = RequestFilter(instance_id=number, since=since, failed=False)
        first = await self._figures.spread("first_token_s", wanted)
        return first, await self._figures.spread("duration_s", wanted), "gateway"


class NoNumbers(Exception):
    """An engine did not tell; its text says why and may be shown to administrators."""


def _why(status: int | None, path: str | None) -> str:
    if status is None:
        return f"the engine did not answer {path} within {TIMEOUT_S:g} s"
    return f"the engine answered {status} to {path}"


def _spread(told: EngineMetrics, name: str) -> Spread:
    histogram = told.histograms.get(name)
    samples = int(max(histogram.counts.values(), default=0.0)) if histogram else 0
    return Spread(samples, None, told.quantile(name, 0.5), told.quantile(name, 0.95))


def _numbers(
    instance: SeenInstance,
    told: EngineMetrics | None = None,
    cache: float | None = None,
    rates: tuple[float | None, float | None] = (None, None),
    latencies: tuple[Spread, Spread, Literal["engine", "gateway"]] | None = None,
    *,
    error: str | None = None,
) -> EngineNumbers:
    told = told or EngineMetrics()
    first, whole, told_by = latencies or (Spread(0), Spread(0), None)
    return EngineNumbers(
        model_id=instance.model_id,
        model_name=instance.model_name,
        instance_id=instance.id,
        engine=instance.engine,
        state=instance.state,
        error=error,
        requests_running=told.get("requests_running"),
        requests_waiting=told.get("requests_waiting"),
        requests_swapped=told.get("requests_swapped"),
        prompt_tokens_total=told.get("prompt_tokens_total"),
        generation_tokens_total=told.get("generation_tokens_total"),
        prompt_tokens_per_second=rates[0],
        generation_tokens_per_second=rates[1],
        first_token_p50_s=first.p50_s,
        first_token_p95_s=first.p95_s,
        request_p50_s=whole.p50_s,
        request_p95_s=whole.p95_s,
        told_by=told_by,
        kv_cache_usage_ratio=cache,
        cpu_kv_cache_usage_ratio=told.get("cpu_kv_cache_usage_ratio"),
        memory_bytes=instance.memory_bytes,
    )

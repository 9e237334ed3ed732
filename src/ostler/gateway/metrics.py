"""What the gateway counts for Prometheus.

Counting happens on the event loop's thread into plain numbers, and becomes metric families when
somebody scrapes: a request costs a few dictionary look-ups. Labels are bounded: a route is one of the
known paths or `other`, models are those that exist.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from ostler.core.principals import Principal
from ostler.upstreams.breaker import Breaker
from ostler.usage import TokenCounts

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
MAX_SERIES = 2_000
OTHER = "other"
NOT_LET_IN = frozenset(
    {
        "unauthenticated",
        "unknown_key",
        "key_disabled",
        "key_expired",
        "wrong_address",
        "missing_csrf_token",
        "foreign_host",
        "foreign_origin",
    }
)
"""Codes of refusals by which somebody does not come in at all."""
_Key = TypeVar("_Key")


class Member(Protocol):
    """An upstream elsewhere, as far as it is counted."""

    @property
    def url(self) -> str:
        """Its address."""

    @property
    def healthy(self) -> bool | None:
        """What the last look said."""

    @property
    def times_lost(self) -> int:
        """How often it answered and then no more."""

    @property
    def breaker(self) -> Breaker:
        """Its circuit breaker."""


class Seconds:
    """One histogram of durations."""

    __slots__ = ("buckets", "total_s")

    def __init__(self) -> None:
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def observe(self, seconds: float) -> None:
        """Count one."""
        self.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self.total_s += seconds

    def cumulative(self) -> list[tuple[str, float]]:
        """Upper bounds and how many were at most that."""
        bounds = [*(f"{bound:g}" for bound in BUCKETS_S), "+Inf"]
        so_far = 0
        rows: list[tuple[str, float]] = []
        for bound, count in zip(bounds, self.buckets, strict=True):
            so_far += count
            rows.append((bound, so_far))
        return rows


class GatewayMetrics(Collector):
    """The gateway's numbers, registered in the registry that is handed in."""

    def __init__(self, registry: CollectorRegistry, dropped_records: Callable[[], int] = lambda: 0) -> None:
        self._requests: dict[tuple[str, int], int] = {}
        self._durations: dict[str, Seconds] = {}
        self._upstream: dict[str, Seconds] = {}
        self._by_engine: dict[tuple[str, str], Seconds] = {}
        self._by_address: dict[tuple[str, str], Seconds] = {}
        self._chosen: dict[tuple[str, str, str], int] = {}
        self._first: dict[str, Seconds] = {}
        self._tokens: dict[tuple[str, str], int] = {}
        self._blocked: dict[str, int] = {}
        self._engine_errors: dict[str, int] = {}
        self._succeeded: dict[tuple[str, str], int] = {}
        self._retries: dict[str, int] = {}
        self._let_in: dict[str, int] = {}
        self._limited: dict[str, int] = {}
        self._timeouts: dict[tuple[str, str, str], int] = {}
        self.cancellations = 0
        self.within_limits = 0
        self.in_flight: Callable[[], int] = lambda: 0
        self.members: Callable[[], Iterable[Member]] = tuple
        self.known_urls: Callable[[], Collection[str]] | None = None
        self._dropped_records = dropped_records
        registry.register(self)

    def finished(self, route: str, status: int, seconds: float) -> None:
        """One request was answered."""
        key = (route, status)
        self._requests[key] = self._requests.get(key, 0) + 1
        _observe(self._durations, route, seconds)

    def engine_chosen(self, route: str, engine: str, base_url: str) -> None:
        """A request goes to this engine."""
        _add(self._chosen, (route, engine, base_url), 1)

    def engine_answered(self, route: str, seconds: float, engine: str, base_url: str) -> None:
        """An engine began its answer this long after it got the request."""
        _observe(self._upstream, route, seconds)
        _observe(self._by_engine, (route, engine), seconds)
        _observe(self._by_address, (route, base_url), seconds)

    def engine_succeeded(self, route: str, base_url: str) -> None:
        """This engine gave a whole answer, no error of its own among it."""
        _add(self._succeeded, (route, base_url), 1)

    def retried(self, route: str) -> None:
        """A request of which nothing had arrived goes to another upstream."""
        _add(self._retries, route, 1)

    def let_in(self, principal: Principal) -> None:
        """Somebody is known and may come in: by a key, by a session, or because they sit here."""
        how = (
            "key" if principal.key_id is not None else "session" if principal.user_id is not None else "local"
        )
        _add(self._let_in, how, 1)

    def rate_limited(self, *, stream: bool) -> None:
        """A request or a stream was refused because of a limit."""
        _add(self._limited, "stream" if stream else "request", 1)

    def timed_out(self, model: str, error: str, route: str) -> None:
        """A request took longer than it may."""
        _add(self._timeouts, (model, error, route), 1)

    def first_token(self, route: str, seconds: float) -> None:
        """The first piece of a stream left this long after the request came."""
        _observe(self._first, route, seconds)

    def counted(self, model: str, counts: TokenCounts) -> None:
        """An engine said how many tokens it took and made."""
        for kind, count in (("prompt", counts.prompt), ("completion", counts.completion)):
            if count:
                _add(self._tokens, (model, kind), count)

    def blocked(self, code: str) -> None:
        """A request was refused before it was routed: `rate_limited`, `unknown_key`, ..."""
        _add(self._blocked, code, 1)

    def engine_failed(self, model: str) -> None:
        """An engine broke off or could not be reached."""
        _add(self._engine_errors, model, 1)

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known only when scraped, and ours are not used by others."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Everything, for one scrape."""
        self._forget_ended()
        yield _counter("gateway_requests", "Requests answered.", ("route", "status"), self._requests)
        yield _histogram("gateway_request_latency_seconds", "Whole duration.", ("route",), self._durations)
        yield _histogram(
            "gateway_upstream_latency_seconds", "From the request to the engine to its headers.", ("path",),
            self._upstream,
        )  # fmt: skip
        yield _histogram(
            "gateway_upstream_latency_by_engine_seconds", "The same by engine.", ("path", "engine_type"),
            self._by_engine,
        )  # fmt: skip
        yield _counter(
            "gateway_upstream_selected_by_engine", "Requests sent to each engine.",
            ("path", "engine_type", "base_url"), self._chosen,
        )  # fmt: skip
        selected: dict[tuple[str, str], int] = {}
        for (path, _, base_url), count in self._chosen.items():
            selected[path, base_url] = selected.get((path, base_url), 0) + count
        where = ("path", "base_url")
        yield _histogram(
            "gateway_upstream_latency_by_upstream_seconds", "The same by address.", where, self._by_address
        )
        yield _counter("gateway_upstream_selected", "Requests sent to each address.", where, selected)
        yield _counter("gateway_upstream_success", "Whole answers without a fault.", where, self._succeeded)
        yield _counter("gateway_upstream_retries", "Requests sent on to another.", ("path",), self._retries)
        yield from self._upstreams()
        yield _histogram("gateway_stream_ttft_seconds", "To a stream's first piece.", ("path",), self._first)
        yield _counter("gateway_requests_blocked", "Refused at the door.", ("reason",), self._blocked)
        yield from self._door()
        yield CounterMetricFamily(
            "gateway_request_cancellations", "Clients that left before the end.", value=self.cancellations
        )
        yield _counter(
            "gateway_upstream_error", "Engines that broke off or were not there.", ("model",),
            self._engine_errors,
        )  # fmt: skip
        labels = ("model", "error_type", "path")
        yield _counter("gateway_timeout_errors", "Requests that took too long.", labels, self._timeouts)
        yield _counter("ostler_tokens", "Tokens, as engines count.", ("model", "kind"), self._tokens)
        yield GaugeMetricFamily(
            "ostler_requests_in_flight", "Requests now in the gateway.", value=self.in_flight()
        )
        yield CounterMetricFamily(
            "ostler_usage_dropped", "Requests that were not accounted.", value=self._dropped_records()
        )

    def _door(self) -> Iterator[Metric]:
        """Who came in, who did not, and who had to wait."""
        refused = {reason: count for reason, count in self._blocked.items() if reason in NOT_LET_IN}
        reason = ("reason",)
        yield _counter("gateway_key_auth_allowed", "Let in, by what they showed.", reason, self._let_in)
        yield _counter("gateway_key_auth_blocked", "Not let in.", reason, refused)
        yield _counter("gateway_ratelimit_blocked", "Refused for a limit.", ("type",), self._limited)
        yield CounterMetricFamily(
            "gateway_ratelimit_allowed", "Within their limits.", value=self.within_limits
        )
        yield CounterMetricFamily(
            "gateway_stream_blocked", "Streams refused for a limit.", value=self._limited.get("stream", 0)
        )

    def _forget_ended(self) -> None:
        """Take out the series of addresses where nothing listens any more: engines have new ports."""
        if self.known_urls is None:
            return
        known = set(self.known_urls())
        for chosen in [key for key in self._chosen if key[2] not in known]:
            del self._chosen[chosen]
        for answered in [key for key in self._by_address if key[1] not in known]:
            del self._by_address[answered]
        for succeeded in [key for key in self._succeeded if key[1] not in known]:
            del self._succeeded[succeeded]

    def _upstreams(self) -> Iterator[Metric]:
        """Servers elsewhere: is each there, and how often was it left alone?"""
        health = GaugeMetricFamily("gateway_upstream_health", "1: it answers.", labels=["base_url"])
        opened = CounterMetricFamily(
            "gateway_breaker_open", "How often an upstream was left alone.", labels=["base_url"]
        )
        lost = CounterMetricFamily(
            "gateway_upstream_health_degradation", "How often one stopped answering.", labels=["base_url"]
        )
        for member in self.members():
            lost.add_metric([member.url], member.times_lost)
            health.add_metric([member.url], 1.0 if member.healthy else 0.0)
            opened.add_metric([member.url], member.breaker.times_opened)
        yield health
        yield lost
        yield opened


def _observe(histograms: dict[_Key, Seconds], label: _Key, seconds: float) -> None:
    histogram = histograms.get(label)
    if histogram is None:
        histogram = histograms[label] = Seconds()
    histogram.observe(seconds)


def _add(counters: dict[_Key, int], key: _Key, count: int) -> None:
    if key in counters or len(counters) < MAX_SERIES:
        counters[key] = counters.get(key, 0) + count


def _counter(name: str, text: str, labels: Sequence[str], counts: Mapping[Any, int]) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in counts.items():
        family.add_metric(_texts(values), count)
    return family


def _histogram(name: str, text: str, labels: Sequence[str], values: Mapping[Any, Seconds]) -> Metric:
    family = HistogramMetricFamily(name, text, labels=labels)
    for value, histogram in values.items():
        family.add_metric(_texts(value), buckets=histogram.cumulative(), sum_value=histogram.total_s)
    return family


def _texts(values: Any) -> list[str]:
    """The values of labels: one, or a tuple of them."""
    return [str(value) for value in (values if isinstance(values, tuple) else (values,))]

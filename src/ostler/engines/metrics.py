"""Reading what an engine says at `/metrics` and `/slots`, under names that are the same for every engine.

Which metric of an engine has which meaning stands in `Engine.metric_names`, newest name first. The text is
Prometheus' own format and is read by Prometheus' own library
(https://prometheus.io/docs/instrumenting/exposition_formats/).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

SHARES = ("_ratio", "_per_decode")
"""How names end whose values are shares: of several engines in one server the mean counts, not the sum."""
MAX_SAMPLES = 50_000


@dataclass(frozen=True, slots=True)
class Histogram:
    """Durations as an engine counted them: `counts[bound]` were at most `bound` seconds, inf being all."""

    counts: Mapping[float, float]

    def quantile(self, share: float) -> float | None:
        """The duration in seconds that this share of all stayed below; None where nothing was counted.

        Within a bucket values are taken to be spread evenly. What lies above the last bound is said to be
        that bound, as Prometheus does (https://prometheus.io/docs/prometheus/latest/querying/functions/).
        """
        bounds = sorted(self.counts)
        total = self.counts[bounds[-1]] if bounds else 0.0
        if total <= 0 or len(bounds) < 2:
            return None
        wanted = share * total
        below, lower = 0.0, 0.0
        for bound in bounds:
            count = self.counts[bound]
            if count >= wanted:
                if math.isinf(bound):
                    return lower
                return lower + (bound - lower) * (
                    (wanted - below) / (count - below) if count > below else 1.0
                )
            below, lower = count, bound
        return lower


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """What an engine said, by our names; what it did not say is not in here."""

    values: Mapping[str, float] = field(default_factory=dict)
    histograms: Mapping[str, Histogram] = field(default_factory=dict)

    def get(self, name: str) -> float | None:
        """One number, None where the engine does not tell it."""
        return self.values.get(name)

    def quantile(self, name: str, share: float) -> float | None:
        """A quantile of one histogram in seconds, None where the engine does not tell it."""
        found = self.histograms.get(name)
        return found.quantile(share) if found is not None else None


def read_metrics(text: str, names: Mapping[str, Sequence[str]]) -> EngineMetrics:
    """Read an exposition by `Engine.metric_names`. A line that cannot be read ends the reading there."""
    wanted = {told for aliases in names.values() for told in aliases}
    plain: dict[str, list[float]] = {}
    buckets: dict[str, dict[float, float]] = {}
    for sample in _samples(text):
        if sample.name in wanted and not math.isnan(sample.value):
            plain.setdefault(sample.name, []).append(sample.value)
        elif sample.name.endswith("_bucket") and sample.name[:-7] in wanted:
            bound = _number(sample.labels.get("le"))
            if bound is not None:
                counts = buckets.setdefault(sample.name[:-7], {})
                counts[bound] = counts.get(bound, 0.0) + sample.value
    values: dict[str, float] = {}
    histograms: dict[str, Histogram] = {}
    for name, aliases in names.items():
        for told in aliases:
            if told in buckets:
                histograms[name] = Histogram(buckets[told])
            elif told in plain:
                sum_of = math.fsum(plain[told])
                values[name] = sum_of / len(plain[told]) if name.endswith(SHARES) else sum_of
            else:
                continue
            break
    return EngineMetrics(values, histograms)


def read_slots(body: bytes) -> float | None:
    """The share (0 to 1) of the context that llama.cpp's slots hold, from an answer of `/slots`.

    `n_prompt_tokens` are the tokens in a slot's cache, those that were generated among them (llama.cpp
    b11434, server-context.cpp); older builds said `n_past`. None where the answer does not tell.
    """
    try:
        slots = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(slots, list):
        return None
    held = room = 0.0
    for slot in slots:
        if not isinstance(slot, dict) or not isinstance(slot.get("n_ctx"), int):
            return None
        room += slot["n_ctx"]
        tokens = slot.get("n_prompt_tokens", slot.get("n_past", 0))
        held += tokens if isinstance(tokens, int) else 0
    return min(1.0, held / room) if room > 0 else None


def _samples(text: str) -> Iterator[Sample]:
    return (sample for family in _families(text) for sample in family.samples)


def _families(text: str) -> Iterator[Metric]:
    """Every family up to the first line that is none, or that makes it too many."""
    count = 0
    try:
        for family in text_string_to_metric_families(text):
            count += len(family.samples)
            if count > MAX_SAMPLES:
                return
            yield _as_told(family, text)
    except (ValueError, KeyError, IndexError, TypeError):  # the parser's ways to say: this is no exposition
        return


def _as_told(family: Metric, text: str) -> Metric:
    """The family under its own name: the library gives every counter the ending `_total`, theirs or not."""
    if family.type != "counter" or f"# TYPE {family.name} counter" not in text:
        return family
    told = Metric(family.name, family.documentation, "unknown")
    told.samples = [one._replace(name=one.name.removesuffix("_total")) for one in family.samples]
    return told


def _number(text: Any) -> float | None:
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def merged(said: Iterable[tuple[Mapping[str, str], str]]) -> bytes:
    """The expositions of several engines as one; each sample gets the labels that stand beside its text.

    A family that several engines have is written once, as the format wants it.
    """
    families: dict[str, Metric] = {}
    for labels, text in said:
        for family in _families(text):
            whole = families.setdefault(
                family.name, Metric(family.name, family.documentation, family.type, family.unit)
            )
            whole.samples += [one._replace(labels={**one.labels, **labels}) for one in family.samples]
    return generate_latest(_Families(families.values()))


class _Families:
    """Families that are there already, as a registry offers them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        """All of them."""
        return self._families

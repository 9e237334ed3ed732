"""The goals of `make bench`: each reads its number from the results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Results = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Goal:
    """One number with a bound. `read` raises KeyError or TypeError where it was not measured."""

    title: str
    read: Callable[[Results], float]
    limit: float
    at_most: bool = True
    unit: str = ""

    @property
    def bound(self) -> str:
        """`at most 1.5 x`."""
        return f"{'at most' if self.at_most else 'at least'} {self.limit:g}{self.unit}"

    def value(self, results: Results) -> float | None:
        """The number, None where it was not measured."""
        try:
            return float(self.read(results))
        except (KeyError, TypeError):
            return None

    def shown(self, results: Results) -> str:
        """The number with its unit."""
        value = self.value(results)
        return "-" if value is None else f"{value:.3g}{self.unit}"

    def met(self, results: Results) -> bool | None:
        """Whether the number keeps the bound; None where it was not measured."""
        value = self.value(results)
        if value is None:
            return None
        return value <= self.limit if self.at_most else value >= self.limit


MB = 1_000_000
GOALS: tuple[Goal, ...] = (
    Goal("`ostler --help`", lambda r: r["startup"]["help_s"], 0.35, unit=" s"),
    Goal("server ready after `ostler serve`", lambda r: r["startup"]["server_ready_s"], 2, unit=" s"),
    Goal("idle memory of the server", lambda r: r["startup"]["server_idle_bytes"] / MB, 200, unit=" MB"),
    Goal(
        "start to first token, more than the engine alone",
        lambda r: r["startup"]["added_to_first_token_s"],
        0.3,
        unit=" s",
    ),
    Goal(
        "GGUF header of 150,000 tokens against gguf.GGUFReader",
        lambda r: r["library"]["inspect"]["ratio"],
        0.05,
        unit=" x",
    ),
    Goal("2,000 file sets listed cold", lambda r: r["library"]["list_2000"]["cold_s"], 2, unit=" s"),
    Goal("2,000 file sets listed warm", lambda r: r["library"]["list_2000"]["warm_s"], 0.2, unit=" s"),
    Goal("500 folders named cold", lambda r: r["library"]["folders_500"]["names_s"], 1, unit=" s"),
    Goal("500 folders looked into cold", lambda r: r["library"]["folders_500"]["look_s"], 1, unit=" s"),
    Goal("first page of 10,000 aliases", lambda r: r["bodhi"]["aliases_page_s"], 0.15, unit=" s"),
    Goal("first page of 10,000 cached files", lambda r: r["bodhi"]["files_page_s"], 0.15, unit=" s"),
    Goal("first page of 10,000 automatic aliases", lambda r: r["bodhi"]["automatic_page_s"], 0.15, unit=" s"),
    Goal(
        "first page of 10,000 files of llama.cpp's cache, warm",
        lambda r: r["llamactl"]["list_10000"]["page_s"],
        0.15,
        unit=" s",
    ),
    Goal(
        "/health while 50 downloads wait and 4 run, p99",
        lambda r: r["llamactl"]["queue"]["busy_p99_ms"],
        20,
        unit=" ms",
    ),
    Goal(
        "the longest that one of 50 downloads was overtaken, in places",
        lambda r: r["llamactl"]["queue"]["most_overtaken"],
        4,
    ),
    Goal("1,000 models listed over Cortex's API", lambda r: r["cortex"]["list_s"], 0.1, unit=" s"),
    Goal(
        "start of llama.cpp in a container to `running`",
        lambda r: r["containers"]["container_s"],
        5,
        unit=" s",
    ),
    Goal(
        "download throughput against `hf download`",
        lambda r: r["downloads"]["ratio"],
        0.9,
        at_most=False,
        unit=" x",
    ),
    Goal(
        "gateway CPU per request against the bare forwarder",
        lambda r: r["gateway"]["ratios"]["cpu_to_bare_forwarder"],
        1.5,
        unit=" x",
    ),
    Goal(
        "gateway throughput against LiteLLM",
        lambda r: r["gateway"]["ratios"]["throughput_to_litellm"],
        50,
        at_most=False,
        unit=" x",
    ),
    Goal(
        "gateway memory growth from request 10,000 to 100,000",
        lambda r: r["gateway"]["ratios"]["memory_growth_percent"],
        5,
        unit=" %",
    ),
    Goal(
        "streams cut, of 256 and 1,000 at once", lambda r: r["gateway"]["ratios"]["streams_cut"], 0, unit=""
    ),
    Goal(
        "first piece of 256 streams, p50 over direct",
        lambda r: r["gateway"]["ratios"]["first_p50_ms_over_direct_at_256"],
        5,
        unit=" ms",
    ),
    Goal(
        "gaps of 256 streams, p99 over direct",
        lambda r: r["gateway"]["ratios"]["gap_p99_ms_over_direct_at_256"],
        10,
        unit=" ms",
    ),
    Goal(
        "what the gateway adds, published as vLLM against as llama.cpp",
        lambda r: r["engines"]["echo"]["difference_percent"],
        10,
        unit=" % apart",
    ),
    Goal("an estimate of memory, CPU time", lambda r: r["fit"]["slowest"]["one_ms"], 10, unit=" ms"),
    Goal(
        "estimates for 20 context lengths, CPU time",
        lambda r: r["fit"]["slowest"]["sweep_of_20_ms"],
        50,
        unit=" ms",
    ),
)

"""What engines say of themselves, as real ones said it (`recorded/`) and as broken ones might."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from ostler.engines.llamacpp import LlamaCpp
from ostler.engines.metrics import Histogram, merged, read_metrics, read_slots
from ostler.engines.vllm import Vllm

RECORDED = Path(__file__).parent / "recorded"
LLAMA_SERVER = (RECORDED / "llama-server-b11434.txt").read_text()
VLLM = (RECORDED / "vllm-0.32.0.txt").read_text()


def test_a_real_llama_servers_numbers_are_read() -> None:
    told = read_metrics(LLAMA_SERVER, LlamaCpp.metric_names)
    assert (told.get("prompt_tokens_total"), told.get("generation_tokens_total")) == (7, 27)
    assert told.get("cached_prompt_tokens_total") == 8
    assert (told.get("requests_running"), told.get("requests_waiting")) == (0, 0)
    assert told.get("longest_context_tokens") == 13
    assert told.get("kv_cache_usage_ratio") is None


def test_a_real_vllms_numbers_are_read() -> None:
    told = read_metrics(VLLM, Vllm.metric_names)
    assert (told.get("requests_running"), told.get("requests_waiting")) == (0, 0)
    assert told.get("prompt_tokens_total") and told.get("generation_tokens_total")
    assert told.get("kv_cache_usage_ratio") == 0
    first, whole = (
        told.quantile("time_to_first_token_seconds", 0.5),
        told.quantile("request_seconds", 0.95),
    )
    assert first is not None and whole is not None and 0 < first <= whole < 600


def test_a_number_with_an_exponent_is_whole() -> None:
    text = "# TYPE vllm:prompt_tokens_total counter\nvllm:prompt_tokens_total 1.2e+06\n"
    assert read_metrics(text, Vllm.metric_names).get("prompt_tokens_total") == 1_200_000


def test_the_newest_name_that_is_there_counts() -> None:
    old = "vllm:gpu_cache_usage_perc 0.25\n"
    assert read_metrics(old, Vllm.metric_names).get("kv_cache_usage_ratio") == 0.25
    both = old + "vllm:kv_cache_usage_perc 0.5\n"
    assert read_metrics(both, Vllm.metric_names).get("kv_cache_usage_ratio") == 0.5


def test_several_engines_in_one_server_are_added_up_and_shares_are_means() -> None:
    text = (
        'vllm:num_requests_running{engine="0"} 2\nvllm:num_requests_running{engine="1"} 3\n'
        'vllm:kv_cache_usage_perc{engine="0"} 0.2\nvllm:kv_cache_usage_perc{engine="1"} 0.4\n'
    )
    told = read_metrics(text, Vllm.metric_names)
    assert told.get("requests_running") == 5
    assert told.get("kv_cache_usage_ratio") == pytest.approx(0.3)


def test_a_quantile_lies_within_its_bucket() -> None:
    counts = {0.1: 10.0, 0.2: 30.0, 0.4: 40.0, math.inf: 40.0}
    assert Histogram(counts).quantile(0.5) == pytest.approx(0.15)
    assert Histogram(counts).quantile(0.95) == pytest.approx(0.36)
    assert Histogram(counts).quantile(0.25) == pytest.approx(0.1)
    assert Histogram({0.1: 0.0, math.inf: 4.0}).quantile(0.95) == 0.1
    assert Histogram({0.1: 0.0, math.inf: 0.0}).quantile(0.5) is None
    assert Histogram({}).quantile(0.5) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>nothing here</html>",
        "vllm:num_requests_running",
        'vllm:num_requests_running{engine="0} 1',
        "vllm:num_requests_running one",
        "\0\x01\x02",
        "{" * 10_000,
        "vllm:num_requests_running NaN\n",
    ],
)
def test_what_is_no_exposition_tells_nothing(text: str) -> None:
    assert read_metrics(text, Vllm.metric_names).values == {}


def test_what_stood_before_a_broken_line_counts() -> None:
    told = read_metrics("vllm:num_requests_running 4\nvllm:num_requests_waiting {{{\n", Vllm.metric_names)
    assert told.get("requests_running") == 4


def test_slots_tell_how_much_of_the_context_is_held() -> None:
    slots = [{"n_ctx": 1024, "n_prompt_tokens": 256}, {"n_ctx": 1024}]
    assert read_slots(json.dumps(slots).encode()) == 0.125
    assert read_slots(b'[{"n_ctx": 100, "n_past": 50}]') == 0.5
    for other in (b"", b"[]", b"{}", b"[1]", b'[{"n_ctx": "x"}]', b"[" * 100_000):
        assert read_slots(other) is None


def test_several_expositions_are_one_with_each_family_once() -> None:
    whole = merged([({"model": "a"}, LLAMA_SERVER), ({"model": "b"}, LLAMA_SERVER), ({"model": "c"}, VLLM)])
    lines = whole.decode().splitlines()
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert 'llamacpp:prompt_tokens_total{model="a"} 7.0' in lines
    assert 'llamacpp:prompt_tokens_total{model="b"} 7.0' in lines
    assert 'llamacpp:n_tokens_max{model="a"} 13.0' in lines
    assert any(line.startswith("vllm:num_requests_running{") and 'model="c"' in line for line in lines)

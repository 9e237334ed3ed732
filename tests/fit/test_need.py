"""What a start needs of each device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ostler.fit.need import need_of
from ostler.fit.plain import plain_needs as estimate
from ostler.fit.pretend import pretended
from ostler.library.facts import ModelFacts
from ostler.library.loose import inspect_loose

NO_GPU = pretended("cpu:1GiB")
GPUS = pretended("2GiB,1GiB,cpu:1GiB")


@pytest.fixture(scope="module")
def facts(demo_model: Path) -> ModelFacts:
    found = inspect_loose(demo_model).facts
    assert found is not None
    return found


def test_without_a_gpu_all_of_it_is_on_the_host(facts: ModelFacts) -> None:
    assert need_of(facts, {}, NO_GPU, {}).by_device == {"cpu": estimate(facts, {}).total_bytes}


@pytest.mark.parametrize("options", [{"gpu_layers": 0}, {"devices": ["none"]}])
def test_no_layers_on_a_gpu_means_the_host(facts: ModelFacts, options: dict[str, Any]) -> None:
    assert list(need_of(facts, options, GPUS, {}).by_device) == ["cpu"]


def test_layers_on_gpus_are_shared_out_by_their_size(facts: ModelFacts) -> None:
    need = need_of(facts, {"gpu_layers": "all"}, GPUS, {}).by_device
    assert need["cuda:0"] == pytest.approx(2 * need["cuda:1"], rel=0.01)
    total = estimate(facts, {}).total_bytes
    assert sum(need.values()) == pytest.approx(total, abs=3)
    half = need_of(facts, {"gpu_layers": (facts.block_count or 0) // 2}, GPUS, {}).by_device
    assert 0 < half["cuda:0"] + half["cuda:1"] < half["cpu"] + total / 2


def test_one_gpu_can_be_named(facts: ModelFacts) -> None:
    options = {"gpu_layers": "all", "split_mode": "none", "main_gpu": 1}
    assert set(need_of(facts, options, GPUS, {}).by_device) <= {"cuda:1", "cpu"}


def test_what_gpus_cannot_hold_falls_to_the_host_only_where_the_options_leave_it_open(
    facts: ModelFacts,
) -> None:
    tiny = pretended("1MiB,cpu:1GiB")
    assert need_of(facts, {}, tiny, {}).by_device["cuda:0"] == 2**20
    assert need_of(facts, {}, tiny, {"": 2**19}).by_device["cuda:0"] == 2**19
    assert need_of(facts, {"gpu_layers": "all"}, tiny, {}).by_device["cuda:0"] > 2**20


def test_what_files_do_not_say_is_not_made_up(facts: ModelFacts) -> None:
    for unknown in (None, replace(facts, n_heads=None, n_kv_heads=None), replace(facts, embedding_length=0)):
        need = need_of(unknown, {}, GPUS, {})
        assert not need.is_known and need.unknown_why and need.by_device == {}


def test_an_open_context_length_comes_down_as_the_engine_brings_it_down(facts: ModelFacts) -> None:
    host = pretended("cpu:3GiB")
    long = replace(facts, context_length=50_000_000)
    need = need_of(long, {}, host, {})
    assert need.shortened_to is not None and need.shortened_to > 4096
    assert 2**31 - 10_000 < need.by_device["cpu"] <= 2**31, "what it has in all, less 1 GiB"
    for options in ({"context_length": 50_000_000}, {"fit": "off"}):
        assert need_of(long, options, host, {}).by_device["cpu"] > 90 * 2**30
    assert need_of(long, {"fit_ctx": 40_000_000}, host, {}).shortened_to == 40_000_000, "the shortest it may"
    assert need_of(facts, {}, host, {}).shortened_to is None


def test_where_the_gpu_takes_from_the_host_its_bytes_stand_on_both_and_are_summed_once(
    facts: ModelFacts,
) -> None:
    devices = pretended("48GiB unified + 64GiB host")
    alone = need_of(facts, {}, devices, {})
    need = alone.pooled(devices)
    assert need.by_device["cpu"] == sum(alone.by_device.values()) == need.total_bytes
    assert need.by_device["vulkan:0"] == alone.by_device["vulkan:0"]
    assert alone.pooled([]) == alone


def test_a_gpu_gets_no_more_than_its_pool_has_left_after_the_reserve(facts: ModelFacts) -> None:
    devices = pretended("64MiB unified")
    need = need_of(replace(facts, weights_bytes=10**9), {}, devices, {"": 60 * 2**20})
    assert need.by_device["vulkan:0"] <= 4 * 2**20

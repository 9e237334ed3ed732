"""What a start needs of each device."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ostler.fit.model_shape import ModelShape
from ostler.fit.need import need_for
from ostler.fit.pretend import pretended
from ostler.library.gguf import read_gguf_header
from tests.fit.estimates import estimate
from tests.fit.hf_models import LLAMA_8B, SMALL, shape_of

NO_GPU = pretended("cpu:1GiB")
GPUS = pretended("2GiB,1GiB,cpu:1GiB")
GIB = 1 << 30


@pytest.fixture(scope="module")
def shape(demo_model: Path) -> ModelShape:
    return ModelShape.of([read_gguf_header(demo_model)])


def test_without_a_gpu_all_of_it_is_on_the_host(shape: ModelShape) -> None:
    host = estimate(shape, {}, NO_GPU).host
    assert need_for(shape, {}, NO_GPU, {}).by_device == {"cpu": host.total_bytes}


def test_no_device_means_the_host(shape: ModelShape) -> None:
    assert list(need_for(shape, {"devices": ["none"]}, GPUS, {}).by_device) == ["cpu"]


def test_one_gpu_can_be_named(shape: ModelShape) -> None:
    options = {"gpu_layers": "all", "split_mode": "none", "main_gpu": 1}
    assert set(need_for(shape, options, GPUS, {}).by_device) == {"cuda:1", "cpu"}


def test_what_is_kept_back_of_a_gpu_is_not_used_where_the_options_leave_it_open(shape: ModelShape) -> None:
    options: dict[str, Any] = {"op_offload": False}
    assert set(need_for(shape, options, GPUS, {}).by_device) == {"cuda:0", "cuda:1", "cpu"}
    kept = need_for(shape, options, GPUS, {"cuda:0": 2 * GIB, "cuda:1": GIB}).by_device
    assert list(kept) == ["cpu"]


def test_an_open_context_length_comes_down_as_the_engine_brings_it_down(shape: ModelShape) -> None:
    host = pretended("cpu:3GiB")
    long = replace(shape, trained_context=5_000_000)
    need = need_for(long, {}, host, {})
    assert need.shortened_to is not None and need.shortened_to > 4096
    assert need.by_device["cpu"] <= 2 * GIB, "what it has in all, less 1 GiB"
    for options in ({"context_length": 5_000_000}, {"fit": "off"}):
        assert need_for(long, options, host, {}).by_device["cpu"] > 3 * GIB
    assert need_for(long, {"fit_ctx": 4_000_000}, host, {}).shortened_to == 4_000_000, "the shortest it may"
    assert need_for(shape, {}, host, {}).shortened_to is None


def test_vllm_takes_its_share_of_the_gpus_that_it_uses_and_of_no_other() -> None:
    small = shape_of(SMALL)
    gpus = pretended("24GiB,24GiB,cpu:64GiB")
    share = math.ceil(24 * GIB * 0.92)
    assert need_for(small, {}, gpus, {}).by_device == {"cuda:0": share}
    options = {"tensor_parallel_size": 2, "gpu_memory_utilization": 0.5}
    assert need_for(small, options, gpus, {}).by_device == {"cuda:0": 12 * GIB, "cuda:1": 12 * GIB}


def test_a_stated_cache_takes_the_place_of_the_share() -> None:
    need = need_for(shape_of(SMALL), {"kv_cache_memory_bytes": GIB}, pretended("24GiB,cpu:64GiB"), {})
    assert GIB < need.by_device["cuda:0"] < 4 * GIB


def test_that_vllm_will_refuse_is_said() -> None:
    gpus = pretended("18GiB,cpu:64GiB")
    need = need_for(shape_of(LLAMA_8B), {}, gpus, {})
    assert need.note is not None and "cuda:0" in need.note
    assert need_for(shape_of(LLAMA_8B), {"context_length": 2_048}, pretended("24GiB"), {}).note is None


def test_where_vllm_shortens_the_context_itself_that_is_counted() -> None:
    shape, gpus = shape_of(LLAMA_8B), pretended("24GiB,cpu:64GiB")
    for word in ("auto", -1):
        need = need_for(shape, {"context_length": word}, gpus, {})
        assert need.shortened_to is not None and 4_096 < need.shortened_to < 131_072 and need.note is None
    assert need_for(shape_of(SMALL), {"context_length": "auto"}, gpus, {}).shortened_to is None


def test_where_the_gpu_takes_from_the_host_its_bytes_stand_on_both_and_are_summed_once(
    shape: ModelShape,
) -> None:
    devices = pretended("48GiB unified + 64GiB host")
    alone = need_for(shape, {}, devices, {})
    need = alone.pooled(devices)
    assert need.by_device["cpu"] == sum(alone.by_device.values()) == need.total_bytes
    assert need.by_device["vulkan:0"] == alone.by_device["vulkan:0"]
    assert alone.pooled([]) == alone


def test_a_gpu_gets_no_more_than_its_pool_has_left_after_the_reserve(shape: ModelShape) -> None:
    devices = pretended("2GiB unified")
    options: dict[str, Any] = {"op_offload": False}
    assert "vulkan:0" in need_for(shape, options, devices, {}).by_device
    kept = need_for(shape, options, devices, {"": 2 * GIB - 2**20})
    assert "vulkan:0" not in kept.by_device

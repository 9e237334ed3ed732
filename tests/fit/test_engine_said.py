"""The engine's own numbers take the place of counted ones, never below what it may take."""

from __future__ import annotations

import pytest

from ostler.engines.fit_memory import EngineMemory
from ostler.fit.engine_said import estimate_by_engine, need_by_engine
from ostler.fit.estimated import Estimate
from ostler.fit.estimated import Need as Place
from ostler.fit.need import Need

STEP = 100


def said(*, host: tuple[int, int, int] = (1000, 200, 300), **gpus: tuple[int, int, int]) -> EngineMemory:
    parts = ("weights_bytes", "kv_cache_bytes", "compute_bytes")
    named = {"Host": host, **gpus}
    return EngineMemory(
        {name: dict(zip(parts, sizes, strict=True)) for name, sizes in named.items()}, True, STEP
    )


def place(id: str, weights: int, cache: int, compute: int, overhead: int = 0) -> Place:
    return Place(id, id, weights, cache, compute, overhead, 10**6)


ESTIMATE = Estimate(512, 1, (), place("cpu", 1050, 230, 500), None)


def test_a_counted_number_that_rounds_to_the_engines_stays_and_another_is_replaced_and_rounded_up() -> None:
    host = estimate_by_engine(ESTIMATE, said()).host
    assert (host.weights_bytes, host.kv_cache_bytes, host.compute_bytes) == (1050, 230, 300 + STEP)
    assert estimate_by_engine(ESTIMATE, said()).exactness == "engine"


def test_a_gpu_keeps_its_overhead_and_goes_by_our_name() -> None:
    estimate = Estimate(512, 1, (place("cuda:0", 800, 100, 90, 512),), place("cpu", 200, 0, 10), None)
    better = estimate_by_engine(estimate, said(host=(200, 0, 0), CUDA0=(800, 300, 0)))
    assert better.exactness == "engine"
    (gpu,) = better.devices
    assert (gpu.id, gpu.kv_cache_bytes, gpu.compute_bytes, gpu.overhead_bytes) == ("cuda:0", 400, 90, 512)


@pytest.mark.parametrize(
    ("its", "ours"), [("SYCL0", "xpu:0"), ("MTL0", "metal:0"), ("ROCm1", "rocm:1"), ("Vulkan0", "vulkan:0")]
)
def test_every_kind_of_gpu_is_known_by_the_engines_name(its: str, ours: str) -> None:
    estimate = Estimate(512, 1, (place(ours, 800, 100, 90),), place("cpu", 200, 0, 10), None)
    assert estimate_by_engine(estimate, said(host=(200, 0, 0), **{its: (800, 300, 0)})).exactness == "engine"


def test_an_answer_of_other_devices_or_of_absurd_weights_is_not_used() -> None:
    assert estimate_by_engine(ESTIMATE, said(CUDA0=(1, 1, 1))) is ESTIMATE
    assert estimate_by_engine(ESTIMATE, said(host=(5000, 200, 300))) is ESTIMATE
    assert estimate_by_engine(ESTIMATE, said(host=(100, 200, 300))) is ESTIMATE


def test_a_need_follows_the_engine_where_it_will_not_choose_otherwise() -> None:
    need = Need({"cpu": 1780}, estimated={"cpu": 1780})
    assert need_by_engine(need, said()).by_device == {"cpu": 1780}
    more = need_by_engine(need, said(host=(1000, 900, 300)))
    assert more.by_device == {"cpu": 2200 + 3 * STEP} and more.exactness == "engine"
    assert more.estimated == need.estimated
    shortened = Need({"cpu": 1780}, shortened_to=256)
    assert need_by_engine(shortened, said()) is shortened
    elsewhere = Need({"cuda:0": 1780})
    assert need_by_engine(elsewhere, said()) is elsewhere

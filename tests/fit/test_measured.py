"""A measurement takes the place of what cannot be counted, and never takes a need below what can."""

from __future__ import annotations

import pytest

from ostler.fit.devices import Device
from ostler.fit.estimated import Estimate
from ostler.fit.estimated import Need as Place
from ostler.fit.measured import estimate_with, is_settled, need_with
from ostler.fit.need import Need

COUNTED, SET_SUM = 1000, 500
NEED = Need(
    {"cuda:0": COUNTED + SET_SUM, "cpu": 100},
    overhead={"cuda:0": SET_SUM},
    estimated={"cuda:0": COUNTED + SET_SUM, "cpu": 100},
)


def place(id: str, counted: int, overhead: int) -> Place:
    device = Device(id, id, "cpu", 10_000, 10_000)
    return Place(id, device.name, counted - 30, 20, 10, overhead, device.free_bytes)


ESTIMATE = Estimate(4096, 1, (place("cuda:0", COUNTED, SET_SUM),), place("cpu", 100, 0), None)


@pytest.mark.parametrize(
    ("measured", "replaces", "gpu", "host", "exactness"),
    [
        ({"cuda:0": 1300, "cpu": 140}, True, 1300, 140, "measured"),
        ({"cuda:0": 1300, "cpu": 140}, False, 1500, 140, "estimated"),
        ({"cuda:0": 1700, "cpu": 140}, False, 1700, 140, "measured"),
        ({"cuda:0": 900, "cpu": 140}, True, 1000, 140, "estimated"),
        ({"cuda:0": 1300, "cpu": 40}, True, 1300, 100, "estimated"),
        ({"cpu": 140}, True, 1500, 140, "estimated"),
    ],
)
def test_the_larger_of_counted_and_measured_is_needed(
    measured: dict[str, int], replaces: bool, gpu: int, host: int, exactness: str
) -> None:
    better = need_with(NEED, measured, replaces=replaces)
    assert better.by_device == {"cuda:0": gpu, "cpu": host}
    assert better.exactness == exactness and better.estimated == NEED.estimated
    told = estimate_with(ESTIMATE, measured, replaces=replaces)
    assert (told.devices[0].total_bytes, told.host.total_bytes) == (gpu, host)
    assert told.exactness == exactness and told.host.measured_bytes == measured["cpu"]


def test_a_need_that_no_file_tells_is_what_was_measured() -> None:
    better = need_with(Need(unknown_why="no header"), {"cpu": 7}, replaces=False)
    assert better.is_known and better.by_device == {"cpu": 7} and better.exactness == "measured"


def test_an_engine_that_chooses_by_itself_what_goes_to_the_gpus_may_take_more_next_time() -> None:
    assert is_settled({"gpu_layers": 10, "context_length": 4096})
    assert not is_settled({"gpu_layers": "auto", "context_length": 4096})
    assert not is_settled({"gpu_layers": 10})

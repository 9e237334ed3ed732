"""Hardware that is not here, described in words."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ostler.core.errors import InvalidField
from ostler.fit.hardware import ASSUMED_HOST_BYTES, hardware_from_json, parse_hardware, read_hardware
from ostler.fit.known_gpus import KNOWN_GPUS, SHORT_NAMES

GIB = 1024**3


@pytest.mark.parametrize(
    ("text", "gpus", "host"),
    [
        ("24GiB", [24 * GIB], None),
        ("24 gib", [24 * GIB], None),
        ("24G", [24 * GIB], None),
        ("24GB", [24 * 1000**3], None),
        ("0.5TiB", [512 * GIB], None),
        ("2x24GiB", [24 * GIB] * 2, None),
        ("2 X 24GiB", [24 * GIB] * 2, None),
        ("1x80GiB+128GiB host", [80 * GIB], 128 * GIB),
        ("128GiB host", [], 128 * GIB),
        ("host 128GiB + 80GiB", [80 * GIB], 128 * GIB),
        ("rtx-4090", [24_564 * 1024**2], None),
        ("NVIDIA GeForce RTX 4090", [24_564 * 1024**2], None),
        ("4090", [24_564 * 1024**2], None),
        ("2xa100-80gb", [81_920 * 1024**2] * 2, None),
        ("h100", [81_559 * 1024**2], None),
        ("rtx3060, 2xT4", [12_288 * 1024**2, *[15_360 * 1024**2] * 2], None),
    ],
)
def test_a_description_gives_its_devices(text: str, gpus: list[int], host: int | None) -> None:
    *found, cpu = parse_hardware(text)
    assert [device.total_bytes for device in found] == gpus
    assert [device.id for device in found] == [f"cuda:{n}" for n in range(len(gpus))]
    assert all(device.kind == "cuda" and device.free_bytes == device.total_bytes for device in found)
    assert (cpu.id, cpu.kind, cpu.total_bytes) == ("cpu", "cpu", host or ASSUMED_HOST_BYTES)
    assert ("assumed" in cpu.name) is (host is None)


@pytest.mark.parametrize("name", [*KNOWN_GPUS, *SHORT_NAMES])
def test_every_known_gpu_is_found_by_its_name(name: str) -> None:
    gpu, host = parse_hardware(name)
    known = KNOWN_GPUS[SHORT_NAMES.get(name, name)]
    assert (gpu.name, gpu.kind, gpu.id) == (known.name, known.kind, f"{known.kind}:0")
    assert gpu.total_bytes == int(known.memory_bytes * known.share)
    assert (gpu.pool == host.id and host.total_bytes == known.memory_bytes) is known.is_unified


@pytest.mark.parametrize("name", KNOWN_GPUS)
def test_a_gpu_is_found_as_its_driver_names_it(name: str) -> None:
    full = KNOWN_GPUS[name].name
    assert parse_hardware(full)[0].name == full


@pytest.mark.parametrize(
    "text",
    ["", " ", "+", "24GiB+", "0x24GiB", "65x24GiB", "9x24GiB+60x24GiB", "24", "-4GiB", "1KiB", "999999TiB",
     "host", "8GiB host + 9GiB host", "2x64GiB unified", "unified", "64GiB unified + 32GiB host",
      "2x", "x24GiB", "nan GiB", "1e9GiB", "rtx", "٢٤GiB", "a" * 5000],
)  # fmt: skip
def test_what_describes_nothing_is_an_error_with_a_next_step(text: str) -> None:
    with pytest.raises(InvalidField) as wrong:
        parse_hardware(text)
    assert wrong.value.facts["field"] == "on" and wrong.value.hint
    assert len(wrong.value.message) < 300


def test_a_machine_with_unified_memory_is_one_pool() -> None:
    gpu, host = parse_hardware("64GiB unified")
    assert (gpu.total_bytes, gpu.pool, host.total_bytes) == (64 * GIB, "cpu", 64 * GIB)
    gpu, host = parse_hardware("Apple M3 Max 64GB")
    assert (gpu.id, gpu.kind, gpu.pool) == ("metal:0", "metal", "cpu")
    assert (gpu.total_bytes, host.total_bytes, host.name) == (48 * GIB, 64 * GIB, "host")
    assert parse_hardware("m1-pro-16gb")[0].total_bytes == 16 * GIB * 2 // 3
    gpu, host = parse_hardware("48GiB unified + 64GiB host")
    assert (gpu.total_bytes, gpu.pool, host.total_bytes) == (48 * GIB, "cpu", 64 * GIB)
    described = {"devices": [{"kind": "metal", "memory": "20GiB", "unified": True}], "host": "32GiB"}
    gpu, host = hardware_from_json(described)
    assert (gpu.id, gpu.total_bytes, gpu.pool, host.total_bytes) == ("metal:0", 20 * GIB, "cpu", 32 * GIB)


def test_cards_of_several_makers_are_numbered_by_kind() -> None:
    found = parse_hardware("rtx-4090 + 2xRX 7900 XTX + arc-b580")
    assert [device.id for device in found] == ["cuda:0", "rocm:0", "rocm:1", "xpu:0", "cpu"]


def test_a_mistyped_gpu_gets_near_names() -> None:
    with pytest.raises(InvalidField) as wrong:
        parse_hardware("rtx-409")
    assert "rtx-4090" in (wrong.value.hint or "")


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    devices = [{"name": "rtx-4090", "count": 2}, {"name": "Mine", "memory": "16GiB", "free": 15 * GIB}]
    path.write_text(json.dumps({"devices": devices, "host": "128GiB"}))
    first, second, mine, host = read_hardware(str(path))
    assert (first.id, second.id, mine.id) == ("cuda:0", "cuda:1", "cuda:2")
    assert (mine.name, mine.total_bytes, mine.free_bytes) == ("Mine", 16 * GIB, 15 * GIB)
    assert host.total_bytes == 128 * GIB


@pytest.mark.parametrize(
    "data",
    [[], 1, {}, {"devices": 1}, {"devices": [1]}, {"devices": [{}]}, {"devices": [{"memory": True}]},
     {"devices": [{"name": "x"}]}, {"devices": [{"name": 1, "memory": "1GiB"}]}, {"device": []},
     {"devices": [{"memory": "1GiB", "count": 1e3}]}, {"devices": [{"memory": "1GiB", "count": 1000}]},
     {"devices": [{"memory": "1GiB", "free": "2GiB"}]},
     {"devices": [{"memory": "1GiB", "kind": "tpu"}]}, {"devices": [{"memory": "1GiB", "unified": 1}]},
     {"devices": [{"memory": "1GiB", "kind": []}]}, {"host": -1}, {"host": []}],
)  # fmt: skip
def test_a_wrong_file_is_said_to_be_so(tmp_path: Path, data: Any) -> None:
    path = tmp_path / "machine.json"
    path.write_text(json.dumps(data))
    with pytest.raises(InvalidField) as wrong:
        read_hardware(str(path))
    assert wrong.value.hint


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b" " * 2_000_000])
def test_what_is_no_json_is_said_to_be_so(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "machine.json"
    path.write_bytes(content)
    with pytest.raises(InvalidField):
        read_hardware(str(path))
    with pytest.raises(InvalidField):
        read_hardware(str(tmp_path))
    with pytest.raises(InvalidField):
        read_hardware(str(tmp_path / "absent.json"))


PIECES = st.sampled_from(
    ["2x", "24", "GiB", "GB", "+", ",", "host", " ", "rtx-", "4090", "a100", ".", "x", "1e5"]
)


@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=12).map("".join)))
@example("1" * 400 + "GiB")
def test_any_text_gives_devices_or_our_error(text: str) -> None:
    with contextlib.suppress(InvalidField):
        devices = parse_hardware(text)
        assert devices[-1].id == "cpu"
        assert all(0 < device.free_bytes <= device.total_bytes for device in devices)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["devices", "host", "name", "memory", "free", "count"]), inner, max_size=4
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_any_document_gives_devices_or_our_error(data: Any) -> None:
    with contextlib.suppress(InvalidField):
        assert hardware_from_json(data)[-1].id == "cpu"


@given(st.text(max_size=40))
def test_any_text_that_may_be_a_path_gives_devices_or_our_error(text: str) -> None:
    with contextlib.suppress(InvalidField):
        read_hardware(f"/nowhere/{text}")

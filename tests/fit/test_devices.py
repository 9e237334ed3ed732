"""The devices of this host, as the operating system and the cgroup say."""

from __future__ import annotations

from pathlib import Path

import psutil

from ostler.fit.devices import Devices


async def test_the_host_is_always_a_device_with_its_memory(tmp_path: Path) -> None:
    host = (await Devices(tmp_path).list())[-1]
    assert (host.id, host.kind) == ("cpu", "cpu")
    assert host.total_bytes == psutil.virtual_memory().total
    assert 0 < host.free_bytes <= host.total_bytes


async def test_a_limit_of_the_cgroup_counts_as_the_host_s_memory(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("400000\n")
    host = (await Devices(tmp_path).list())[-1]
    assert (host.total_bytes, host.free_bytes) == (1_000_000, 600_000)


async def test_a_cgroup_without_a_limit_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "memory.max").write_text("max\n")
    assert (await Devices(tmp_path).list())[-1].total_bytes == psutil.virtual_memory().total

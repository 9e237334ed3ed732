"""System: the host, its GPUs and what the gateway does, from our own sampling; no Prometheus is asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

from ostler.api.dialects.cortex.door import router
from ostler.api.dialects.cortex.words import MIB, gb, mb
from ostler.api.door import needs
from ostler.api.services import Rooms, Services
from ostler.core.principals import Role
from ostler.fit.device import Device
from ostler.usage.filters import RequestFilter
from ostler.usage.gpus import GpuReading, architecture_of, has_flash_attention
from ostler.usage.host_series import HostReading, Traffic
from ostler.usage.surroundings import surroundings

routes = router("system")

RATE_WINDOW = timedelta(minutes=1)
LATENCY_WINDOW = timedelta(minutes=5)


@routes.get("/admin/system/summary", **needs(Role.ADMIN))
async def summarise(rooms: Rooms) -> dict[str, Any]:
    """The machine in a few numbers."""
    host, gpus = await rooms.host.latest(), await _gpus(rooms)
    return {
        "cpu_count": os.cpu_count(),
        "load_avg_1m": host.load_1m,
        "mem_total_mb": mb(host.memory_total_bytes),
        "mem_used_mb": mb(host.memory_used_bytes),
        "disk_total_gb": gb(host.disk_total_bytes),
        "disk_used_gb": gb(host.disk_used_bytes),
        "gpus": len(gpus),
        "cuda_driver": next((gpu.driver for gpu in gpus if gpu.kind == "cuda" and gpu.driver), None),
    }


@routes.get("/admin/system/throughput", **needs(Role.ADMIN))
async def measure_throughput(rooms: Rooms) -> dict[str, Any]:
    """Requests and tokens per second of the last minute, quantiles of the last five; all inference."""
    now = rooms.clock.now()
    figures, seconds = rooms.figures, RATE_WINDOW.total_seconds()
    sums = await figures.sums(RequestFilter(since=now - RATE_WINDOW))
    late = RequestFilter(since=now - LATENCY_WINDOW, status_class=2)
    whole, first = await figures.spread("duration_s", late), await figures.spread("first_token_s", late)
    return {
        "req_per_sec": sums.requests / seconds,
        "prompt_tokens_per_sec": sums.prompt_tokens / seconds,
        "generation_tokens_per_sec": sums.completion_tokens / seconds,
        "latency_p50_ms": (whole.p50_s or 0.0) * 1000,
        "latency_p95_ms": (whole.p95_s or 0.0) * 1000,
        "ttft_p50_ms": (first.p50_s or 0.0) * 1000,
        "ttft_p95_ms": (first.p95_s or 0.0) * 1000,
        "samples": whole.samples,
    }


@routes.get("/admin/system/gpus", **needs(Role.ADMIN))
async def list_gpus(rooms: Rooms) -> list[dict[str, Any]]:
    """Every GPU, with its memory now and what its sensors said last."""
    host = await rooms.host.latest()
    readings = {reading.id: reading for reading in host.gpus}
    return [_gpu(index, gpu, readings.get(gpu.id)) for index, gpu in enumerate(await _gpus(rooms))]


@routes.get("/admin/system/host/summary", **needs(Role.ADMIN))
async def summarise_host(rooms: Rooms) -> dict[str, Any]:
    """The host's newest reading."""
    host = await rooms.host.latest()
    return {
        "cpu_util_pct": host.cpu_ratio * 100,
        "load_avg_1m": host.load_1m,
        "mem_total_mb": mb(host.memory_total_bytes),
        "mem_used_mb": mb(host.memory_used_bytes),
        "disk_total_gb": gb(host.disk_total_bytes),
        "disk_used_gb": gb(host.disk_used_bytes),
        "disk_used_pct": _disk_share(host) * 100,
        "net_rx_bps": _received(host),
        "net_tx_bps": _sent(host),
    }


@routes.get("/admin/system/host/trends", **needs(Role.ADMIN))
async def show_trends(rooms: Rooms, minutes: int = 15, step_s: int = 15) -> dict[str, Any]:
    """The host's last minutes (1 to 60), a point each step (5 to 60 s)."""
    await rooms.host.latest()
    span = timedelta(minutes=max(1, min(minutes, 60)))
    readings = rooms.host.series(span, timedelta(seconds=max(5, min(step_s, 60))))

    def points(value: Callable[[HostReading], float]) -> list[dict[str, float]]:
        return [{"ts": reading.at.timestamp(), "value": value(reading)} for reading in readings]

    return {
        "cpu_util_pct": points(lambda r: r.cpu_ratio * 100),
        "mem_used_mb": points(lambda r: r.memory_used_bytes / MIB),
        "disk_used_pct": points(lambda r: _disk_share(r) * 100),
        "net_rx_bps": points(_received),
        "net_tx_bps": points(_sent),
        "cpu_per_core_pct": _cores(readings),
        "disk_rw_bps": _traffic(readings, lambda r: r.disks.items(), ("read", "write")),
        "net_per_iface_bps": _traffic(readings, lambda r: r.networks.items(), ("rx", "tx")),
    }


@routes.get("/admin/system/capabilities", **needs(Role.ADMIN))
async def show_capabilities(rooms: Rooms) -> dict[str, Any]:
    """Where the numbers come from: all of them from this server."""
    around, gpus = await asyncio.to_thread(surroundings), await _gpus(rooms)
    nvidia = [gpu for gpu in gpus if gpu.kind == "cuda" and gpu.told_by == "driver" and gpu.is_real]
    return {
        "os": around.system,
        "isContainer": around.is_container,
        "isWSL": around.is_wsl,
        "prometheus": {"up": False, "nodeExporter": None, "dcgmExporter": None, "cadvisor": None},
        "gpu": {
            "nvml": bool(nvidia),
            "count": len(nvidia),
            "driver": next((gpu.driver for gpu in nvidia if gpu.driver), None),
        },
        "selectedProviders": {"host": "psutil", "gpu": "nvml" if nvidia else "none"},
        "suggestions": [],
    }


async def _gpus(rooms: Services) -> list[Device]:
    return [device for device in await rooms.devices.list() if device.kind != "cpu"]


def _gpu(index: int, gpu: Device, reading: GpuReading | None) -> dict[str, Any]:
    compute = reading.compute if reading else None
    busy = reading.busy_ratio if reading else None
    return {
        "index": index,
        "name": gpu.name,
        "utilization_pct": None if busy is None else busy * 100,
        "mem_used_mb": mb(gpu.total_bytes - gpu.free_bytes),
        "mem_total_mb": mb(gpu.total_bytes),
        "temperature_c": reading.temperature_c if reading else None,
        "compute_capability": f"{compute[0]}.{compute[1]}" if compute else None,
        "architecture": architecture_of(compute) if compute else None,
        "flash_attention_supported": has_flash_attention(compute) if compute else None,
    }


def _cores(readings: Sequence[HostReading]) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {}
    for reading in readings:
        for core, share in enumerate(reading.cores):
            found.setdefault(str(core), []).append({"ts": reading.at.timestamp(), "value": share * 100})
    return found


def _traffic(
    readings: Sequence[HostReading],
    of: Callable[[HostReading], Iterable[tuple[str, Traffic]]],
    words: tuple[str, str],
) -> dict[str, dict[str, list[dict[str, float]]]]:
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for reading in readings:
        for name, traffic in of(reading):
            both = found.setdefault(name, {word: [] for word in words})
            for word, value in zip(words, (traffic.in_bps, traffic.out_bps), strict=True):
                both[word].append({"ts": reading.at.timestamp(), "value": value})
    return found


def _received(host: HostReading) -> float:
    return sum(traffic.in_bps for traffic in host.networks.values())


def _sent(host: HostReading) -> float:
    return sum(traffic.out_bps for traffic in host.networks.values())


def _disk_share(host: HostReading) -> float:
    return host.disk_used_bytes / host.disk_total_bytes if host.disk_total_bytes else 0.0

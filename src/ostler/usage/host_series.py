"""The host's last hour: processors, memory, disks, network and GPUs, sampled here and kept in memory.

No other server is needed for it. A reading is taken every `EVERY_S` seconds in a thread, at most `KEPT` are
kept, and whatever could be many (disks, interfaces) is bounded.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from math import fsum
from pathlib import Path
from typing import Any

import psutil

from ostler.core.clock import Clock
from ostler.core.disk import nearest
from ostler.core.errors import Busy
from ostler.usage.gpus import GpuReading, GpuSensors

log = logging.getLogger(__name__)

EVERY_S = 5.0
PATIENCE_S = 5.0
FIRST_S = 0.5
KEPT = 720
MAX_NAMES = 32
_NO_DISK = re.compile(r"(loop|ram|zram|dm-|sr|fd)\d*")
_NO_NETWORK = re.compile(r"lo$|docker|veth|br-|ifb|virbr")


class HostNotRead(Busy):
    """No reading of the host is there yet."""

    hint = "The server's log says why, where it stays so."


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes per second: read or received, and written or sent."""

    in_bps: float
    out_bps: float


@dataclass(frozen=True, slots=True)
class HostReading:
    """The host at one moment; shares are from 0 to 1 and, like rates, of the time since the reading before.

    `disk_*` are of the disk that holds the models.
    """

    at: datetime
    cpu_ratio: float
    cores: tuple[float, ...]
    load_1m: float | None
    memory_total_bytes: int
    memory_used_bytes: int
    disk_total_bytes: int
    disk_used_bytes: int
    disks: Mapping[str, Traffic] = field(default_factory=dict)
    networks: Mapping[str, Traffic] = field(default_factory=dict)
    gpus: tuple[GpuReading, ...] = ()


@dataclass(frozen=True, slots=True)
class _Counters:
    """What only ever grows, at one moment (monotonic): seconds of each core, bytes of disks and networks."""

    at: float
    cores: tuple[tuple[float, float], ...]
    disks: Mapping[str, tuple[int, int]]
    networks: Mapping[str, tuple[int, int]]


class HostSeries:
    """The readings of the last hour. `folder` gives the folder whose disk is watched."""

    def __init__(self, clock: Clock, folder: Callable[[], Path], sensors: GpuSensors | None = None) -> None:
        self._clock = clock
        self._folder = folder
        self._sensors = sensors or GpuSensors()
        self._readings: deque[HostReading] = deque(maxlen=KEPT)
        self._before: _Counters | None = None
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to sample; the first reading is there half a second later."""
        self._before = await asyncio.to_thread(_counters, self._clock.monotonic())
        self._task = asyncio.create_task(self._run(), name="host series")

    async def close(self) -> None:
        """End it."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    @property
    def last(self) -> HostReading | None:
        """The newest reading, None where there is none yet."""
        return self._readings[-1] if self._readings else None

    async def latest(self) -> HostReading:
        """The newest reading; right after the start it waits for the first one. Raises HostNotRead."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._arrived.wait()
        except TimeoutError:
            raise HostNotRead("the host could not be read yet", retry_after_s=EVERY_S) from None
        return self._readings[-1]

    def series(self, span: timedelta, step: timedelta) -> list[HostReading]:
        """The readings of the last `span`, each the mean over one `step`, oldest first."""
        since = self._clock.now() - span
        steps: dict[int, list[HostReading]] = {}
        for reading in self._readings:
            if reading.at >= since:
                steps.setdefault(int(reading.at.timestamp() // step.total_seconds()), []).append(reading)
        return [mean_of(readings) for _, readings in sorted(steps.items())]

    async def _run(self) -> None:
        pause_s, was_read = FIRST_S, True
        while True:
            await asyncio.sleep(pause_s)
            try:
                self._readings.append(await asyncio.to_thread(self._read))
            except Exception:
                if was_read:
                    log.exception("the host cannot be read; it is tried again every %g s", EVERY_S)
                was_read = False
            else:
                self._arrived.set()
                was_read = True
            pause_s = EVERY_S

    def _read(self) -> HostReading:
        now = _counters(self._clock.monotonic())
        before, self._before = self._before or now, now
        cores = tuple(_busy(a, b) for a, b in zip(before.cores, now.cores, strict=False))
        memory = psutil.virtual_memory()
        disk = psutil.disk_usage(str(nearest(self._folder())))
        passed = max(now.at - before.at, 0.001)
        return HostReading(
            at=self._clock.now(),
            cpu_ratio=fsum(cores) / len(cores) if cores else 0.0,
            cores=cores,
            load_1m=_load(),
            memory_total_bytes=memory.total,
            memory_used_bytes=memory.total - memory.available,
            disk_total_bytes=disk.total,
            disk_used_bytes=disk.used,
            disks=_traffic(before.disks, now.disks, passed),
            networks=_traffic(before.networks, now.networks, passed),
            gpus=tuple(self._sensors.read()),
        )


def mean_of(readings: Sequence[HostReading]) -> HostReading:
    """One reading for several: shares and rates are means, sizes and GPUs those of the last."""
    last = readings[-1]
    if len(readings) == 1:
        return last
    same = [r for r in readings if len(r.cores) == len(last.cores)]
    return replace(
        last,
        cpu_ratio=_mean(r.cpu_ratio for r in readings),
        cores=tuple(_mean(r.cores[i] for r in same) for i in range(len(last.cores))),
        memory_used_bytes=int(_mean(r.memory_used_bytes for r in readings)),
        disks={name: _mean_traffic(r.disks.get(name) for r in readings) for name in last.disks},
        networks={name: _mean_traffic(r.networks.get(name) for r in readings) for name in last.networks},
    )


def _counters(at: float) -> _Counters:
    cores = tuple(_seconds(core) for core in psutil.cpu_times(percpu=True))
    disks = {
        name: (io.read_bytes, io.write_bytes)
        for name, io in sorted((psutil.disk_io_counters(perdisk=True) or {}).items())
        if not _NO_DISK.match(name)
    }
    networks = {
        name: (io.bytes_recv, io.bytes_sent)
        for name, io in sorted((psutil.net_io_counters(pernic=True) or {}).items())
        if not _NO_NETWORK.match(name)
    }
    return _Counters(at, cores, _first(disks), _first(networks))


def _seconds(core: Any) -> tuple[float, float]:
    """Seconds of work and of everything; guests are in `user` already."""
    parts = core._asdict()
    whole = fsum(value for name, value in parts.items() if not name.startswith("guest"))
    return whole - parts.get("idle", 0.0) - parts.get("iowait", 0.0), whole


def _busy(before: tuple[float, float], now: tuple[float, float]) -> float:
    passed = now[1] - before[1]
    return min(1.0, max(0.0, (now[0] - before[0]) / passed)) if passed > 0 else 0.0


def _traffic(
    before: Mapping[str, tuple[int, int]], now: Mapping[str, tuple[int, int]], passed_s: float
) -> dict[str, Traffic]:
    return {
        name: Traffic(*(max(0, new - old) / passed_s for new, old in zip(counts, before[name], strict=True)))
        for name, counts in now.items()
        if name in before
    }


def _first(counters: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    return dict(list(counters.items())[:MAX_NAMES])


def _mean(values: Iterable[float]) -> float:
    there = list(values)
    return fsum(there) / len(there)


def _mean_traffic(values: Iterable[Traffic | None]) -> Traffic:
    there = [value for value in values if value is not None]
    return Traffic(_mean(t.in_bps for t in there), _mean(t.out_bps for t in there))


def _load() -> float | None:
    try:
        return psutil.getloadavg()[0]
    except OSError:
        return None

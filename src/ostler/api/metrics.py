"""Numbers about what is there now, gathered at the moment when Prometheus asks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Gauge, Info
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector

from ostler.api.services import Services
from ostler.core.states import InstanceState
from ostler.usage.gpus import GpuReading
from ostler.usage.host_series import HostReading


def exposition(rooms: Services) -> bytes:
    """What the rooms have counted, and what is there now, in Prometheus' text format."""
    now = CollectorRegistry()
    Info("ostler_build", "The version that runs.", registry=now).info({"version": rooms.version})
    Gauge("ostler_models", "Models by name.", registry=now).set(len(rooms.models.all()))
    states = Counter(view.state for view in rooms.instances.views())
    instances = Gauge("ostler_instances", "Models by state, those not stopped.", ["state"], registry=now)
    for state in InstanceState:
        if state is not InstanceState.STOPPED:
            instances.labels(state.value).set(states[state])
    now.register(_Instances(rooms))
    if (host := rooms.host.last) is not None:
        now.register(_Host(host))
    return generate_latest(rooms.metrics) + generate_latest(now)


class _Instances(Collector):
    """Every model that is not stopped."""

    def __init__(self, rooms: Services) -> None:
        self._rooms = rooms

    def collect(self) -> Iterator[Metric]:
        """Everything, for one scrape."""
        labels = ["model", "engine"]
        up = GaugeMetricFamily("ostler_instance_up", "1: it takes requests.", labels=labels)
        memory = GaugeMetricFamily("ostler_instance_memory_bytes", "Measured, all devices.", labels=labels)
        busy = GaugeMetricFamily("ostler_instance_requests_in_flight", "Requests now in it.", labels=labels)
        restarts = GaugeMetricFamily("ostler_instance_restarts", "After faults, in a row.", labels=labels)
        for view in self._rooms.instances.views():
            values = [view.model_name, view.engine]
            up.add_metric(values, float(view.state is InstanceState.RUNNING))
            busy.add_metric(values, view.in_flight)
            restarts.add_metric(values, view.restarts)
            if view.memory_bytes is not None:
                memory.add_metric(values, view.memory_bytes)
        yield from (up, memory, busy, restarts)


class _Host(Collector):
    """The host's newest reading."""

    def __init__(self, host: HostReading) -> None:
        self._host = host

    def collect(self) -> Iterator[Metric]:
        """Everything, for one scrape."""
        host = self._host
        for name, text, value in (
            ("ostler_host_cpu_ratio", "How busy the processors are, 0 to 1.", host.cpu_ratio),
            ("ostler_host_load_1m", "Load average of a minute.", host.load_1m),
            ("ostler_host_memory_total_bytes", "Memory.", host.memory_total_bytes),
            ("ostler_host_memory_used_bytes", "Memory that is not available.", host.memory_used_bytes),
            ("ostler_models_disk_total_bytes", "The disk that holds the models.", host.disk_total_bytes),
            ("ostler_models_disk_used_bytes", "What is used of it.", host.disk_used_bytes),
        ):
            if value is not None:
                yield GaugeMetricFamily(name, text, value=value)
        for name, text, label, traffic, ways in (
            ("ostler_disk", "Bytes per second of each disk.", "disk", host.disks, ("read", "write")),
            (
                "ostler_network",
                "Bytes per second of each interface.",
                "interface",
                host.networks,
                ("rx", "tx"),
            ),
        ):
            family = GaugeMetricFamily(f"{name}_bytes_per_second", text, labels=[label, "direction"])
            for device, rates in traffic.items():
                family.add_metric([device, ways[0]], rates.in_bps)
                family.add_metric([device, ways[1]], rates.out_bps)
            yield family
        yield from _gpus(host.gpus)


def _gpus(gpus: tuple[GpuReading, ...]) -> Iterator[Metric]:
    """Every GPU; a number that its driver does not tell is left out."""
    for name, text, field in (
        ("ostler_gpu_busy_ratio", "How busy the GPU is, 0 to 1.", "busy_ratio"),
        ("ostler_gpu_memory_used_bytes", "Memory that is used.", "used_bytes"),
        ("ostler_gpu_memory_total_bytes", "Memory.", "total_bytes"),
        ("ostler_gpu_temperature_celsius", "Temperature.", "temperature_c"),
        ("ostler_gpu_power_watts", "Power that it draws.", "power_w"),
    ):
        family = GaugeMetricFamily(name, text, labels=["gpu", "name"])
        for gpu in gpus:
            value = getattr(gpu, field)
            if value is not None:
                family.add_metric([gpu.id, gpu.name], value)
        yield family

"""From a launch spec to a container: a pure translation into the body of the Engine API's create call.

Wire format: Docker Engine API v1.41, `POST /containers/create`
(https://docs.docker.com/engine/api/v1.41/#tag/Container), which Podman's service speaks too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ostler.core.launch import HOST_SLOT, PORT_SLOT, LaunchSpec
from ostler.runtimes.container_options import ContainerOptions
from ostler.runtimes.ports import HOST as LOOPBACK

PORT = 8000
"""Where engines listen inside; outside they get a port of the daemon's choice."""
INSIDE_HOST = "0.0.0.0"
HOST_NETWORK = "host"
HOME = "/tmp"
HF_CACHE = "/hf/hub"
SERVER_LABEL = "ostler.server"
MODEL_LABEL = "ostler.model"
INSTANCE_LABEL = "ostler.instance"
DIGEST_LABEL = "ostler.digest"
PORT_LABEL = "ostler.port"
_ROCM_DEVICES = ("/dev/kfd", "/dev/dri")


@dataclass(frozen=True, slots=True)
class Daemon:
    """What of a daemon decides how a container must look.

    `gpus` is what it can hand out to containers that ask for no device by name.
    """

    rootless: bool = False
    selinux: bool = False
    gpus: Literal["nvidia", "rocm", "none"] = "none"


@dataclass(frozen=True, slots=True)
class House:
    """What is the same for every container of one Ostler.

    `server_id` tells its containers from those of another Ostler on the same daemon. `hub_cache` is
    the Hugging Face cache on the host.
    """

    server_id: str
    hub_cache: Path
    network: str = "ostler"
    name_prefix: str = ""
    log_bytes: int = 16 * 1024 * 1024

    def container_name(self, spec: LaunchSpec) -> str:
        """`llamacpp-model-7`: one name per model, so that no model can run twice."""
        return f"{self.name_prefix}{spec.engine}-model-{spec.model_id}"

    def network_of(self, spec: LaunchSpec) -> str:
        """The network of its container: the model's own, or that of all."""
        return str(spec.runtime_options.get("network") or self.network)


def create_body(
    spec: LaunchSpec,
    house: House,
    daemon: Daemon,
    *,
    instance_id: int,
    user: str,
    secrets: Mapping[str, str],
    host_port: int | None = None,
) -> dict[str, Any]:
    """The body of the create call. `user` is whom the engine runs as where the model names nobody.

    `host_port` is where it listens where it shares the host's network. Raises InvalidField.
    """
    options = ContainerOptions.read(spec.runtime_options)
    user = options.user or user
    network = house.network_of(spec)
    host, port = (LOOPBACK, host_port) if network == HOST_NETWORK else (INSIDE_HOST, PORT)
    env = {"HOME": HOME, "USER": "ostler", **_device_env(spec), **_cache_env(options), **spec.env, **secrets}
    labels = {
        SERVER_LABEL: house.server_id,
        MODEL_LABEL: str(spec.model_id),
        INSTANCE_LABEL: str(instance_id),
        DIGEST_LABEL: spec.digest(),
    }
    body: dict[str, Any] = {
        "Image": spec.image,
        "Cmd": [part.replace(HOST_SLOT, host).replace(PORT_SLOT, str(port)) for part in spec.args],
        "Env": [f"{name}={value}" for name, value in env.items()],
        "User": user,
        "Labels": labels,
        "StopSignal": "SIGTERM",
        "Healthcheck": {"Test": ["NONE"]},  # Ostler asks the engine itself; images ask at ports of their own
        "HostConfig": _host_config(spec, options, house, daemon),
    }
    body["HostConfig"]["NetworkMode"] = network
    if spec.command:
        body["Entrypoint"] = list(spec.command)
    if spec.working_dir:
        body["WorkingDir"] = spec.working_dir
    if network == HOST_NETWORK:
        labels[PORT_LABEL] = str(port)
    else:
        body["ExposedPorts"] = {f"{port}/tcp": {}}
        body["HostConfig"]["PortBindings"] = {f"{port}/tcp": [{"HostIp": LOOPBACK, "HostPort": ""}]}
    return body


def _host_config(spec: LaunchSpec, options: ContainerOptions, house: House, daemon: Daemon) -> dict[str, Any]:
    config: dict[str, Any] = {
        "Mounts": _mounts(spec, options, house),
        "ReadonlyRootfs": options.read_only_root,
        "Tmpfs": {HOME: "rw,exec,nosuid,nodev,mode=1777"},  # engines compile kernels there and load them
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", *(["label=disable"] if daemon.selinux else [])],
        "Init": True,  # passes signals on, and buries what worker processes leave behind
        "IpcMode": options.ipc,
        "RestartPolicy": {"Name": "no"},  # the keeper restarts
        "AutoRemove": False,  # its log is read after its end
        "LogConfig": {
            "Type": "json-file",
            "Config": {"max-size": str(house.log_bytes), "max-file": "2"},
        },
    }
    if options.shm_size and options.ipc != "host":
        config["ShmSize"] = options.shm_size
    if options.cpus:
        config["NanoCpus"] = int(options.cpus * 10**9)
    if options.memory:
        config["Memory"] = config["MemorySwap"] = options.memory
    if options.pids:
        config["PidsLimit"] = options.pids
    return config | _devices(spec, daemon)


def _mounts(spec: LaunchSpec, options: ContainerOptions, house: House) -> list[dict[str, Any]]:
    found = [(mount.source, mount.target, mount.read_only) for mount in spec.mounts]
    if options.hf_cache != "no":
        found.append((str(house.hub_cache), HF_CACHE, options.hf_cache == "ro"))
    for text in options.mounts:
        source, target, *mode = text.split(":")
        found.append((source, target, mode != ["rw"]))
    return [
        {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}
        for source, target, read_only in found
    ]


def _devices(spec: LaunchSpec, daemon: Daemon) -> dict[str, Any]:
    """GPUs by the ids of the placement; all that the daemon can hand out where none is named."""
    cuda, rocm = _ids(spec, "cuda"), _ids(spec, "rocm")
    if not spec.devices and daemon.gpus == "nvidia":
        return {"DeviceRequests": [_nvidia({"Count": -1})]}
    if cuda:
        return {"DeviceRequests": [_nvidia({"DeviceIDs": cuda})]}
    if rocm or (not spec.devices and daemon.gpus == "rocm"):
        return {
            "Devices": [
                {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rw"}
                for path in _ROCM_DEVICES
            ]
        }
    return {}


def _nvidia(which: dict[str, Any]) -> dict[str, Any]:
    return {"Driver": "", **which, "Capabilities": [["gpu", "compute", "utility"]], "Options": {}}


def _device_env(spec: LaunchSpec) -> dict[str, str]:
    rocm = _ids(spec, "rocm")
    return {"HIP_VISIBLE_DEVICES": ",".join(rocm)} if rocm else {}


def _ids(spec: LaunchSpec, kind: str) -> list[str]:
    found = (device.partition(":") for device in spec.devices)
    return [number for name, _, number in found if name == kind]


def _cache_env(options: ContainerOptions) -> dict[str, str]:
    return {} if options.hf_cache == "no" else {"HF_HUB_CACHE": HF_CACHE}

"""What a daemon's refusals mean, in words that a person can act on."""

from __future__ import annotations

import re

from ostler.core.launch import LaunchSpec
from ostler.runtimes.base import LaunchFailed, StopFailed
from ostler.runtimes.docker_images import missing


class PortTaken(LaunchFailed):
    """The daemon chose a port that somebody else took in the same moment."""


class DaemonRefused(StopFailed):
    """The Docker daemon answered with an error that has no meaning of its own."""


DAEMON_LOG = "See the daemon's own log: journalctl -u docker"
_HINTS = {
    r"could not select device driver|nvidia-container-cli|unresolvable CDI": (
        "Install the NVIDIA Container Toolkit and restart Docker, or do without GPUs: "
        'policy.devices = ["cpu"].'
    ),
    r"bind source path does not exist|statfs": (
        "The daemon does not see this path. Where Ostler or the daemon runs in a container or a virtual "
        "machine, the folder must be there under the same path."
    ),
    r"docker-init|catatonit|init binary": (
        "Install the package that brings it: docker-init, tini or catatonit."
    ),
    r"executable file|no such file or directory|no command specified": (
        "The image is no image of this engine: see the model's runtime_options.image and engine_command."
    ),
}
_PORT = re.compile(r"port is already allocated|address already in use", re.IGNORECASE)


def launch_failed(spec: LaunchSpec, name: str, status: int, message: str) -> LaunchFailed:
    """Why a container could not be created or started."""
    if status == 404 and "image" in message.lower():
        return missing(spec.image or "", "the daemon does not have it")
    if status == 409 and "already in use" in message:
        return name_taken(name, spec, None)
    if _PORT.search(message):
        return PortTaken(f"the container {name} got a port that is taken: {message}", container=name)
    found = (hint for pattern, hint in _HINTS.items() if re.search(pattern, message, re.IGNORECASE))
    hint = next(found, DAEMON_LOG)
    return LaunchFailed(f"the container {name} cannot be started: {message}", hint=hint, container=name)


def name_taken(name: str, spec: LaunchSpec, owner: str | None) -> LaunchFailed:
    """Its name belongs to a container that is not ours."""
    whose = f"another Ostler ({owner})" if owner else "somebody else"
    hint = f"Remove it if it may go (docker rm -f {name}), or set OSTLER_DOCKER_NAME_PREFIX for this Ostler."
    return LaunchFailed(
        f"{spec.model_name} cannot start: a container named {name} is there already and belongs to {whose}",
        hint=hint,
        container=name,
    )


def not_ours(container_id: str) -> StopFailed:
    """It was to be removed, and belongs to somebody else."""
    return StopFailed(f"container {container_id[:12]} is not of this Ostler and is left alone")


def unexpected(message: str) -> DaemonRefused:
    """Any other refusal."""
    return DaemonRefused(f"the Docker daemon refused: {message}", hint=DAEMON_LOG)

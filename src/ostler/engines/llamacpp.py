"""llama.cpp's server as an engine: what runs, where the program comes from, what its answers mean."""

from __future__ import annotations

import asyncio
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from ostler.core.launch import HOST_SLOT, PORT_SLOT, LaunchSpec
from ostler.core.near import near_names
from ostler.engines.base import (
    Capabilities,
    Diagnosis,
    Engine,
    Executable,
    Health,
    HealthAnswer,
    LaunchRequest,
    NoExecutable,
    UnknownFlag,
)
from ostler.engines.command_line import is_flag
from ostler.engines.container_paths import ContainerPaths, options_inside
from ostler.engines.llamacpp_diagnosis import diagnose
from ostler.engines.llamacpp_options import TABLE
from ostler.engines.options import OptionTable
from ostler.engines.probe import Prober

SHM_BYTES = 8 * 1024**3
"""Shared memory of its containers, as Cortex gave them; a limit, not a reservation."""
BUILT_IN = (sys.executable, "-m", "ostler.engines.llama_server")
"""The llama.cpp that comes with Ostler; started as a module so that it works from any folder."""


class LlamaCpp(Engine):
    """llama-server, Ostler's own or another.

    `command` is the setting `llama_server_command`, `image` the setting `llamacpp_image`.
    """

    name: ClassVar[str] = "llamacpp"
    title: ClassVar[str] = "llama.cpp"
    formats: ClassVar[frozenset[str]] = frozenset({"gguf"})
    options: ClassVar[OptionTable] = TABLE
    owned_flags: ClassVar[frozenset[str]] = frozenset(flag for one in TABLE.owned for flag in one.flags)
    secret_env: ClassVar[tuple[str, ...]] = ("LLAMA_API_KEY",)
    health_path: ClassVar[str] = "/health"
    metrics_path: ClassVar[str | None] = "/metrics"
    metric_names: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "prompt_tokens_total": ("llamacpp:prompt_tokens_total",),
        "cached_prompt_tokens_total": ("llamacpp:prompt_tokens_cached_total",),
        "generation_tokens_total": ("llamacpp:tokens_predicted_total",),
        "prompt_seconds_total": ("llamacpp:prompt_seconds_total",),
        "generation_seconds_total": ("llamacpp:tokens_predicted_seconds_total",),
        "prompt_tokens_per_second": ("llamacpp:prompt_tokens_seconds",),
        "generation_tokens_per_second": ("llamacpp:predicted_tokens_seconds",),
        "requests_running": ("llamacpp:requests_processing",),
        "requests_waiting": ("llamacpp:requests_deferred",),
        "kv_cache_usage_ratio": ("llamacpp:kv_cache_usage_ratio",),
        "kv_cache_tokens": ("llamacpp:kv_cache_tokens",),
        "draft_tokens_total": ("llamacpp:spec_decode_num_draft_tokens_total",),
        "accepted_draft_tokens_total": ("llamacpp:spec_decode_num_accepted_tokens_total",),
        "decode_calls_total": ("llamacpp:n_decode_total",),
        "busy_slots_per_decode": ("llamacpp:n_busy_slots_per_decode",),
        "longest_context_tokens": ("llamacpp:n_tokens_max",),
    }

    def __init__(self, command: str | None = None, image: str | None = None) -> None:
        self._setting = command
        self._image = image
        self._prober = Prober()

    def launch_spec(self, request: LaunchRequest) -> LaunchSpec:
        """What exactly will run; metrics and slots are switched on unless an option says otherwise."""
        self.options.check_extra_args(request.extra_args)
        self.options.check_env(request.env)
        options = self.options.validate(request.options)
        options.setdefault("metrics", True)
        options.setdefault("slots", True)
        model, projector = str(request.model_path), request.mmproj_path and str(request.mmproj_path)
        if "mmproj" in options:
            projector = None
        spec = self._spec(request)
        if request.runtime != "process":
            paths = ContainerPaths()
            model, options = paths.add(request.model_path), options_inside(self.options, options, paths)
            projector = projector and paths.add(Path(projector))
            on_cpu = options.get("gpu_layers") == 0 and not request.devices
            spec = replace(spec, mounts=paths.mounts, devices=("cpu",) if on_cpu else spec.devices)
        arguments = ["--host", HOST_SLOT, "--port", PORT_SLOT, "--model", model]
        arguments += ["--alias", request.model_name]
        arguments += ["--mmproj", projector] if projector else []
        arguments += self.options.to_args(options)
        return replace(spec, args=(*arguments, *request.extra_args))

    def _spec(self, request: LaunchRequest) -> LaunchSpec:
        """All but the arguments and what they make visible."""
        in_container = request.runtime != "process"
        env = {} if in_container else _device_env(request.devices)  # a container is handed devices instead
        spec = LaunchSpec(
            model_id=request.model_id,
            model_name=request.model_name,
            engine=self.name,
            runtime=request.runtime,
            env={**env, **request.env},
            secret_env=self.secret_env,
            devices=request.devices,
        )
        if not in_container:
            return replace(spec, command=self._command(request)[0])
        options = {"shm_size": SHM_BYTES, **request.runtime_options}
        image = options.pop("image", None) or self._image
        command = shlex.split(request.command_override or "")
        return replace(spec, image=image, command=tuple(command), runtime_options=options)

    def _command(self, request: LaunchRequest) -> tuple[tuple[str, ...], str]:
        """The executable with its leading arguments, and where it was found."""
        for text, source in ((request.command_override, "model"), (self._setting, "setting")):
            if text and text.strip():
                return _resolve(text, source), source
        if found := shutil.which("llama-server"):
            return (found,), "path"
        return BUILT_IN, "built-in"

    def read_health(self, answer: HealthAnswer, *, was_ready: bool = False) -> Health:
        """503 is loading, 200 ready; no connection is loading before it was ready, dead after."""
        if answer.status == 200:
            return Health.READY
        if answer.status in (None, 503) and not was_ready:
            return Health.LOADING
        return Health.LOADING if answer.status == 503 else Health.DEAD

    async def executable(self, request: LaunchRequest) -> Executable:
        """The program, with its build ("b11434"). Raises NoExecutable."""
        command, source = self._command(request)
        capabilities = await self.capabilities(command)
        return Executable(command, source, capabilities.version)

    async def sees_gpus(self, request: LaunchRequest) -> bool | None:
        """By its `--list-devices`: a build for the CPU lists none. An image is not asked."""
        if request.runtime != "process":
            return False if request.devices == ("cpu",) else None
        command, _ = self._command(request)
        return await self._prober.sees_gpus(command)

    async def capabilities(self, command: Sequence[str]) -> Capabilities:
        """The flags in its `--help`. Never raises."""
        return await self._prober.probe(tuple(command))

    async def check(self, request: LaunchRequest) -> list[str]:
        """Check every flag that would be written against the program's own help; returns warnings.

        The program of an image is not asked: it says itself what it does not know when it starts.
        """
        if request.runtime != "process":
            return []
        spec = await asyncio.to_thread(self.launch_spec, request)
        capabilities = await self.capabilities(spec.command)
        warnings = [capabilities.warning] if capabilities.warning else []
        known = capabilities.flags
        if known is None:
            return warnings
        for argument in request.extra_args:
            flag = argument.partition("=")[0]
            if is_flag(flag) and flag not in known:
                raise _unknown(flag, known, spec.command, "extra_args")
        for name, value in self.options.validate(request.options).items():
            option = self.options.get(name)
            written = option.negative_flag if value is False else option.flag
            if written and written not in known:
                raise _unknown(written, known, spec.command, f"options.{name}")
        return warnings

    def diagnose(
        self, log_tail: Sequence[str], exit_code: int | None = None, *, oom_killed: bool = False
    ) -> Diagnosis | None:
        """The first rule of `llamacpp_diagnosis` that fits."""
        return diagnose(log_tail, exit_code, oom_killed=oom_killed)


def _resolve(text: str, source: str) -> tuple[str, ...]:
    """A configured command line as an argv whose first word exists. Raises NoExecutable."""
    hint = "Correct the setting llama_server_command, or unset it to use the built-in engine"
    if source == "model":
        hint = "Correct the model's own command, or take it away"
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise NoExecutable(f"the command {text!r} cannot be read: {error}", hint=hint) from None
    path = shutil.which(str(Path(words[0]).expanduser())) if words else None
    if path is None:
        missing = words[0] if words else text
        raise NoExecutable(f"the program {missing!r} does not exist or cannot be run", hint=hint)
    return (path, *words[1:])


def _device_env(devices: Sequence[str]) -> dict[str, str]:
    """Which GPUs the process may see; none named means all."""
    cuda = [match[1] for device in devices if (match := re.fullmatch(r"cuda:(\w[\w-]*)", device))]
    if cuda:
        return {"CUDA_VISIBLE_DEVICES": ",".join(cuda)}
    return {"CUDA_VISIBLE_DEVICES": ""} if tuple(devices) == ("cpu",) else {}


def _unknown(flag: str, known: frozenset[str], command: Sequence[str], field: str) -> UnknownFlag:
    near = near_names(flag, known)
    return UnknownFlag(
        field,
        f"{command[0]} does not know the flag {flag}",
        hint=f"Did you mean {' or '.join(near)}?"
        if near
        else f"See what it knows: {shlex.join(command)} --help",
        flag=flag,
        near=near,
    )

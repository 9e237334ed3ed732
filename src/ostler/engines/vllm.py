"""vLLM's OpenAI server as an engine: what runs, where the program comes from, what its answers mean."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from ostler.core.launch import HOST_SLOT, PORT_SLOT, LaunchSpec
from ostler.engines.base import (
    Capabilities,
    Diagnosis,
    Engine,
    Executable,
    Health,
    HealthAnswer,
    LaunchRequest,
    NoExecutable,
)
from ostler.engines.command_line import is_flag
from ostler.engines.container_paths import ContainerPaths, in_container, options_inside
from ostler.engines.listed_devices import device_env
from ostler.engines.options import OptionTable
from ostler.engines.probe import Prober
from ostler.engines.programs import resolve_command, unknown_flag
from ostler.engines.vllm_diagnosis import DIAGNOSIS
from ostler.engines.vllm_options import AS_OF, TABLE
from ostler.engines.vllm_program import complete, program_in, read_package

GET_IT = (
    "Install it into a virtual environment of its own (python3 -m venv ~/vllm; ~/vllm/bin/pip install vllm) "
    "and name that folder in the setting vllm_command; docs/guide.md says more"
)
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "NO_COLOR": "1",
}
"""An engine of ours loads what is on disk, tells nobody about itself and logs plain text."""
SHM_BYTES = 2 * 1024**3
"""Shared memory of its containers, as Cortex gave them; a limit, not a reservation."""
CPU_KV_CACHE_GIB = 4
"""On a CPU vLLM would take 92 % of the host's memory for its KV cache; builds for GPUs do not read this."""
SIZES_OF_MEMORY = ("cpu_kv_cache_gib", "gpu_memory_utilization", "kv_cache_memory_bytes")


class Vllm(Engine):
    """vLLM, in an environment of its own or in a container.

    `command` is the setting `vllm_command`, `image` the setting `vllm_image`.
    """

    name: ClassVar[str] = "vllm"
    as_of: ClassVar[str] = AS_OF
    programs: ClassVar[frozenset[str]] = frozenset({"vllm", "vllm.entrypoints.openai.api_server"})
    title: ClassVar[str] = "vLLM"
    formats: ClassVar[frozenset[str]] = frozenset({"safetensors"})
    options: ClassVar[OptionTable] = TABLE
    options_vary: ClassVar[bool] = True
    owned_flags: ClassVar[frozenset[str]] = frozenset(flag for one in TABLE.owned for flag in one.flags)
    secret_env: ClassVar[tuple[str, ...]] = ("VLLM_API_KEY",)
    health_path: ClassVar[str] = "/health"
    metrics_path: ClassVar[str | None] = "/metrics"
    metric_names: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "prompt_tokens_total": ("vllm:prompt_tokens_total",),
        "cached_prompt_tokens_total": (
            "vllm:prompt_tokens_cached_total",
            "vllm:prefix_cache_hits_total",
            "vllm:gpu_prefix_cache_hits_total",
        ),
        "generation_tokens_total": ("vllm:generation_tokens_total",),
        "prompt_tokens_per_second": ("vllm:avg_prompt_throughput_toks_per_s",),
        "generation_tokens_per_second": ("vllm:avg_generation_throughput_toks_per_s",),
        "requests_running": ("vllm:num_requests_running",),
        "requests_waiting": ("vllm:num_requests_waiting",),
        "requests_swapped": ("vllm:num_requests_swapped",),
        "preemptions_total": ("vllm:num_preemptions_total",),
        "kv_cache_usage_ratio": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        "cpu_kv_cache_usage_ratio": ("vllm:cpu_cache_usage_perc",),
        "time_to_first_token_seconds": ("vllm:time_to_first_token_seconds",),
        "inter_token_seconds": ("vllm:inter_token_latency_seconds", "vllm:time_per_output_token_seconds"),
        "request_seconds": ("vllm:e2e_request_latency_seconds",),
        "draft_tokens_total": ("vllm:spec_decode_num_draft_tokens_total",),
        "accepted_draft_tokens_total": ("vllm:spec_decode_num_accepted_tokens_total",),
    }

    def __init__(self, command: str | None = None, image: str | None = None) -> None:
        self._setting = command
        self._image = image
        self._prober = Prober(read_package)

    def launch_spec(self, request: LaunchRequest) -> LaunchSpec:
        """What exactly will run. In a container the image's own entry point is the program."""
        self.options.check_extra_args(request.extra_args)
        self.options.check_env(request.env)
        options = self.options.validate(request.options)
        options.setdefault("disable_uvicorn_access_log", True)  # else every health probe is a line
        if not options.keys() & set(SIZES_OF_MEMORY):
            options["cpu_kv_cache_gib"] = CPU_KV_CACHE_GIB
        path, env = str(request.model_path), {**QUIET, **self.options.to_env(options), **request.env}
        spec = LaunchSpec(
            model_id=request.model_id,
            model_name=request.model_name,
            engine=self.name,
            runtime=request.runtime,
            env=env,
            secret_env=self.secret_env,
            devices=request.devices,
        )
        if request.runtime == "process":
            env = {**device_env(request.devices), **env}
            spec = replace(spec, command=self._command(request)[0], env=env)
        else:
            paths = ContainerPaths()
            path, options = paths.add(request.model_path), options_inside(self.options, options, paths)
            spec = in_container(spec, request, paths, image=self._image, shm_bytes=SHM_BYTES)
        # `vllm serve` takes the model first; as a module, and as an image of any age, it knows --model.
        model = [path] if spec.command[-1:] == ("serve",) else ["--model", path]
        arguments = [*model, "--served-model-name", request.model_name]
        arguments += ["--host", HOST_SLOT, "--port", PORT_SLOT, *self.options.to_args(options)]
        return replace(spec, args=(*arguments, *request.extra_args))

    def _command(self, request: LaunchRequest) -> tuple[tuple[str, ...], str]:
        """The program with its leading arguments, and where it was found. Raises NoExecutable."""
        for text, source in ((request.command_override, "model"), (self._setting, "setting")):
            if text and text.strip():
                return self._configured(text, source), source
        if found := shutil.which("vllm"):
            return complete((found,)), "path"
        raise NoExecutable("vLLM is not installed here", hint=GET_IT, optional=True)

    @staticmethod
    def _configured(text: str, source: str) -> tuple[str, ...]:
        hint = (
            "Correct the setting vllm_command" if source == "setting" else "Correct the model's own command"
        )
        folder = Path(text.strip()).expanduser()
        if not folder.is_dir():
            return complete(resolve_command(text, hint))
        if program := program_in(folder):
            return program
        raise NoExecutable(f"{folder} is not a virtual environment with vLLM in it", hint=f"{hint}. {GET_IT}")

    def read_health(self, answer: HealthAnswer, *, was_ready: bool = False) -> Health:
        """200 is ready; no connection is loading before it was ready, dead after; 503 says it is dead."""
        if answer.status == 200:
            return Health.READY
        return Health.LOADING if answer.status is None and not was_ready else Health.DEAD

    async def executable(self, request: LaunchRequest) -> Executable:
        """The program, with vLLM's version ("0.32.0"). Raises NoExecutable."""
        command, source = await asyncio.to_thread(self._command, request)
        return Executable(command, source, (await self.capabilities(command)).version)

    async def sees_gpus(self, request: LaunchRequest) -> bool | None:
        """By the packages beside it: one built for the CPU sees none. An image is not asked."""
        if request.runtime != "process":
            return False if request.devices == ("cpu",) else None
        command, _ = await asyncio.to_thread(self._command, request)
        return (await self.capabilities(command)).sees_gpus

    async def capabilities(self, command: Sequence[str]) -> Capabilities:
        """The flags in its source. Never raises."""
        return await self._prober.probe(tuple(command))

    async def check(self, request: LaunchRequest) -> list[str]:
        """Check every flag that would be written against vLLM's own parser; returns warnings."""
        spec = await asyncio.to_thread(self.launch_spec, request)
        given = self.options.validate(request.options)
        warnings = [
            f"{name} is kept but not passed on: vLLM has been without it since {row.until}"
            for name in given
            if (row := self.options.get(name)).until
        ]
        if request.runtime != "process":
            return warnings  # the program of an image is not asked
        capabilities = await self.capabilities(spec.command)
        if capabilities.warning:
            warnings.append(capabilities.warning)
        if (known := capabilities.flags) is None:
            return warnings
        for argument in request.extra_args:
            if is_flag(argument) and not _knows(known, argument):
                raise unknown_flag(argument.partition("=")[0], known, spec.command, "extra_args")
        for name in given:
            row = self.options.get(name)
            if row.flag and row.until is None and not _knows(known, row.flag):
                raise unknown_flag(row.flag, known, spec.command, f"options.{name}")
        return warnings

    def diagnose(
        self, log_tail: Sequence[str], exit_code: int | None = None, *, oom_killed: bool = False
    ) -> Diagnosis | None:
        """The first rule of `vllm_diagnosis` that fits."""
        return DIAGNOSIS.diagnose(log_tail, exit_code, oom_killed=oom_killed)

    def notes(self, log_tail: Sequence[str]) -> list[Diagnosis]:
        """Warnings that `vllm_diagnosis` knows: a slow step, no chat template."""
        return DIAGNOSIS.notes_on(log_tail)


def _knows(known: frozenset[str], argument: str) -> bool:
    """Whether vLLM's parser takes it: it reads `--a_b`, `--no-a-b`, `--a-b.key=1`, `--a-b+` and `-O3` too."""
    if argument.startswith("-O"):
        return "--optimization-level" in known or "-O" in known
    flag = argument.partition("=")[0]
    if flag.startswith("--"):
        flag = flag.partition(".")[0].rstrip("+").replace("_", "-")
    return flag in known or "--" + flag.removeprefix("--no-") in known

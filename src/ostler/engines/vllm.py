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
    Health,
    HealthAnswer,
    LaunchRequest,
    NoExecutable,
)
from ostler.engines.command_line import is_flag
from ostler.engines.container_paths import ContainerPaths, in_container, options_inside
from ostler.engines.diagnosis import Rules
from ostler.engines.listed_devices import device_env
from ostler.engines.options import OptionTable
from ostler.engines.probe import Prober
from ostler.engines.program_engine import ProgramEngine
from ostler.engines.programs import resolve_command, unknown_flag
from ostler.engines.start_summary import StartSummary, summarize_vllm
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


class Vllm(ProgramEngine):
    """vLLM, in an environment of its own or in a container.

    `command` is the setting `vllm_command`, `image` the setting `vllm_image`.
    """

    name: ClassVar[str] = "vllm"
    as_of: ClassVar[str] = AS_OF
    programs: ClassVar[frozenset[str]] = frozenset({"vllm", "vllm.entrypoints.openai.api_server"})
    title: ClassVar[str] = "vLLM"
    formats: ClassVar[frozenset[str]] = frozenset({"safetensors"})
    serves: ClassVar[str] = "reads the Hugging Face format natively and serves many requests at once"
    options: ClassVar[OptionTable] = TABLE
    options_vary: ClassVar[bool] = True
    secret_env: ClassVar[tuple[str, ...]] = ("VLLM_API_KEY",)
    context_keys: ClassVar[tuple[str, ...]] = ("max_model_len",)
    known_ends: ClassVar[Rules] = DIAGNOSIS
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
        super().__init__(command, image, Prober(read_package))

    def launch_spec(self, request: LaunchRequest) -> LaunchSpec:
        """What exactly will run. In a container the image's own entry point is the program."""
        spec = self._spec(request)
        options = self.options.validate(request.options)
        options.setdefault("disable_uvicorn_access_log", True)  # else every health probe is a line
        if not options.keys() & set(SIZES_OF_MEMORY):
            options["cpu_kv_cache_gib"] = CPU_KV_CACHE_GIB
        path, env = str(request.model_path), {**QUIET, **self.options.to_env(options), **request.env}
        spec = replace(spec, env=env)
        if request.runtime == "process":
            env = {**device_env(request.devices), **env}
            spec = replace(spec, command=self._command(request)[0], env=env)
        else:
            paths = ContainerPaths()
            path, options = paths.add(request.model_path), options_inside(self.options, options, paths)
            spec = in_container(spec, request, paths, image=self.image, shm_bytes=SHM_BYTES)
        # `vllm serve` takes the model first; as a module, and as an image of any age, it knows --model.
        model = [path] if spec.command[-1:] == ("serve",) else ["--model", path]
        arguments = [*model, "--served-model-name", request.model_name]
        arguments += ["--host", HOST_SLOT, "--port", PORT_SLOT, *self.options.to_args(options)]
        return replace(spec, args=(*arguments, *request.extra_args))

    def _found(self) -> tuple[tuple[str, ...], str]:
        if found := shutil.which("vllm"):
            return complete((found,)), "path"
        raise NoExecutable("vLLM is not installed here", hint=GET_IT, optional=True)

    def _configured(self, text: str, source: str) -> tuple[str, ...]:
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

    async def sees_gpus(self, request: LaunchRequest) -> bool | None:
        """By the packages beside it: one built for the CPU sees none. An image is not asked."""
        if request.runtime != "process":
            return False if request.devices == ("cpu",) else None
        command, _ = await asyncio.to_thread(self._command, request)
        return (await self.capabilities(command)).sees_gpus

    def start_summary(self, log: Sequence[str]) -> StartSummary | None:
        """Weights, cache and warnings."""
        return summarize_vllm(log)

    async def check(self, request: LaunchRequest) -> list[str]:
        """Check every flag that would be written against vLLM's own parser; returns warnings."""
        spec = await asyncio.to_thread(self.launch_spec, request)
        given = self.options.validate(request.options)
        if request.runtime != "process":
            return []  # the program of an image is not asked
        capabilities = await self.capabilities(spec.command)
        warnings = [capabilities.warning] if capabilities.warning else []
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


def _knows(known: frozenset[str], argument: str) -> bool:
    """Whether vLLM's parser takes it: it reads `--a_b`, `--no-a-b`, `--a-b.key=1`, `--a-b+` and `-O3` too."""
    if argument.startswith("-O"):
        return "--optimization-level" in known or "-O" in known
    flag = argument.partition("=")[0]
    if flag.startswith("--"):
        flag = flag.partition(".")[0].rstrip("+").replace("_", "-")
    return flag in known or "--" + flag.removeprefix("--no-") in known

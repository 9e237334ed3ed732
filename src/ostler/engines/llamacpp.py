"""llama.cpp's server as an engine: what runs, where the program comes from, what its answers mean."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from ostler.core.launch import HOST_SLOT, PORT_SLOT, LaunchSpec
from ostler.engines.base import (
    Health,
    HealthAnswer,
    LaunchRequest,
)
from ostler.engines.command_line import is_flag
from ostler.engines.container_paths import ContainerPaths, in_container, options_inside
from ostler.engines.diagnosis import Rules
from ostler.engines.fit_memory import Asker, EngineMemory
from ostler.engines.listed_devices import ListedDevice, device_env
from ostler.engines.llamacpp_diagnosis import DIAGNOSIS
from ostler.engines.llamacpp_options import AS_OF, NO_MEMORY, TABLE
from ostler.engines.options import OptionTable
from ostler.engines.probe import Prober
from ostler.engines.program_engine import ProgramEngine
from ostler.engines.programs import resolve_command, unknown_flag
from ostler.engines.sameness import file_state, program_state
from ostler.engines.start_summary import StartSummary, summarize_llama_cpp

SHM_BYTES = 8 * 1024**3
"""Shared memory of its containers, as Cortex gave them; a limit, not a reservation."""
BUILT_IN = (sys.executable, "-m", "ostler.engines.llama_server")
"""The llama.cpp that comes with Ostler; started as a module so that it works from any folder."""


HINTS = {
    "model": "Correct the model's own command, or take it away",
    "setting": "Correct the setting llama_server_command, or unset it to use the built-in engine",
}
"""What to do about a command that cannot be run, by where it was said."""


ALIAS = "--alias"


class LlamaCpp(ProgramEngine):
    """llama-server, Ostler's own or another.

    `command` is the setting `llama_server_command`, `image` the setting `llamacpp_image`.
    """

    name: ClassVar[str] = "llamacpp"
    as_of: ClassVar[str] = AS_OF
    programs: ClassVar[frozenset[str]] = frozenset({"llama-server", "llama-cpp-server", "llama", "server"})
    title: ClassVar[str] = "llama.cpp"
    formats: ClassVar[frozenset[str]] = frozenset({"gguf"})
    serves: ClassVar[str] = "reads GGUF files as they are, in one part or several, on GPUs and processors"
    options: ClassVar[OptionTable] = TABLE
    secret_env: ClassVar[tuple[str, ...]] = ("LLAMA_API_KEY",)
    known_ends: ClassVar[Rules] = DIAGNOSIS
    health_path: ClassVar[str] = "/health"
    metrics_path: ClassVar[str | None] = "/metrics"
    slots_path: ClassVar[str | None] = "/slots"
    no_memory: ClassVar[frozenset[str]] = NO_MEMORY
    context_keys: ClassVar[tuple[str, ...]] = ("meta", "n_ctx")
    spreads_over_gpus: ClassVar[bool] = True
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
        super().__init__(command, image, Prober())
        self._asker = Asker()

    def launch_spec(self, request: LaunchRequest) -> LaunchSpec:
        """What exactly will run; metrics and slots are switched on unless an option says otherwise."""
        spec = self._spec(request)
        options = self.options.validate(request.options)
        options.setdefault("metrics", True)
        options.setdefault("slots", True)
        model, projector = str(request.model_path), request.mmproj_path
        if projector is not None and "mmproj" not in options:
            options["mmproj"] = str(projector)
        if request.runtime == "process":
            env = {**device_env(request.devices), **request.env}
            spec = replace(spec, command=self._command(request)[0], env=env)
        else:
            paths = ContainerPaths()
            model, options = paths.add(request.model_path), options_inside(self.options, options, paths)
            on_cpu = options.get("gpu_layers") == 0 and not request.devices
            spec = replace(spec, env=request.env, devices=("cpu",) if on_cpu else spec.devices)
            spec = in_container(spec, request, paths, image=self.image, shm_bytes=SHM_BYTES)
        arguments = ["--host", HOST_SLOT, "--port", PORT_SLOT, "--model", model]
        arguments += [ALIAS, request.model_name, *self.options.to_args(options)]
        return replace(spec, args=(*arguments, *request.extra_args))

    def shared_form(self, spec: LaunchSpec) -> LaunchSpec | None:
        """Without the alias: llama-server takes requests for any name."""
        if ALIAS not in spec.args:
            return None
        at = spec.args.index(ALIAS)
        return replace(spec, model_id=0, model_name="", args=(*spec.args[:at], *spec.args[at + 2 :]))

    def served_name(self, spec: LaunchSpec) -> str | None:
        """Its alias, whatever was asked for (`oaicompat_model` in server-context.cpp)."""
        return spec.args[spec.args.index(ALIAS) + 1] if ALIAS in spec.args else None

    def _configured(self, text: str, source: str) -> tuple[str, ...]:
        return resolve_command(text, HINTS[source])

    def _found(self) -> tuple[tuple[str, ...], str]:
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

    async def devices(
        self, request: LaunchRequest, *, fresh: bool = False
    ) -> tuple[ListedDevice, ...] | None:
        """By its `--list-devices`: a build for the CPU lists none. The program of an image is not asked."""
        if request.runtime != "process":
            return () if request.devices == ("cpu",) else None
        command, _ = self._command(request)
        return await self._prober.devices(command, fresh=fresh)

    async def memory(self, request: LaunchRequest, *, ask: bool = True) -> EngineMemory | None:
        """By the built-in engine's `--fit-memory`; llama-server has nothing of the kind."""
        spec = await asyncio.to_thread(self.launch_spec, request)
        if spec.command != BUILT_IN or request.mmproj_path or "mmproj" in request.options:
            return None  # it does not count a projector
        key = await asyncio.to_thread(_memory_key, spec, request)
        return await self._asker.ask(spec, key) if ask else self._asker.known(key)

    async def knows(self, request: LaunchRequest, option: str) -> bool | None:
        """By its `--help`; the built-in one takes every option of the table."""
        command, source = self._command(request)
        if source == "built-in":
            return True
        row = self.options.get(option)
        flags = {self.options.get(name).flag for name in row.stands_for or (row.name,)}
        known = (await self.capabilities(command)).flags
        return None if known is None else flags <= known

    def start_summary(self, log: Sequence[str]) -> StartSummary | None:
        """Weights, cache and warnings."""
        return summarize_llama_cpp(log)

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
                raise unknown_flag(flag, known, spec.command, "extra_args")
        for name, value in self.options.validate(request.options).items():
            option = self.options.get(name)
            written = option.negative_flag if value is False else option.flag
            if written and written not in known:
                raise unknown_flag(written, known, spec.command, f"options.{name}")
        return warnings


def _memory_key(spec: LaunchSpec, request: LaunchRequest) -> str:
    """Changes with whatever could change the program's answer."""
    facts = (program_state(spec), spec.args, sorted(spec.env.items()), file_state(request.model_path))
    return repr(facts)

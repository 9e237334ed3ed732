"""Make a real vLLM fail in many ways and keep what it said: `python -m tests.real.provoke_vllm [NAME ...]`.

Each fault is run for itself; what it printed goes, without the lines of tracebacks, to
tests/engines/logs/vllm/NAME.log. The rules of `vllm_diagnosis` are tested on those files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.hub.server import HubServer

CHECKOUT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("OSTLER_SHARED", CHECKOUT.parent / "shared"))
LOGS = CHECKOUT / "tests" / "engines" / "logs" / "vllm"
LIMIT_S = 180
NOISE = re.compile(
    r"^\s*$|^(\([^)]*\) )?(ERROR [^\]]*\])?\s+File"
    r" \"|^\s+[\^~]+\s*$|\bINFO\b|nanobind|resource_tracker|leaked|DeprecationWarning|FutureWarning"
)
FRAME = re.compile(r"^(\([^)]*\) )?(ERROR [^\]]*\] )?\s{4,}\S|^usage: |^ +\[-")


@dataclass
class Fault:
    """How vLLM is run for one fault: changes to the demo model's folder, flags, variables."""

    arguments: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    model: str | None = None


Build = Callable[[Path, ExitStack], Fault]
"""Prepares a copy of the demo model's folder; what it opens on the stack ends with the fault."""


def _config(**changes: Any) -> Build:
    def build(folder: Path, stack: ExitStack) -> Fault:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return Fault()

    return build


def _flags(*arguments: str, **env: str) -> Build:
    return lambda folder, stack: Fault(list(arguments), env)


def _missing(*names: str) -> Build:
    def build(folder: Path, stack: ExitStack) -> Fault:
        for name in names:
            (folder / name).unlink()
        return Fault()

    return build


def _cut(folder: Path, stack: ExitStack) -> Fault:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100_000])
    return Fault()


def _no_safetensors(folder: Path, stack: ExitStack) -> Fault:
    (folder / "model.safetensors").write_bytes(b"\xff" * 4096)
    return Fault()


def _shard_gone(folder: Path, stack: ExitStack) -> Fault:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"model.embed_tokens.weight": "model-00002-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return Fault()


def _broken_json(folder: Path, stack: ExitStack) -> Fault:
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"')
    return Fault()


def _worker(source: str) -> Build:
    """A class for the worker process whose module does this when it is imported."""

    def build(folder: Path, stack: ExitStack) -> Fault:
        (folder / "own_worker.py").write_text(source)
        return Fault(["--worker-cls", "own_worker.Worker"], {"PYTHONPATH": str(folder)})

    return build


def _port_taken(folder: Path, stack: ExitStack) -> Fault:
    taken = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
    return Fault(["--port", str(taken.getsockname()[1])])


def _not_readable(folder: Path, stack: ExitStack) -> Fault:
    """Weights that may not be read; root loses what lets it read them nevertheless."""
    (folder / "model.safetensors").chmod(0)
    lost = "--bounding-set=-dac_override,-dac_read_search"
    return Fault(prefix=("setpriv", lost, "--inh-caps=-all") if os.geteuid() == 0 else ())


def _hub(status: str) -> Build:
    def build(folder: Path, stack: ExitStack) -> Fault:
        hub = stack.enter_context(HubServer())
        if status == "gated":
            hub.add_repo("org/gated", {"config.json": b"{}"}, gated=True)
        env = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_OFFLINE": "0"}
        return Fault(env=env, model="org/gated" if status == "gated" else "org/absent")

    return build


FAULTS: Mapping[str, Build] = {
    "tokenizer_offline": _flags("--tokenizer", "org/absent"),
    "hub_offline": lambda folder, stack: Fault(model="org/absent"),
    "hub_absent": _hub("absent"),
    "hub_gated": _hub("gated"),
    "hub_unreachable": lambda folder, stack: Fault(
        model="org/absent", env={"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    ),
    "folder_missing": lambda folder, stack: Fault(model=str(folder / "absent")),
    "model_type_unknown": _config(model_type="qwen9", architectures=["Qwen9ForCausalLM"]),
    "architecture_unknown": _config(architectures=["NopeForCausalLM"]),
    "needs_remote_code": _config(
        model_type="own",
        auto_map={"AutoConfig": "configuration_own.OwnConfig"},
        architectures=["OwnForCausalLM"],
    ),
    "flag_unknown": _flags("--no-such-flag", "1"),
    "choice_invalid": _flags("--dtype", "int3"),
    "value_invalid": _flags("--max-num-seqs", "many"),
    "context_too_long": _flags("--max-model-len", "1000000"),
    "kv_cache_none": _flags("--num-gpu-blocks-override", "1", "--max-model-len", "1024"),
    "kv_cache_over_memory": _flags(VLLM_CPU_KVCACHE_SPACE="4000"),
    "too_many_parallel": _flags("--tensor-parallel-size", "4"),
    "heads_not_divisible": _flags("--tensor-parallel-size", "3"),
    "quantization_mismatch": _flags("--quantization", "awq"),
    "quantization_unknown": _flags("--quantization", "int3"),
    "module_missing": _worker("import absent_module\n"),
    "library_missing": _worker("import ctypes\nctypes.CDLL('libcudart.so.99')\n"),
    "tool_parser_unknown": _flags("--enable-auto-tool-choice", "--tool-call-parser", "nope"),
    "tool_parser_missing": _flags("--enable-auto-tool-choice"),
    "reasoning_parser_unknown": _flags("--reasoning-parser", "nope"),
    "chat_template_missing": _flags("--chat-template", "/absent/template.jinja"),
    "attention_backend_unknown": _flags("--attention-backend", "NOPE"),
    "lora_missing": _flags("--enable-lora", "--lora-modules", "a=/absent/adapter"),
    "draft_missing": _flags(
        "--spec-method", "draft_model", "--spec-model", "/absent/draft", "--spec-tokens", "2"
    ),
    "weights_missing": _missing("model.safetensors"),
    "weights_cut": _cut,
    "weights_broken": _no_safetensors,
    "weights_other_shape": _config(hidden_size=512),
    "shard_missing": _shard_gone,
    "config_missing": _missing("config.json"),
    "config_broken": _broken_json,
    "tokenizer_missing": _missing("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"),
    "port_taken": _port_taken,
    "permission_denied": _not_readable,
}


FORKER = """
import json, os, sys
from vllm.entrypoints.launchers.api_server import entry
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setsid()
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(log, stream)
        os.environ.update(job["env"])
        sys.argv[1:] = job["arguments"]
        entry.main()
        os._exit(0)
    print(child, flush=True)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""
"""Imports vLLM once and forks for each fault: its import takes longer than most faults need to show."""


class Forker:
    """A vLLM that is loaded and waits for faults."""

    def __init__(self, python: Path, fault: Fault | None = None) -> None:
        fault = fault or Fault()
        self._python = python
        quiet = {
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "NO_COLOR": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1",
        }
        self._process = subprocess.Popen(
            [*fault.prefix, str(python), "-c", FORKER],
            env={**os.environ, **quiet, **fault.env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, name: str) -> tuple[int, list[str]]:
        """Run vLLM with that fault; its exit code and what it said."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="provoke-"))) / "model"
            shutil.copytree(SHARED / "demo-model" / "hf", folder)
            fault = FAULTS[name](folder, stack)
            if (
                fault.env.keys() & {"HF_ENDPOINT", "PYTHONPATH"} or fault.prefix
            ):  # a fresh one: both hold from its first moment
                fresh = Forker(self._python, fault)
                stack.callback(fresh.close)
                return fresh._run(name, fault, folder)
            return self._run(name, fault, folder)

    def _run(self, name: str, fault: Fault, folder: Path) -> tuple[int, list[str]]:
        log = Path(tempfile.gettempdir()) / f"vllm-{name}.log"
        arguments = ["--model", fault.model or str(folder), "--host", "127.0.0.1", "--port", "0"]
        arguments += ["--enforce-eager", "--dtype", "bfloat16", *fault.arguments]
        job = {"log": str(log), "env": fault.env, "arguments": arguments}
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        group = int(self._process.stdout.readline())
        late = threading.Timer(LIMIT_S, _end, [group])
        late.start()
        code = int(self._process.stdout.readline())
        late.cancel()
        _end(group)
        text = log.read_text(errors="replace").replace(str(folder.parent), "/models")
        return code, text.replace(str(self._python.parents[1]), "/venv").splitlines()

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def _end(group: int) -> None:
    """Whatever is left of it: its processes share a session."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def excerpt(lines: list[str]) -> list[str]:
    """What a person reads: no frames of tracebacks, no news of a healthy start, no line twice."""
    kept = [line[:400] for line in lines if not NOISE.search(line) and not FRAME.match(line)]
    return list(dict.fromkeys(kept))


def main(names: list[str]) -> int:
    """Run the named faults, or all."""
    python = Path(os.environ["OSTLER_TEST_VLLM"]) / "bin" / "python"
    LOGS.mkdir(parents=True, exist_ok=True)
    forker = Forker(python)
    for name in names or FAULTS:
        code, lines = forker.run(name)
        (LOGS / f"{name}.log").write_text("\n".join([*excerpt(lines), ""]))
        print(f"{name}: exit code {code}, {len(lines)} lines", flush=True)
    forker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

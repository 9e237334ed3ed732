"""Make a real llama-server fail in many ways and keep what it said: `python -m tests.real.provoke_llamacpp`.

Each fault is run for itself with the demo model; what it printed goes to
tests/engines/logs/llamacpp/NAME.log. The rules of `llamacpp_diagnosis` are tested on those files.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.hub.server import HubServer

CHECKOUT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("OSTLER_SHARED", CHECKOUT.parent / "shared"))
DEMO = SHARED / "demo-model"
LOGS = CHECKOUT / "tests" / "engines" / "logs" / "llamacpp"
LIMIT_S = 10
HEAD_LINES, TAIL_LINES = 20, 30


@dataclass
class Fault:
    """How llama-server is run for one fault; without `model` the arguments name the model themselves."""

    arguments: list[str] = field(default_factory=list)
    model: Path | None = None
    env: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    program: Path | None = None


Build = Callable[[Path, ExitStack], Fault]
"""Prepares an empty folder; what it opens on the stack ends with the fault."""


def _demo(folder: Path) -> Path:
    return Path(shutil.copy(DEMO / "ostler-demo-Q8_0.gguf", folder / "demo.gguf"))


def _flags(*arguments: str, **env: str) -> Build:
    return lambda folder, stack: Fault(list(arguments), _demo(folder), env)


def _patched(old: bytes, new: bytes) -> Build:
    """The demo model with these bytes of its header replaced by as many others."""

    def build(folder: Path, stack: ExitStack) -> Fault:
        path = _demo(folder)
        content = path.read_bytes()
        assert len(old) == len(new) and old in content
        path.write_bytes(content.replace(old, new, 1))
        return Fault(model=path)

    return build


def _text(folder: Path, stack: ExitStack) -> Fault:
    path = folder / "demo.gguf"
    path.write_text("<html>not a model, but the page that a proxy sent</html>\n" * 20)
    return Fault(model=path)


def _cut(folder: Path, stack: ExitStack) -> Fault:
    path = _demo(folder)
    path.write_bytes(path.read_bytes()[:-200_000])
    return Fault(model=path)


def _shard_gone(folder: Path, stack: ExitStack) -> Fault:
    shutil.copytree(DEMO / "split", folder / "split")
    (folder / "split" / "ostler-demo-F16-00002-of-00003.gguf").unlink()
    return Fault(model=folder / "split" / "ostler-demo-F16-00001-of-00003.gguf")


def _second_shard(folder: Path, stack: ExitStack) -> Fault:
    shutil.copytree(DEMO / "split", folder / "split")
    return Fault(model=folder / "split" / "ostler-demo-F16-00002-of-00003.gguf")


def _port_taken(folder: Path, stack: ExitStack) -> Fault:
    taken = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
    return Fault(["--port", str(taken.getsockname()[1])], _demo(folder))


def _not_readable(folder: Path, stack: ExitStack) -> Fault:
    """A model that may not be read; root loses what lets it read it nevertheless."""
    path = _demo(folder)
    path.chmod(0)
    lost = "--bounding-set=-dac_override,-dac_read_search"
    return Fault(model=path, prefix=("setpriv", lost, "--inh-caps=-all") if os.geteuid() == 0 else ())


def _beside(flag: str, *more: str) -> Build:
    """The demo model given once more for what it is not: a projector, an adapter."""
    return lambda folder, stack: Fault([flag, str(_demo(folder)), *more], _demo(folder))


def _broken_beside(flag: str) -> Build:
    def build(folder: Path, stack: ExitStack) -> Fault:
        (folder / "broken.gguf").write_bytes(b"not a gguf")
        return Fault([flag, str(folder / "broken.gguf")], _demo(folder))

    return build


def _with_little_memory(*arguments: str) -> Build:
    """4 GB of addresses, so that nothing is really taken."""
    fixed = ("--fit", "off", "--parallel", "1", *arguments)
    return lambda folder, stack: Fault(list(fixed), _demo(folder), prefix=("prlimit", "--as=4000000000"))


def _disk_full(folder: Path, stack: ExitStack) -> Fault:
    """Its cache of downloads lies on a file system that is full."""
    hub = stack.enter_context(HubServer())
    hub.add_repo("org/demo", {"demo-Q8_0.gguf": (DEMO / "ostler-demo-Q8_0.gguf").read_bytes()})
    small = folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(small)], check=True)
    stack.callback(subprocess.run, ["umount", "-l", str(small)], check=True)
    env = {"HF_ENDPOINT": hub.endpoint, "LLAMA_CACHE": str(small), "HF_HUB_CACHE": str(small)}
    return Fault(["--hf-repo", "org/demo"], env=env)


def _hub(**repo: object) -> Build:
    def build(folder: Path, stack: ExitStack) -> Fault:
        hub = stack.enter_context(HubServer())
        if repo:
            hub.add_repo("org/gated", {"demo-Q8_0.gguf": b"GGUF"}, gated=True)
        env = {"HF_ENDPOINT": hub.endpoint, "LLAMA_CACHE": str(folder), "HF_HUB_CACHE": str(folder)}
        return Fault(["--hf-repo", "org/gated" if repo else "org/absent"], env=env)

    return build


def _library_missing(folder: Path, stack: ExitStack) -> Fault:
    """A copy of the program that asks for a library which no system has."""
    copy = Path(shutil.copy(program(), folder / "llama-server"))
    copy.write_bytes(copy.read_bytes().replace(b"libstdc++.so.6", b"libstdcXX.so.6"))
    return Fault(model=_demo(folder), program=copy)


FAULTS: Mapping[str, Build] = {
    "not_a_gguf": _text,
    "file_missing": lambda folder, stack: Fault(model=folder / "absent.gguf"),
    "file_cut": _cut,
    "permission_denied": _not_readable,
    "architecture_unknown": _patched(b"\x05\x00\x00\x00\x00\x00\x00\x00llama", b"\x05\0\0\0\0\0\0\0nopes"),
    "tensor_missing": _patched(b"output_norm.weight", b"output_nope.weight"),
    "tokenizer_unknown": _patched(b"\x05" + b"\0" * 7 + b"gpt-2", b"\x05" + b"\0" * 7 + b"gpt-9"),
    "tokenizer_unnamed": _patched(b"tokenizer.ggml.pre", b"tokenizer.ggml.prx"),
    "context_over_training": _flags("--ctx-size", "4096", "--parallel", "1"),
    "shard_missing": _shard_gone,
    "shard_second": _second_shard,
    "flag_unknown": _flags("--no-such-flag", "1"),
    "value_invalid": _flags("--ctx-size", "many"),
    "value_missing": _flags("--ctx-size"),
    "cache_type_unknown": _flags("--cache-type-k", "q3_9"),
    "quantized_v_without_flash_attention": _flags("--cache-type-v", "q8_0", "--flash-attn", "off"),
    "port_taken": _port_taken,
    "projector_wrong": _beside("--mmproj"),
    "projector_broken": _broken_beside("--mmproj"),
    "projector_missing": _flags("--mmproj", "/absent/mmproj.gguf"),
    "adapter_wrong": _beside("--lora"),
    "adapter_missing": _flags("--lora", "/absent/lora.gguf"),
    "draft_missing": _flags("--model-draft", "/absent/draft.gguf"),
    "context_too_large": _with_little_memory("--ctx-size", "20000000"),
    "allocation_failed": _with_little_memory(
        "--ctx-size", "262144", "--batch-size", "65536", "--ubatch-size", "65536"
    ),
    "chat_template_unknown": _flags("--chat-template", "no-such-template", "--no-jinja"),
    "chat_template_broken": _flags("--chat-template", "{% if messages %}{{ messages[0] ", "--jinja"),
    "chat_template_file_missing": _flags("--chat-template-file", "/absent/template.jinja"),
    "grammar_file_missing": _flags("--grammar-file", "/absent/grammar.gbnf"),
    "device_unknown": _flags("--device", "CUDA7"),
    "hub_gated": _hub(gated=True),
    "hub_absent": _hub(),
    "hub_unreachable": lambda folder, stack: Fault(
        ["--hf-repo", "org/absent"],
        env={"HF_ENDPOINT": "http://127.0.0.1:9", "LLAMA_CACHE": str(folder), "HF_HUB_CACHE": str(folder)},
    ),
    "disk_full": _disk_full,
    "library_missing": _library_missing,
}


def program() -> Path:
    """The real llama-server: OSTLER_TEST_LLAMA_SERVER, or the one beside the checkout."""
    named = os.environ.get("OSTLER_TEST_LLAMA_SERVER")
    return Path(named) if named else CHECKOUT / ".venv-llama" / "bin" / "llama-server"


def run(name: str) -> tuple[int | None, list[str]]:
    """Run llama-server with that fault: its exit code (None: it did not end) and what it said."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="provoke-")))
        fault = FAULTS[name](folder, stack)
        command = [*fault.prefix, str(fault.program or program()), "--host", "127.0.0.1"]
        command += [] if "--port" in fault.arguments else ["--port", "0"]
        command += ["--model", str(fault.model)] if fault.model else []
        try:
            ended = subprocess.run(
                [*command, *fault.arguments],
                env={**os.environ, "LLAMA_ARG_NO_WEBUI": "1", **fault.env},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=LIMIT_S,
                check=False,
            )
            code, output = ended.returncode, ended.stdout
        except subprocess.TimeoutExpired as still_running:
            code, output = None, still_running.stdout or b""
        text = output.decode(errors="replace").replace(str(folder), "/models")
        return code, text.replace(str(program()), "llama-server").splitlines()


def excerpt(lines: list[str]) -> list[str]:
    """The beginning and the end."""
    kept = [line[:400] for line in lines if line.strip()]
    if len(kept) <= HEAD_LINES + TAIL_LINES:
        return kept
    return [*kept[:HEAD_LINES], *kept[-TAIL_LINES:]]


def main(names: list[str]) -> int:
    """Run the named faults, or all."""
    LOGS.mkdir(parents=True, exist_ok=True)
    for name in names or FAULTS:
        code, lines = run(name)
        (LOGS / f"{name}.log").write_text("\n".join([*excerpt(lines), ""]))
        print(f"{name}: exit code {code}, {len(lines)} lines", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

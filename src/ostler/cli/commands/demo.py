"""`ostler demo`: everything once, on this machine, without network, and nothing left behind."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ostler.cli import human
from ostler.cli.chat import Conversation
from ostler.cli.client import Client, Json, model_path
from ostler.cli.connection import RunningServer, wait_until_ready
from ostler.cli.failures import CommandFailed
from ostler.cli.output import paint, print_facts
from ostler.cli.starting import start_and_watch

MODEL_FILE = "ostler-demo-Q8_0.gguf"
QUESTION = "What is the capital of France?"
END_TIMEOUT_S = 20.0


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server running to play with.")] = False,
) -> None:
    """From a model file to an answer, with a tiny model, in seconds.

    Uses a server and data of its own, needs no network, and leaves nothing behind.
    """
    with _termination_as_interrupt(), demo_server(keep=keep) as (running, folder):
        client = Client(running.url)
        _say(f"A server of its own is ready at {running.url}")
        model = client.post("/models", {"name": "demo", "source": {"path": str(_model_file())}})
        name = str(model["name"])
        _show_model(client.get(model_path(name)))
        _show_launch(client.post(model_path(name, "dry-run"), {}))
        _say("Starting it:")
        start_and_watch(client, name, say=lambda text: print(f"    {text}", flush=True))
        print()
        _ask(client, name)
        _say_how_to_go_on(running, folder, keep)


def _model_file() -> Path:
    """The demo model that ships in this package."""
    from importlib.resources import files

    path = Path(str(files("ostler.data").joinpath(MODEL_FILE)))
    if not path.is_file():
        raise CommandFailed(f"the demo model {path} is missing", hint="Install Ostler again.")
    return path


def _say(text: str) -> None:
    print(paint(text, "bold"), flush=True)


def _show_model(model: Json) -> None:
    file_set = model.get("file_set") or {}
    facts = file_set.get("facts") or {}
    print_facts(
        "What it is",
        [
            ("file", str(file_set.get("path"))),
            ("architecture", facts.get("architecture")),
            ("parameters", human.count(facts.get("parameters"))),
            ("quantization", facts.get("quantization")),
            ("context length", f"{facts.get('context_length')} tokens"),
            ("size", human.size(file_set.get("size_bytes"))),
        ],
    )


def _show_launch(plan: Json) -> None:
    needs = plan.get("needs") or {}
    print_facts(
        "What it needs (memory, estimated)",
        [
            ("weights", human.size(needs.get("weights_bytes"))),
            ("KV cache", human.size(needs.get("kv_cache_bytes"))),
            ("compute buffer", human.size(needs.get("compute_bytes"))),
            ("in all", human.size(needs.get("total_bytes"))),
        ],
    )
    print(f"  {paint('What exactly will run', 'bold')}")
    print(f"    {shlex.join(map(str, plan['argv']))}\n", flush=True)


def _ask(client: Client, name: str) -> None:
    _say(f"Asking over the OpenAI API: {QUESTION}")
    conversation = Conversation(client, name, parameters={"temperature": 0})
    print("    ", end="")
    for piece in conversation.ask(QUESTION):
        print(piece.text, end="", flush=True)
    print("\n")
    if conversation.timing is None or not conversation.messages:
        raise CommandFailed("the model did not answer", hint="Look at: ostler doctor")
    print_facts("Timings", conversation.timing.lines())


def _say_how_to_go_on(running: RunningServer, folder: Path, keep: bool) -> None:
    _say("How to go on")
    if not keep:
        print('    ostler run org/repo:Q4_K_M "Hello"   a model of the hub; a path works as well')
        print("    ostler demo --keep                   this demo, left running")
        print("    ostler --help                        everything else")
        return
    body = f'{{"model": "demo", "messages": [{{"role": "user", "content": "{QUESTION}"}}]}}'
    print(f"    curl {running.url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'")
    print(f"    ostler --url {running.url} run demo          chat with it")
    data = shlex.quote(str(folder))
    print(
        f"    ostler --url {running.url} stop --all && ostler serve --stop --data-dir {data} && rm -r {data}"
    )
    print("                                         end it and remove its data")


@contextmanager
def demo_server(*, keep: bool) -> Generator[tuple[RunningServer, Path]]:
    """A server on a free port with temporary data, as a child; gone at the end, with its engine and data.

    With `keep` it stays once the block has ended well.
    """
    folder = Path(tempfile.mkdtemp(prefix="ostler-demo-"))
    child, log_path = _start_child(folder, keep=keep)
    done = False
    try:
        yield wait_until_ready(child, folder, log_path), folder
        done = True
    finally:
        if not (keep and done):
            _end_child(child)
            shutil.rmtree(folder, ignore_errors=True)


def _start_child(folder: Path, *, keep: bool) -> tuple[subprocess.Popen[Any], Path]:
    log_path = folder / "server.log"
    own = {name: value for name, value in os.environ.items() if not name.startswith("OSTLER_")}
    environment = {
        **own,
        "OSTLER_OFFLINE": "1",
        "OSTLER_HUB_CACHE_DIR": str(folder / "hub"),
        "OSTLER_MODELS_DIR": str(folder / "models"),
        "OSTLER_CONFIG": str(folder / "config.toml"),
    }
    (folder / "config.toml").touch()
    arguments = ["serve", "--host", "127.0.0.1", "--port", "0", "--data-dir", str(folder)]
    with log_path.open("wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "ostler.cli", *arguments, *([] if keep else ["--stop-engines-on-exit"])],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,
        )
    return child, log_path


def _end_child(child: subprocess.Popen[Any]) -> None:
    """End the server, which stops its engine; a second Ctrl-C does not cut this short."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        child.terminate()
        child.wait(END_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _termination_as_interrupt() -> Generator[None]:
    """A SIGTERM unwinds like Ctrl-C, so that the demo cleans up after itself then, too."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""The system: inspect a file, doctor, version."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ostler.cli import human
from ostler.cli.client import Json
from ostler.cli.connection import Server
from ostler.cli.failures import USAGE, CommandFailed
from ostler.cli.options import JsonFlag, with_server
from ostler.cli.output import paint, print_facts, print_json


def inspect(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A GGUF file or a safetensors folder.")],
    json: JsonFlag = False,
) -> None:
    """Read what a model file says of itself. Needs no server and changes nothing.

    Example: ostler inspect qwen3-8b-Q4_K_M.gguf
    """
    from ostler.library.loose import inspect_loose

    found = inspect_loose(path.expanduser()).to_json()
    if json:
        print_json(found)
    else:
        _print_file_set(found)
    if found.get("error"):
        raise CommandFailed(
            str(found["error"]), hint="Fetch or copy the file again.", exit_code=USAGE, code="broken_file"
        )


_SHAPE = (
    ("block_count", "layers"),
    ("embedding_length", "embedding length"),
    ("n_heads", "attention heads"),
    ("n_kv_heads", "KV heads"),
    ("vocab_size", "vocabulary"),
    ("expert_count", "experts"),
)


def _print_file_set(found: Json) -> None:
    facts = found.get("facts") or {}
    print_facts(
        "Model",
        [
            ("name", facts.get("name") or found["name"]),
            ("kind", facts.get("kind")),
            ("format", found["format"]),
            ("architecture", facts.get("architecture")),
            ("parameters", human.count(facts["parameters"]) if facts.get("parameters") else None),
            ("quantization", facts.get("quantization")),
            ("context length", str(facts["context_length"]) if facts.get("context_length") else None),
            ("capabilities", ", ".join(facts.get("capabilities") or ()) or None),
            ("chat template", "yes" if facts.get("chat_template") else None),
            ("license", facts.get("license")),
        ],
    )
    shape = [(label, str(facts[name])) for name, label in _SHAPE if facts.get(name) is not None]
    print_facts("Shape", shape)
    files = [(Path(file["path"]).name, human.size(file["size_bytes"])) for file in found["files"]]
    print_facts("Files", [("total", human.size(found["size_bytes"])), *files])
    if found.get("missing"):
        print_facts("Missing", [(name, "not here") for name in found["missing"]])


@with_server
def version(server: Server, json: JsonFlag = False) -> None:
    """Print the version, and the server's where one runs."""
    from ostler import __version__

    try:
        client = server.client(start=False)
        running: Json | None = client.get("/system", timeout_s=2.0)
        url: str | None = client.url
    except CommandFailed:
        running, url = None, None
    told = {
        "version": __version__,
        "server": {"url": url, "version": running.get("version")} if running else None,
    }
    if json:
        print_json(told)
    else:
        print(f"ostler {__version__}")
        if running:
            print(f"server {running.get('version')} at {url}")


@with_server
def doctor(server: Server, json: JsonFlag = False) -> None:
    """Check this machine and say what to repair.

    Looks at Python, data folder, disk, database, engines, port, GPUs, server and hub.
    Exit code 0 when everything needed is there, else 1.
    """
    from ostler.cli.checkup import check_all

    checks = check_all(server)
    if json:
        print_json({"ok": all(c.level != "failed" for c in checks), "checks": [c.to_json() for c in checks]})
    else:
        colours = {"ok": "green", "warning": "yellow", "failed": "red"}
        for check in checks:
            print(f"{paint(f'{check.level:<8}', colours[check.level])} {check.name:<12} {check.found}")
            if check.hint:
                print(f"{'':<8} {'':<12} Try: {check.hint}")
    if any(check.level == "failed" for check in checks):
        raise typer.Exit(1)

"""What model files say of themselves: read from a path here or from the hub, and printed."""

from __future__ import annotations

from pathlib import Path

from ostler.cli import human
from ostler.cli.client import Json
from ostler.cli.failures import USAGE, CommandFailed
from ostler.cli.output import print_facts
from ostler.cli.targets import file_source, hub_spec


def inspect_here(text: str) -> Json:
    """What is at a path, or in a repo of the hub, read by this process.

    Raises the errors of library and hub.
    """
    from ostler.library.loose import inspect_loose

    if file_source(text) is None and hub_spec(text) is not None:
        return _inspect_remote(text)
    return inspect_loose(Path(text).expanduser()).to_json()


def _inspect_remote(text: str) -> Json:
    import asyncio

    from ostler.core.settings_sources import load_settings
    from ostler.hub import Hub, parse_spec

    settings = load_settings().values
    spec = parse_spec(text, endpoint=settings.hf_endpoint)
    return asyncio.run(Hub(settings).inspect(spec)).to_json()


def pull_spec(found: Json) -> str:
    """What to write after `ostler pull` for what was inspected."""
    return f"{found['repo']}:{found['tag']}" if found.get("tag") else str(found["repo"])


def refuse_broken(found: Json) -> None:
    """End the command where what was inspected says that its files are damaged. Raises CommandFailed."""
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


def print_inspected(found: Json) -> None:
    """The sections Model, Shape and Files of what was inspected, here or on the hub."""
    facts = found.get("facts") or {}
    print_facts(
        "Model",
        [
            ("name", facts.get("name") or found.get("name") or found.get("repo")),
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
    if "fetched_bytes" in found:
        print_facts(
            "Hub",
            [
                ("repo", found["repo"]),
                ("commit", found["commit"]),
                ("gated", found.get("gated")),
                ("read", f"{human.size(found['fetched_bytes'])} in {found['requests']} requests"),
                ("worked out", _worked_out(found)),
                ("download", f"ostler pull {pull_spec(found)}"),
            ],
        )
    if found.get("missing"):
        print_facts("Missing", [(name, "not here") for name in found["missing"]])


def _worked_out(found: Json) -> str | None:
    """Which headers were not read but follow from others; None where all were read."""
    shards = [file for file in found["files"] if file["path"].endswith(".safetensors")]
    n_read = found.get("headers_read")
    if n_read is None or n_read >= len(shards):
        return None
    return f"{len(shards) - n_read} of {len(shards)} headers, by the index and the files' sizes"

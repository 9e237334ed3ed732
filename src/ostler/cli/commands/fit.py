"""`ostler fit`: does a model go in, with which settings, here or on other hardware."""

from __future__ import annotations

import json as json_module
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from ostler.cli import human
from ostler.cli.client import Json
from ostler.cli.connection import Server
from ostler.cli.dry_run import chosen_lines
from ostler.cli.failures import DOES_NOT_FIT, USAGE, CommandFailed
from ostler.cli.footprint import EXACTNESS
from ostler.cli.options import JsonFlag, Target, with_server
from ostler.cli.output import note, paint, print_json, print_table
from ostler.cli.targets import what_is_meant

_TOKENS = re.compile(r"(\d{1,9})\s*([kKmM]?)")
_FACTORS = {"": 1, "k": 1024, "m": 1024 * 1024}
_COLUMNS = ("DEVICE", "WEIGHTS", "KV CACHE", "COMPUTE", "OVERHEAD", "TOTAL", "FREE", "FITS")
_SMALLER = {
    "llamacpp": "Try fewer GPU layers (--ngl), a smaller quantization, or a smaller KV cache (--kv q8_0).",
    "vllm": "Try more GPUs, a quantized model, or a smaller KV cache (--kv fp8).",
}
"""What helps where no context fits, by engine."""
_PARTS = ("weights_bytes", "kv_cache_bytes", "compute_bytes", "overhead_bytes", "total_bytes", "free_bytes")


@with_server
def fit(
    server: Server,
    model: Target,
    contexts: Annotated[
        str | None, typer.Option("--ctx", metavar="TOKENS,...", help="Context lengths to try: 8k,32k.")
    ] = None,
    parallel: Annotated[int | None, typer.Option("--parallel", min=1, help="Slots.")] = None,
    kv: Annotated[str | None, typer.Option("--kv", metavar="TYPE", help="KV cache type: q8_0.")] = None,
    flash_attn: Annotated[
        str | None, typer.Option("--flash-attn", metavar="on|off|auto", help="Flash attention.")
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Logical batch, in tokens.")] = None,
    ubatch: Annotated[int | None, typer.Option("--ubatch", min=1, help="Physical batch, in tokens.")] = None,
    ngl: Annotated[str | None, typer.Option("--ngl", metavar="N|all|auto", help="GPU layers.")] = None,
    tensor_split: Annotated[
        str | None, typer.Option("--tensor-split", metavar="N,...", help="Shares of the GPUs: 3,1.")
    ] = None,
    gpu: Annotated[str | None, typer.Option("--gpu", metavar="N,...", help="Only these GPUs: 0,1.")] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="The engine that would serve it.")] = None,
    on: Annotated[
        str | None,
        typer.Option(
            "--on",
            metavar="HARDWARE",
            help="Hardware that is not here: 2x24GiB, m3-max-64gb, or a JSON file.",
        ),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Say whether a model fits, before it is downloaded or started.

    Of a repo on the hub only headers are read. Exit code 3: it does not fit with any context asked for,
    also if idle models left for it.

    Example: ostler fit org/repo:Q4_K_M --ctx 8k,32k --on 2x24GiB
    """
    given = {
        "parallel_slots": parallel,
        "kv_cache_type": kv,
        "flash_attention": flash_attn,
        "batch_size": batch,
        "ubatch_size": ubatch,
        "gpu_layers": int(ngl) if ngl and ngl.isdecimal() else ngl,
        "tensor_split": _numbers("--tensor-split", tensor_split, float),
    }
    body: Json = {
        "options": {name: value for name, value in given.items() if value is not None},
        "contexts": [_tokens(part) for part in contexts.split(",")] if contexts else [],
        "engine": engine,
        "gpus": _numbers("--gpu", gpu, int),
        **_hardware(on),
    }
    found = _ask(server, model, {name: value for name, value in body.items() if value is not None})
    every = found.get("contexts") or [found]
    if json:
        print_json(found)
    elif len(every) > 1:
        _print_contexts(every)
    else:
        _print_one(found)
    if not any(one["fits"] for one in every) and not found["evictions"]:
        raise CommandFailed(
            "it does not fit", hint=_next_step(every[0]), exit_code=DOES_NOT_FIT, code="does_not_fit"
        )


def _ask(server: Server, text: str, body: Json) -> Json:
    """The answer for a stored model of that name, a file, or a repo."""
    client = server.client()
    meant = what_is_meant(client, text)
    named = {"model": meant.model and meant.model["name"], "path": meant.path, "hub": meant.hub}
    target = {key: value for key, value in named.items() if value is not None}
    return client.post("/fit", {**target, **body}, timeout_s=120.0)


def _tokens(text: str) -> int:
    """`8k` is 8192 tokens."""
    match = _TOKENS.fullmatch(text.strip())
    if match is None:
        raise CommandFailed(
            f"{text!r} is not a context length", hint="For example: --ctx 4096,8k,32k", exit_code=USAGE
        )
    return int(match[1]) * _FACTORS[match[2].lower()]


def _numbers(flag: str, text: str | None, kind: type[int] | type[float]) -> list[Any] | None:
    if text is None:
        return None
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError:
        raise CommandFailed(
            f"{text!r} is not a list of numbers", hint=f"For example: {flag} 0,1", exit_code=USAGE
        ) from None


def _hardware(on: str | None) -> Json:
    """The description as text, or what stands in the file at that path."""
    if on is None:
        return {}
    from ostler.fit.hardware import is_path

    if not is_path(on):
        return {"on": on}
    try:
        described = json_module.loads(Path(on).expanduser().read_text())
    except (OSError, ValueError) as error:
        raise CommandFailed(
            f"{on} cannot be read as JSON: {error}",
            hint='It holds: {"devices": [{"name": "my GPU", "memory": "24GiB"}], "host": "64GiB"}',
            exit_code=USAGE,
        ) from None
    return {"hardware": described}


def _print_one(found: Json) -> None:
    print(
        f"{found['engine']}, context {found['context_length']} tokens over {found['parallel']} "
        f"slot{'s' if found['parallel'] != 1 else ''} ({EXACTNESS[found['exactness']]})\n"
    )
    print_table(_COLUMNS, [_row(device) for device in (*found["devices"], found["host"])])
    largest, host = found["max_context_length"], found["host"]
    print()
    if bounds := found.get("bounds"):
        print(f"In all between {human.size(bounds['lower_bytes'])} and {human.size(bounds['upper_bytes'])}.")
    if host["shared_bytes"]:
        needed, free = host["total_bytes"] + host["shared_bytes"], human.size(host["free_bytes"])
        print(f"One memory for the GPU and {host['id']}: together {human.size(needed)} of {free}.")
    print(_verdict(found) + (f" Largest context that fits: {largest} tokens." if largest else ""))
    if "kv_cache_tokens" in found:
        at_once = f"{found['max_concurrency']} requests of {found['context_length']} tokens at once"
        print(f"The KV cache holds {found['kv_cache_tokens']} tokens: {at_once}.")
    for name, reason in chosen_lines(found["chosen"]):
        print(f"Chosen: {name}: {reason}")
    for leaving in found["evictions"]:
        print(f"Would leave: {leaving['model']} ({leaving['reason']})")
    for warning in found["warnings"]:
        note(paint(f"Note: {warning}", "yellow"))


def _row(device: Json) -> list[str]:
    sizes = [human.size(device[name]) for name in _PARTS]
    return [str(device["id"]), *sizes, "yes" if device["fits"] else "no"]


def _verdict(found: Json) -> str:
    if found["evictions"]:
        return paint("It fits once those who are named below have left.", "yellow")
    return paint("It fits.", "green") if found["fits"] else paint("It does not fit.", "red")


def _print_contexts(every: list[Json]) -> None:
    """One line for each context length, with the fullest device of it."""
    rows = []
    for one in every:
        places = [*one["devices"], one["host"]]
        layers = one["options"].get("gpu_layers")
        totals = [f"{place['id']} {human.size(place['total_bytes'])}" for place in places]
        rows.append(
            [
                str(one["context_length"]),
                human.size(one["kv_cache_bytes"]),
                human.size(one["total_bytes"]),
                ", ".join(totals),
                "-" if layers is None else str(layers),
                "yes" if one["fits"] else "no",
            ]
        )
    print_table(("CONTEXT", "KV CACHE", "TOTAL", "BY DEVICE", "GPU LAYERS", "FITS"), rows)
    for warning in dict.fromkeys(text for one in every for text in one["warnings"]):
        note(paint(f"Note: {warning}", "yellow"))


def _next_step(found: Json) -> str:
    largest = found["max_context_length"]
    if largest:
        return f"The largest context that fits is {largest} tokens: --ctx {largest}"
    return _SMALLER.get(found["engine"], "Try a smaller quantization or a smaller KV cache.")

"""What the running engines do now, once or again and again."""

from __future__ import annotations

import sys
import time
from typing import Annotated, Any

import typer

from ostler.cli import human
from ostler.cli.client import Json
from ostler.cli.connection import Server
from ostler.cli.options import JsonFlag, with_server
from ostler.cli.output import is_terminal, note, print_json, print_table, state

CLEAR = "\x1b[H\x1b[J"
COLUMNS = (
    "NAME",
    "STATE",
    "RUNNING",
    "WAITING",
    "IN/S",
    "OUT/S",
    "KV",
    "TTFT",
    "P95",
    "REQUEST",
    "P95",
    "MEMORY",
)


@with_server
def stats(
    server: Server,
    watch: Annotated[
        float | None, typer.Option("--watch", metavar="SECONDS", min=0.5, help="Show it again and again.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Show what each running engine does now.

    IN/S and OUT/S are tokens of prompts and of answers per second since an earlier look; the first look has
    none. TTFT (until the first token) and REQUEST are medians, the P95 beside each the 95th percentile: the
    engine's own, or those of the last hour by the gateway's account.

    Example: ostler stats --watch 2
    """
    client = server.client()
    while True:
        found = client.get("/instances/metrics", limit=1000)
        if watch is not None and not json and is_terminal(sys.stdout):
            sys.stdout.write(CLEAR)
        if json:
            print_json(found)
        else:
            _show(found)
        if watch is None:
            return
        sys.stdout.flush()
        time.sleep(watch)


def _show(found: Json) -> None:
    if not found["items"]:
        note("Nothing runs. Start a model with: ostler run MODEL   (see them with: ostler list)")
        return
    print_table(COLUMNS, (_row(item) for item in found["items"]))
    for item in found["items"]:
        if item["error"]:
            note(f"{item['model_name']}: {item['error']}")


def _row(item: Json) -> tuple[str, ...]:
    return (
        item["model_name"],
        state(item["state"]),
        _number(item["requests_running"]),
        _number(item["requests_waiting"]),
        _number(item["prompt_tokens_per_second"]),
        _number(item["generation_tokens_per_second"]),
        _share(item["kv_cache_usage_ratio"]),
        _seconds(item["first_token_p50_s"]),
        _seconds(item["first_token_p95_s"]),
        _seconds(item["request_p50_s"]),
        _seconds(item["request_p95_s"]),
        human.size(item["memory_bytes"]),
    )


def _number(value: Any) -> str:
    return "-" if value is None else f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value * 100:.1f}%"


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"

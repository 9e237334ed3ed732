"""`make bench`: measure everything in one run, print a table, write JSON and (with --docs) the page.

Ratios are measured side by side in one run, because single times mean little on a shared machine.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.goals import GOALS, Goal

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
BEGIN, END = "```json\n", "\n```\n"
NOTES = """## How to read it

- **A container's start** is that of the demo model with the real llama-server in a real Docker Engine,
  from the request to start until the answer that it is `running`; `process_s` is the same program as a
  process, started in turn with it. The image is there already: a pull takes as long as the network.
- **What the gateway adds** is the difference between a request through it and the same request sent
  directly, in turn over one connection each. The gateway does the same for every engine, so the goal is
  measured where two numbers can be compared to some percent: one upstream that costs nothing, published
  once as llama.cpp and once as vLLM. `real` has the same for llama-server and vLLM themselves. Their own
  times are thirty to a hundred times what is measured and vary by more than it, as `margin_ms` shows:
  this can tell that nothing larger than the margin is between them, not that they are within some
  percent.
- **Load** is the machine's load average when the part began, made by others on it. Above the number of
  cores, times are longer than they are alone; ratios hold.
"""
PARTS = (
    *("startup", "library", "downloads", "containers", "gateway", "engines", "fit"),
    *("cortex", "bodhi", "llamactl"),
)


def main() -> int:
    """Run the parts named (all by default); exit 1 when a goal was measured and missed."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument(
        "parts", nargs="*", choices=[*PARTS, []], help="which parts to measure; all by default"
    )
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md as well")
    asked = parser.parse_args()
    folder = HERE / "results"
    folder.mkdir(exist_ok=True)
    results = (
        {**kept(folder / "latest.json", PAGE), "machine": machine()}
        if asked.parts
        else {"machine": machine()}
    )
    for part in asked.parts or PARTS:
        print(f"measuring {part} ...", file=sys.stderr, flush=True)
        load = os.getloadavg()[0]
        results[part] = importlib.import_module(f"benchmarks.{part}").measure()
        results.setdefault("dates", {})[part] = results["machine"]["date"]
        results.setdefault("loads", {})[part] = round(load, 1)
    (folder / "latest.json").write_text(json.dumps(results, indent=2))
    show(results)
    if asked.docs:
        PAGE.write_text(page(results))
    return 1 if any(goal.met(results) is False for goal in GOALS) else 0


def kept(file: Path, page: Path) -> dict[str, Any]:
    """What the last run measured, or else the page: a run of some parts keeps the others."""
    text = file.read_text() if file.exists() else page.read_text().partition(BEGIN)[2].partition(END)[0]
    results: dict[str, Any] = json.loads(text)
    return results


def machine() -> dict[str, Any]:
    """What was measured on."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": os.cpu_count(),
    }


def rows(results: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    """What was measured, the number, the goal, and whether it is met."""
    words = {True: "yes", False: "NO", None: "not measured"}
    return [(goal.title, goal.shown(results), goal.bound, words[goal.met(results)]) for goal in GOALS]


def show(results: dict[str, Any]) -> None:
    """The table on the terminal."""
    table = Table("measured", "result", "goal", "met")
    for row in rows(results):
        table.add_row(*row)
    Console().print(table)
    for part, what in lacking(results):
        print(f"missing for {part}: {what}", file=sys.stderr)


def lacking(results: dict[str, Any]) -> list[tuple[str, str]]:
    """What was not there to be measured, by part."""
    return [(part, what) for part in PARTS for what in results.get(part, {}).get("missing", ())]


def page(results: dict[str, Any]) -> str:
    """docs/benchmarks.md: the goals and all numbers behind them."""
    machine, shown = results["machine"], (*PARTS, "dates", "loads")
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks --docs`. Within a part all was measured side by side in one run;",
        "compare ratios rather than single times, because the machine is shared.",
        f"Measured on {machine['system']}, {machine['cores']} cores, Python {machine['python']}:",
        f"{', '.join(_when(results, part) for part in PARTS if part in results['dates'])}.",
        "",
        "| measured | result | goal | met |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows(results)),
        "",
        NOTES,
        "## All numbers",
        "",
        BEGIN + json.dumps({key: results[key] for key in shown if key in results}, indent=2) + END,
    ]
    return "\n".join(lines)


def _when(results: dict[str, Any], part: str) -> str:
    """`fit on 2026-01-31 (load 0.4)`: a load of others of more than a core makes times longer."""
    load = results.get("loads", {}).get(part)
    return f"{part} on {results['dates'][part]}" + (f" (load {load})" if load is not None else "")


__all__ = ["Goal", "main"]

if __name__ == "__main__":
    sys.exit(main())

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
PARTS = ("startup", "library", "downloads", "gateway", "fit", "cortex")


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
        {**kept(folder / "latest.json"), "machine": machine()} if asked.parts else {"machine": machine()}
    )
    for part in asked.parts or PARTS:
        print(f"measuring {part} ...", file=sys.stderr, flush=True)
        results[part] = importlib.import_module(f"benchmarks.{part}").measure()
        results.setdefault("dates", {})[part] = results["machine"]["date"]
    (folder / "latest.json").write_text(json.dumps(results, indent=2))
    show(results)
    if asked.docs:
        (HERE.parent / "docs" / "benchmarks.md").write_text(page(results))
    return 1 if any(goal.met(results) is False for goal in GOALS) else 0


def kept(file: Path) -> dict[str, Any]:
    """What the last run measured: a run of some parts keeps the others."""
    results: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
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


def page(results: dict[str, Any]) -> str:
    """docs/benchmarks.md: the goals and all numbers behind them."""
    machine = results["machine"]
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks --docs`. Within a part all was measured side by side in one run;",
        "compare ratios rather than single times, because the machine is shared.",
        f"Measured on {machine['system']}, {machine['cores']} cores, Python {machine['python']}:",
        f"{', '.join(f'{part} on {day}' for part, day in results['dates'].items())}.",
        "",
        "| measured | result | goal | met |",
        "|---|---|---|---|",
        *(f"| {' | '.join(row)} |" for row in rows(results)),
        "",
        "## All numbers",
        "",
        "```json",
        json.dumps({part: results[part] for part in PARTS if part in results}, indent=2),
        "```",
        "",
    ]
    return "\n".join(lines)


__all__ = ["Goal", "main"]

if __name__ == "__main__":
    sys.exit(main())

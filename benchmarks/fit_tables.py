"""What both comparisons of estimates with an engine share: arguments, the table in docs/fit.md, the end."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
PAGE = CHECKOUT / "docs" / "fit.md"


def arguments(description: str | None, *, each: int, of: str) -> argparse.ArgumentParser:
    """`--docs`, `--seed` and `--each`, which is the number of settings for each `of`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--docs", action="store_true", help="write the table into docs/fit.md")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=each, help=f"settings for each {of}")
    return parser


def conclude(table: str, misses: Iterable[str], marks: tuple[str, str], *, write: bool) -> int:
    """Print the table and what missed its limit; `write` puts the table between its marks. 1 for a miss."""
    missed = list(misses)
    print("\n".join([table, *missed]))
    if write:
        begin, end = marks
        before, _, rest = PAGE.read_text().partition(begin)
        PAGE.write_text(f"{before}{begin}\n\n{table}\n\n{end}{rest.partition(end)[2]}")
    return 1 if missed else 0

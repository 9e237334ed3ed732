"""The reference of the command line, written from the commands themselves.

`python -m ostler.cli.docs` prints it; `docs/cli.md` is that text, and a test holds them together.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from ostler.cli.main import SECTIONS, build_app

WIDTH = 100

HEAD = """\
# The command line

This page is written from `ostler --help` by
`python -m ostler.cli.docs > docs/cli.md`; do not edit it by hand.

Every command talks to a server: the one that `--url` or `OSTLER_URL` names, else the one that runs on
the data folder, else the one at `http://127.0.0.1:11500`. Where none runs, one is started in the
background, unless `--no-start` or `OSTLER_NO_START` is given. `--url`, `--key` and `--no-start` may
stand before or after the command's name. `OSTLER_URL` is the address of a server to talk to;
`OSTLER_HOST` is the address that `ostler serve` listens on.

Answers go to stdout, remarks and progress to stderr. Listings take `--json`. Nothing is coloured where
the output is not a terminal or `NO_COLOR` is set.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | failed for a reason that has no code of its own |
| 2 | wrong usage: an option, a value, an input |
| 3 | does not fit into memory |
| 4 | not found |
| 5 | not allowed, or no valid key |
| 6 | the engine failed |
| 130 | ended by Ctrl-C |
"""


def render() -> str:
    """The whole page as Markdown."""
    return HEAD + "".join(_sections())


def _sections() -> Iterator[str]:
    import typer.main

    os.environ["TYPER_USE_RICH"] = "0"
    root = typer.main.get_command(build_app())
    with root.make_context("ostler", [], resilient_parsing=True) as ctx:
        yield f"\n## ostler\n\n```text\n{_help(root, ctx)}\n```\n"
        for section in SECTIONS:
            yield f"\n## {section}\n"
            for name, command in getattr(root, "commands").items():  # noqa: B009 - a group's attribute
                if not command.hidden and (command.rich_help_panel or "Server") == section:
                    yield from _command(command, name, ctx)


def _command(command: Any, name: str, parent: Any) -> Iterator[str]:
    with command.make_context(name, [], parent=parent, resilient_parsing=True) as ctx:
        yield f"\n### {ctx.command_path}\n\n```text\n{_help(command, ctx)}\n```\n"
        for inner_name, inner in getattr(command, "commands", {}).items():
            yield from _command(inner, inner_name, ctx)


def _help(command: Any, ctx: Any) -> str:
    ctx.terminal_width = WIDTH
    ctx.max_content_width = WIDTH
    return "\n".join(line.rstrip() for line in command.get_help(ctx).splitlines()).strip()


if __name__ == "__main__":
    print(render(), end="")

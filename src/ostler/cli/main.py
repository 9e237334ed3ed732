"""The `ostler` command: its sections, its global options and its exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ostler.cli.commands import (
    admin,
    changing,
    demo,
    fit,
    hub,
    importing,
    lifecycle,
    models,
    reshaping,
    run,
    serve,
    stats,
    system,
)
from ostler.cli.connection import Server
from ostler.cli.failures import INTERRUPTED, CommandFailed, print_failure
from ostler.core.errors import OstlerError

CHAT, MODELS, RUNNING, SERVER = "Start here", "Models", "Running", "Server"

SECTIONS: dict[str, dict[str, Callable[..., None]]] = {
    CHAT: {"demo": demo.demo, "run": run.run},
    MODELS: {
        "pull": hub.pull,
        "search": hub.search,
        "list": models.list_models,
        "show": models.show,
        "inspect": system.inspect,
        "fit": fit.fit,
        "add": models.add,
        "create": models.create,
        "set": changing.set_options,
        "cp": models.copy,
        "rm": models.remove,
        "merge": reshaping.merge,
        "split": reshaping.split,
    },
    RUNNING: {
        "start": lifecycle.start,
        "stop": lifecycle.stop,
        "restart": lifecycle.restart,
        "ps": lifecycle.ps,
        "stats": stats.stats,
        "logs": lifecycle.logs,
    },
    SERVER: {
        "serve": serve.serve,
        "doctor": system.doctor,
        "version": system.version,
    },
}
"""Every plain command with the section of `ostler --help` in which it stands."""

GROUPS: dict[str, typer.Typer] = {
    "import": importing.import_app,
    "jobs": hub.jobs_app,
    "keys": admin.keys_app,
    "settings": admin.settings_app,
}
"""Commands with commands of their own; without one they list."""


class SectionedGroup(TyperGroup):
    """The root command: its help shows the commands in sections."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one list per section, in the order of SECTIONS."""
        sections: dict[str, list[tuple[str, str]]] = {name: [] for name in SECTIONS}
        width = formatter.width - 6 - max(len(name) for name in self.commands)
        for name in self.list_commands(ctx):
            command = self.commands[name]
            if not command.hidden:
                section = getattr(command, "rich_help_panel", None) or SERVER
                sections[section].append((name, command.get_short_help_str(width)))
        for title, rows in sections.items():
            with formatter.section(title):
                formatter.write_dl(rows)


def _print_version(value: bool) -> None:
    if value:
        from ostler import __version__

        print(f"ostler {__version__}")
        raise typer.Exit


def _root(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="URL", help="Address of the server. Environment: OSTLER_URL."),
    ] = None,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="API key. Environment: OSTLER_API_KEY.")
    ] = None,
    no_start: Annotated[
        bool,
        typer.Option(
            "--no-start", help="Fail where no server runs, start none. Environment: OSTLER_NO_START."
        ),
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Ostler looks after your language models: pull, keep, start, stop and serve them.

    First steps:  ostler demo    or    ostler run org/repo:Q4_K_M "Hello"
    """
    ctx.obj = Server(url, key, no_start)


def build_app() -> typer.Typer:
    """The Typer application with every command in it."""
    app = typer.Typer(
        name="ostler",
        cls=SectionedGroup,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    app.callback()(_root)
    for section, commands in SECTIONS.items():
        for name, function in commands.items():
            app.command(name, rich_help_panel=section)(function)
    app.command("ls", hidden=True)(models.list_models)
    for name, group in GROUPS.items():
        app.add_typer(group, name=name, rich_help_panel=SERVER)
    return app


def main() -> None:
    """Run one command line and exit with its code."""
    try:
        build_app()(prog_name="ostler")
    except CommandFailed as failure:
        _end(failure)
    except OstlerError as error:
        _end(CommandFailed.of(error))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader (`| head`) went away: nothing more to say, and nothing to complain about.
        sys.stderr.close()
        sys.exit(1)


def _end(failure: CommandFailed) -> None:
    print_failure(failure)
    sys.exit(failure.exit_code)


if __name__ == "__main__":
    main()

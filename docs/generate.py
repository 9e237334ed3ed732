"""Write the generated pages of the documentation: `make docs`.

Each page is made from the code that it describes; a test compares the pages with the code.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from pydantic_core import PydanticUndefined

import ostler
from ostler.api.errors import status_of
from ostler.cli.docs import render as command_line_page
from ostler.cli.failures import EXIT_CODES
from ostler.core.errors import OstlerError
from ostler.core.settings import Settings, environment_names, is_live
from ostler.engines.docs import render_options_markdown
from ostler.engines.registry import ENGINES
from ostler.engines.troubleshooting import render_troubleshooting_markdown

DOCS = Path(__file__).parent


def settings_page() -> str:
    """docs/settings.md, from the one settings class."""
    lines = [
        "# Settings",
        "",
        "Every setting can come from, strongest first: the command line, the environment, a change made at",
        "run time (`ostler settings set NAME VALUE`, for those marked *live*), the configuration file",
        "(`config.toml`, see `ostler serve --config`), and the default. `ostler settings` lists all of them",
        "with their values and where each came from.",
        "",
    ]
    for name, field in Settings.model_fields.items():
        variables = ", ".join(f"`{variable}`" for variable in environment_names(name))
        lines += [f"### `{name}`", "", field.description or "", "", f"- Default: {_default(name)}"]
        lines += [f"- Environment: {variables}"]
        lines += ["- Live: may change while the server runs"] if is_live(name) else []
        lines += [""]
    return "\n".join(lines)


_DEFAULTS_IN_WORDS = {
    "data_dir": "`~/.local/share/ostler` (on macOS `~/Library/Application Support/ostler`)",
    "hub_cache_dir": (
        "`$HF_HOME/hub`, else `$XDG_CACHE_HOME/huggingface/hub`, else `~/.cache/huggingface/hub`"
    ),
    "llama_cache_dir": "`~/.cache/llama.cpp`, as llama.cpp has it on this system",
}


def _default(name: str) -> str:
    default = Settings.model_fields[name].default
    if name in _DEFAULTS_IN_WORDS:
        return _DEFAULTS_IN_WORDS[name]
    if default is None or default is PydanticUndefined or default == ():
        return "none"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def errors_page() -> str:
    """docs/errors.md, from every class of the one family of errors."""
    for module in pkgutil.walk_packages(ostler.__path__, "ostler."):
        if not module.name.endswith("__main__") and ".migrations." not in module.name:
            importlib.import_module(module.name)
    lines = [
        "# Errors",
        "",
        "Every error has a `code` for programs, a sentence for people, facts, and mostly a hint.",
        "The kind decides the HTTP status and the exit code of the command line.",
        "",
        "| code | HTTP | exit | meaning |",
        "|---|---|---|---|",
    ]
    for error in sorted(_family(OstlerError), key=lambda error: (error.code_of_class(), error.__doc__ or "")):
        if error.__name__.startswith("_"):
            continue
        meaning = (error.__doc__ or "").strip().splitlines()[0]
        status, code = status_of(error), EXIT_CODES.get(error.kind, 1)
        lines.append(f"| `{error.code_of_class()}` | {status} | {code} | {meaning} |")
    return "\n".join([*lines, ""])


def _family(error: type[OstlerError]) -> set[type[OstlerError]]:
    return {error}.union(*(_family(child) for child in error.__subclasses__()))


def pages() -> Mapping[Path, Callable[[], str]]:
    """Every generated page and what makes it."""
    return {
        DOCS / "settings.md": settings_page,
        DOCS / "errors.md": errors_page,
        **{
            DOCS / "engines" / f"{engine.name}.md": partial(render_options_markdown, engine)
            for engine in ENGINES
        },
        DOCS / "troubleshooting.md": partial(render_troubleshooting_markdown, ENGINES),
        DOCS / "cli.md": command_line_page,
    }


def main() -> int:
    """Write every page that changed; say which."""
    for path, render in pages().items():
        text = render()
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f"wrote {path.relative_to(DOCS.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

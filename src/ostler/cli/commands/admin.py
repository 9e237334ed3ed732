"""Keys and settings."""

from __future__ import annotations

import json as json_module
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import quote

import typer

from ostler.cli import human
from ostler.cli.client import Json
from ostler.cli.connection import Server
from ostler.cli.failures import USAGE, CommandFailed
from ostler.cli.options import JsonFlag, lists_alone, with_server
from ostler.cli.output import note, print_json, print_table

keys_app = typer.Typer(help="API keys; alone: list them.", invoke_without_command=True, rich_markup_mode=None)
settings_app = typer.Typer(
    help="Every setting with its value and source; alone: list them.",
    invoke_without_command=True,
    rich_markup_mode=None,
)


@keys_app.callback()
def _keys(ctx: typer.Context, json: JsonFlag = False) -> None:
    if lists_alone(ctx, json):
        _print_keys(ctx.find_root().obj or Server(), json=json)


@keys_app.command("list")
@with_server
def keys_list(server: Server, json: JsonFlag = False) -> None:
    """List the keys; the keys themselves are never shown again."""
    _print_keys(server, json=json)


def _print_keys(server: Server, *, json: bool) -> None:
    found = server.client().every("/keys")
    if json:
        print_json(found)
    elif not found["items"]:
        note("No keys. Make one with: ostler keys create NAME")
    else:
        print_table(("ID", "NAME", "ROLE", "MODELS", "LAST USED", "EXPIRES"), map(_key_row, found["items"]))


def _key_row(key: Json) -> tuple[str, ...]:
    expires = "switched off" if key.get("disabled") else human.relative(key.get("expires_at"))
    return (
        str(key["id"]),
        key["name"],
        key["role"],
        ", ".join(key.get("models") or ()) or "all",
        human.relative(key.get("last_used_at")),
        "never" if expires == "-" else expires,
    )


@keys_app.command("create")
@with_server
def keys_create(
    server: Server,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whom or what it is for.")],
    role: Annotated[
        str, typer.Option("--role", help="user, power_user, manager or admin; each includes the ones before.")
    ] = "user",
    model: Annotated[
        list[str] | None,
        typer.Option("--models", "--model", metavar="PATTERN", help="Only these models; may be repeated."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--expires", metavar="DAYS|DATE", help="When it ends: 30d or 2027-01-31.")
    ] = None,
    rpm: Annotated[int | None, typer.Option("--rpm", min=1, help="Most requests per minute.")] = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency", min=1, help="Most at once.")] = None,
    streams: Annotated[int | None, typer.Option("--streams", min=1, help="Most streams at once.")] = None,
    requests_per_day: Annotated[
        int | None, typer.Option("--requests-per-day", min=1, help="Most requests per day (UTC).")
    ] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option("--tokens-per-minute", min=1, help="Most tokens per minute.")
    ] = None,
    tokens_per_day: Annotated[
        int | None, typer.Option("--tokens-per-day", min=1, help="Most tokens per day (UTC).")
    ] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="Only for chat, completions or embeddings; may be repeated."),
    ] = None,
    allow_from: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="ADDRESS", help="Only from this address or network; may be repeated."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Make a key. It is printed once, alone on its line.

    Example: ostler keys create laptop --role user --expires 90d
    """
    limits = {
        "requests_per_minute": rpm,
        "concurrency": concurrency,
        "concurrent_streams": streams,
        "requests_per_day": requests_per_day,
        "tokens_per_minute": tokens_per_minute,
        "tokens_per_day": tokens_per_day,
    }
    body: dict[str, Any] = {
        "name": name,
        "role": role,
        "models": model or None,
        "expires_at": _expiry(expires),
        "scopes": scope or None,
        "addresses": allow_from or None,
        "limits": {k: v for k, v in limits.items() if v is not None} or None,
    }
    made = server.client().post("/keys", {k: v for k, v in body.items() if v is not None})
    if json:
        print_json(made)
    else:
        note(f"The key of {name} ({role}); it is shown only now:")
        print(made["key"])


def _expiry(text: str | None) -> str | None:
    if text is None:
        return None
    try:
        if text.endswith("d") and text[:-1].isdigit():
            return (datetime.now(UTC) + timedelta(days=int(text[:-1]))).isoformat()
        moment = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise CommandFailed(
            f"{text!r} is not a time", hint="Write 30d or a date like 2027-01-31.", exit_code=USAGE
        ) from None
    return (moment if moment.tzinfo else moment.astimezone()).isoformat()


@keys_app.command("revoke")
@with_server
def keys_revoke(
    server: Server,
    which: Annotated[str, typer.Argument(metavar="NAME|ID", help="From: ostler keys list")],
) -> None:
    """Revoke a key; it stops working at once.

    Example: ostler keys revoke laptop
    """
    server.client().delete(f"/keys/{quote(which, safe='')}")
    print(f"Revoked the key {which}.")


def _switch(server: Server, which: str, *, disabled: bool) -> None:
    server.client().patch(f"/keys/{quote(which, safe='')}", {"disabled": disabled})
    print(f"The key {which} is switched {'off' if disabled else 'on'}.")


@keys_app.command("disable")
@with_server
def keys_disable(server: Server, which: Annotated[str, typer.Argument(metavar="NAME|ID")]) -> None:
    """Switch a key off; it is kept."""
    _switch(server, which, disabled=True)


@keys_app.command("enable")
@with_server
def keys_enable(server: Server, which: Annotated[str, typer.Argument(metavar="NAME|ID")]) -> None:
    """Switch a key on again."""
    _switch(server, which, disabled=False)


@settings_app.callback()
def _settings(ctx: typer.Context, json: JsonFlag = False) -> None:
    if lists_alone(ctx, json):
        _print_settings(ctx.find_root().obj or Server(), json=json)


@settings_app.command("list")
@with_server
def settings_list(server: Server, json: JsonFlag = False) -> None:
    """List every setting: value, where it comes from, and whether it changes while the server runs."""
    _print_settings(server, json=json)


def _print_settings(server: Server, *, json: bool) -> None:
    found = _settings_of_server(server) or _settings_here()
    if json:
        print_json(found)
        return
    print_table(("SETTING", "VALUE", "SOURCE", "LIVE"), map(_setting_row, found["items"]))


def _setting_row(item: Json) -> tuple[str, ...]:
    return (item["name"], _shown(item["value"]), item["origin"], "yes" if item["live"] else "")


def _settings_of_server(server: Server) -> Json | None:
    """What the running server uses; None where none runs."""
    from ostler.cli.client import ServerUnreachable

    try:
        return server.client(start=False).get("/settings")
    except ServerUnreachable:
        if server.url:
            raise
        note("No server runs; these are the settings that one would start with.")
        return None


def _settings_here() -> Json:
    from pydantic import SecretStr

    from ostler.core.launch import HIDDEN
    from ostler.core.settings import is_live
    from ostler.core.settings_sources import load_settings

    loaded = load_settings()
    items = []
    for name, origin in sorted(loaded.origins.items()):
        value = getattr(loaded.values, name)
        shown = HIDDEN if isinstance(value, SecretStr) else value
        shown = shown if isinstance(shown, str | int | float | bool | None) else _plain(shown)
        items.append({"name": name, "value": shown, "origin": str(origin), "live": is_live(name)})
    return {"items": items, "total": len(items)}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else str(value)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else json_module.dumps(value)


@settings_app.command("set")
@with_server
def settings_set(
    server: Server,
    name: Annotated[str, typer.Argument(metavar="SETTING")],
    value: Annotated[str, typer.Argument(metavar="VALUE")],
) -> None:
    """Change a setting while the server runs; it is kept over restarts.

    Example: ostler settings set max_running 2
    """
    try:
        told: Any = json_module.loads(value)
    except ValueError:
        told = value
    server.client().patch("/settings", {name: told})
    print(f"{name} is now {value}.")


@settings_app.command("unset")
@with_server
def settings_unset(server: Server, name: Annotated[str, typer.Argument(metavar="SETTING")]) -> None:
    """Take back a change; the file or the default holds again."""
    server.client().patch("/settings", {name: None})
    print(f"{name} is no longer changed at run time.")

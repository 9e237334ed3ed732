"""Settings under BodhiApp's names, as far as Ostler has the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Path

from ostler.api.dialects.bodhi.door import BodhiBody, SessionDoor, router
from ostler.api.dialects.bodhi.errors import (
    BodhiHomeSetting,
    FixedSetting,
    SettingNull,
    SettingType,
    SettingValue,
    UnknownSetting,
)
from ostler.api.door import needs
from ostler.api.services import Rooms, Who
from ostler.core.principals import Role
from ostler.core.settings import DEFAULT_PORT, Settings
from ostler.core.settings_sources import LoadedSettings, Origin

routes = router("settings", SessionDoor)

SettingKey = Annotated[str, Path(max_length=100)]

HOME, VARIANT, KEEP_ALIVE = "BODHI_HOME", "BODHI_EXEC_VARIANT", "BODHI_KEEP_ALIVE_SECS"
KEEP_ALIVE_MIN_S, KEEP_ALIVE_MAX_S = 300, 86_400
NEVER_UNLOAD = -1
ONLY_VARIANT = "default"
"""Which build of llama.cpp runs is decided by the command that starts it, not by a variant's name."""

_SOURCES = {
    Origin.COMMAND_LINE: "command_line",
    Origin.ENVIRONMENT: "environment",
    Origin.RUN_TIME: "settings_file",
    Origin.FILE: "settings_file",
    Origin.DEFAULT: "default",
}


@dataclass(frozen=True, slots=True)
class _Mapped:
    """One setting. `ours` is the name here, None where the value is not set but known by itself."""

    ours: str | None
    value: Callable[[Settings], Any]
    default: Any
    metadata: Mapping[str, Any]


_STRING: Mapping[str, Any] = {"type": "string"}
_LEVELS = {"type": "option", "options": ["error", "warn", "info", "debug"]}


def _keep_alive(settings: Settings) -> int:
    """Seconds; our 0 (never) is -1 there."""
    return int(settings.idle_timeout_s) or NEVER_UNLOAD


def _log_level(settings: Settings) -> str:
    return "warn" if settings.log_level == "warning" else settings.log_level


_MAPPED: Mapping[str, _Mapped] = {
    HOME: _Mapped("data_dir", lambda s: str(s.data_dir), None, _STRING),
    "HF_HOME": _Mapped("hub_cache_dir", lambda s: str(s.hub_cache_dir.parent), None, _STRING),
    "BODHI_SCHEME": _Mapped(None, lambda s: "http", "http", _STRING),
    "BODHI_HOST": _Mapped("host", lambda s: s.host, "127.0.0.1", _STRING),
    "BODHI_PORT": _Mapped(
        "port", lambda s: s.port, DEFAULT_PORT, {"type": "number", "min": 1, "max": 65_535}
    ),
    "BODHI_LOG_LEVEL": _Mapped("log_level", _log_level, "info", _LEVELS),
    "BODHI_LOG_STDOUT": _Mapped(None, lambda s: True, True, {"type": "boolean"}),
    VARIANT: _Mapped(
        None, lambda s: ONLY_VARIANT, ONLY_VARIANT, {"type": "option", "options": [ONLY_VARIANT]}
    ),
    KEEP_ALIVE: _Mapped(
        "idle_timeout_s",
        _keep_alive,
        int(Settings.model_fields["idle_timeout_s"].default),
        {"type": "number", "min": KEEP_ALIVE_MIN_S, "max": KEEP_ALIVE_MAX_S},
    ),
}
EDITABLE = (VARIANT, KEEP_ALIVE)


class NewValue(BodhiBody):
    """The value."""

    value: Any = None


@routes.get("/bodhi/v1/settings", **needs(Role.ADMIN))
async def list_settings(rooms: Rooms, who: Who) -> list[dict[str, Any]]:
    """Every setting of BodhiApp's that Ostler has; all of Ostler's own: GET /ostler/v1/settings."""
    return [_item(key, rooms.settings.loaded) for key in _MAPPED]


@routes.put("/bodhi/v1/settings/{key}", **needs(Role.ADMIN))
async def change_setting(rooms: Rooms, who: Who, key: SettingKey, body: NewValue) -> dict[str, Any]:
    """Change a setting, at once and for good."""
    _check_editable(key)
    if body.value is None:
        raise SettingNull(f"{key} cannot be null", hint=f"DELETE /bodhi/v1/settings/{key} resets it.")
    if key == KEEP_ALIVE:
        seconds = _seconds(body.value)
        await rooms.settings.change({"idle_timeout_s": seconds}, who)
    elif body.value != ONLY_VARIANT:
        raise SettingValue(
            f"{str(body.value)[:80]!r} is no variant here",
            hint="The setting llama_server_command says which llama-server runs.",
        )
    return _item(key, rooms.settings.loaded)


@routes.delete("/bodhi/v1/settings/{key}", **needs(Role.ADMIN))
async def reset_setting(rooms: Rooms, who: Who, key: SettingKey) -> dict[str, Any]:
    """Give a setting back to its default; what the environment says stays."""
    _check_editable(key)
    ours = _MAPPED[key].ours
    if ours is not None and rooms.settings.loaded.origins[ours] is Origin.RUN_TIME:
        await rooms.settings.change({ours: None}, who)
    return _item(key, rooms.settings.loaded)


def _check_editable(key: str) -> None:
    if key == HOME:
        raise BodhiHomeSetting(f"{HOME} is where the server's own data is, and cannot be changed")
    if key not in _MAPPED:
        raise UnknownSetting(f"there is no setting {key!r}", hint=f"One of: {', '.join(_MAPPED)}.")
    if key not in EDITABLE:
        raise FixedSetting(
            f"{key} cannot be changed over the API",
            hint=f"Only {' and '.join(EDITABLE)} can; set the others where the server is started.",
        )


def _seconds(value: Any) -> int:
    """A number within the bounds; numerals in a text are understood. Raises SettingType, SettingValue."""
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value.strip())
    if isinstance(value, bool) or not isinstance(value, int):
        raise SettingType(f"{KEEP_ALIVE} must be a whole number, not {str(value)[:80]!r}")
    if not KEEP_ALIVE_MIN_S <= value <= KEEP_ALIVE_MAX_S:
        raise SettingValue(f"{KEEP_ALIVE} must be from {KEEP_ALIVE_MIN_S} to {KEEP_ALIVE_MAX_S}, not {value}")
    return value


def _item(key: str, loaded: LoadedSettings) -> dict[str, Any]:
    mapped = _MAPPED[key]
    value = mapped.value(loaded.values)
    source = "system" if mapped.ours is None else _SOURCES[loaded.origins[mapped.ours]]
    return {
        "key": key,
        "current_value": value,
        "default_value": value if mapped.default is None else mapped.default,
        "source": source,
        "metadata": dict(mapped.metadata),
    }

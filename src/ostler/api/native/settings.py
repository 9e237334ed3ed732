"""Settings: what holds now, where it comes from, and changing what may change."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Body as FromBody
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from ostler.api.door import needs, router
from ostler.api.services import Rooms, Services, Who
from ostler.api.shapes import Out, PageOut, hide_password, one_page
from ostler.core.launch import HIDDEN
from ostler.core.principals import Role
from ostler.core.settings import Settings, environment_names, is_live

routes = router("settings")


class SettingOut(Out):
    """One setting. `live`: it may change while the server runs. `origin`: where the value comes from."""

    name: str
    value: Any
    default: Any
    origin: str
    description: str
    env: list[str]
    live: bool
    secret: bool
    type: dict[str, Any]


@routes.get("/settings", response_model=PageOut[SettingOut], **needs(Role.ADMIN))
async def list_settings(rooms: Rooms, who: Who) -> Any:
    """Every setting, all on one page; secrets are hidden."""
    return one_page(_all(rooms))


@routes.patch("/settings", response_model=PageOut[SettingOut], **needs(Role.ADMIN))
async def change_settings(
    rooms: Rooms, who: Who, values: Annotated[dict[str, Any], FromBody(examples=[{"max_running": 2}])]
) -> Any:
    """Change settings that are live, at once and for good; null gives one back to its default."""
    await rooms.settings.change(values, who)
    return one_page([setting for setting in _all(rooms) if setting["name"] in values])


def _all(rooms: Services) -> list[dict[str, Any]]:
    loaded = rooms.settings.loaded
    kinds = Settings.model_json_schema()["properties"]
    plain = loaded.values.model_dump(mode="json")
    shown = []
    for name, field in Settings.model_fields.items():
        kind = {k: v for k, v in kinds[name].items() if k not in ("title", "description", "env", "live")}
        secret = "SecretStr" in str(field.annotation)
        value = getattr(loaded.values, name)
        shown.append(
            {
                "name": name,
                "value": HIDDEN if isinstance(value, SecretStr) else _hidden(plain[name]),
                "default": None if secret else kind.pop("default", _default(name)),
                "origin": loaded.origins[name].value,
                "description": field.description or "",
                "env": environment_names(name),
                "live": is_live(name),
                "secret": secret,
                "type": kind,
            }
        )
    return shown


def _default(name: str) -> Any:
    default = Settings.model_fields[name].get_default(call_default_factory=True, validated_data={})
    return None if default is None or default is PydanticUndefined else str(default)


def _hidden(value: Any) -> Any:
    return hide_password(value) if isinstance(value, str) else value

"""Settings that may change while the server runs.

`LiveSettings.current` is what every room reads at the moment it needs a value. Changes are kept in
the table `settings`; what the command line or the environment says cannot be changed here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError
from sqlalchemy import delete, select

from ostler.core.clock import Clock
from ostler.core.database import Database, after_commit
from ostler.core.errors import Conflict
from ostler.core.events import EventLog, NewEvent
from ostler.core.launch import HIDDEN
from ostler.core.near import near_names
from ostler.core.principals import Principal, Role
from ostler.core.settings import BadSetting, Settings, environment_names, is_live
from ostler.core.settings_sources import LoadedSettings, Origin
from ostler.core.tables import SettingRow

log = logging.getLogger(__name__)

Listener = Callable[[Settings], None]

LARGEST = 2**53
"""Larger numbers lose digits on their way through JSON."""

_NUMBERS = frozenset(n for n, field in Settings.model_fields.items() if field.annotation in (int, float))
_FIXED = (Origin.COMMAND_LINE, Origin.ENVIRONMENT)


class SettingIsFixed(Conflict):
    """The setting cannot change while the server runs."""


class LiveSettings:
    """The settings as they are now.

    `loaded` are those from the command line, the environment and the file; `start` adds what was
    changed at run time before. Reading `current` is cheap: keep the LiveSettings, not the value.
    """

    def __init__(self, loaded: LoadedSettings, database: Database, events: EventLog, clock: Clock) -> None:
        self._base = loaded
        self._loaded = loaded
        self._changed: dict[str, Any] = {}
        self._database = database
        self._events = events
        self._clock = clock
        self._listeners: list[Listener] = []
        self._one_at_a_time = asyncio.Lock()

    @property
    def current(self) -> Settings:
        """The values that hold now."""
        return self._loaded.values

    @property
    def loaded(self) -> LoadedSettings:
        """The values that hold now, with the origin of each."""
        return self._loaded

    def __call__(self) -> Settings:
        """The same as `current`, for rooms that take a `Callable[[], Settings]`."""
        return self._loaded.values

    def subscribe(self, listener: Listener) -> None:
        """Hear of every change, with the new values, once it holds."""
        self._listeners.append(listener)

    async def start(self) -> None:
        """Take in what was changed before. A kept value that is no longer valid is logged and left out."""
        async with self._database.read() as session:
            rows = (await session.scalars(select(SettingRow).order_by(SettingRow.name))).all()
        for row in rows:
            if row.name not in Settings.model_fields or not is_live(row.name):
                log.warning("the kept setting %s is not one that can change at run time: left out", row.name)
                continue
            try:
                _put_together(self._base, {row.name: row.value})
            except BadSetting as error:
                log.warning("the kept value of %s is left out: %s", row.name, error.message)
                continue
            self._changed[row.name] = row.value
        self._loaded = _put_together(self._base, self._changed)

    async def change(self, values: Mapping[str, Any], principal: Principal) -> LoadedSettings:
        """Change live settings and keep them; None gives a setting back to the file or its default.

        All or nothing. Needs the role admin. Raises BadSetting (unknown name, wrong value) and
        SettingIsFixed (needs a restart, or comes from the command line or the environment).
        """
        principal.require(Role.ADMIN, "change settings")
        for name in values:
            self._refuse_fixed(name)
        async with self._one_at_a_time:
            return await self._change(values, principal)

    async def _change(self, values: Mapping[str, Any], principal: Principal) -> LoadedSettings:
        changed = {k: v for k, v in {**self._changed, **values}.items() if v is not None}
        after = _put_together(self._base, changed)
        kept = {name: _plain(after.values, name) for name in values if values[name] is not None}
        now = self._clock.now()
        async with self._database.write() as session:
            await session.execute(delete(SettingRow).where(SettingRow.name.in_(list(values))))
            session.add_all(
                SettingRow(name=name, value=value, changed_at=now, changed_by=principal.name)
                for name, value in kept.items()
            )
            for name in values:
                before, now_is = _plain(self._loaded.values, name), _plain(after.values, name)
                await self._events.add(
                    session,
                    NewEvent(
                        "setting.changed",
                        "setting",
                        name,
                        name,
                        principal.name,
                        data={"before": before, "after": now_is},
                    ),
                )
            after_commit(session, lambda: self._take(changed, after))
        return self._loaded

    def _take(self, changed: dict[str, Any], after: LoadedSettings) -> None:
        self._changed = changed
        self._loaded = after
        for listener in self._listeners:
            listener(after.values)

    def _refuse_fixed(self, name: str) -> None:
        if name not in Settings.model_fields:
            near = near_names(name, Settings.model_fields)
            raise BadSetting(
                f"unknown setting {name!r}", hint=f"Did you mean {near[0]}?" if near else None, setting=name
            )
        origin = self._base.origins.get(name, Origin.DEFAULT)
        if origin in _FIXED:
            raise SettingIsFixed(
                f"{name} is set by the {origin} and cannot be changed while the server runs",
                hint=f"Start the server without it (variables: {', '.join(environment_names(name))}).",
                setting=name,
                origin=origin.value,
            )
        if not is_live(name):
            raise SettingIsFixed(
                f"{name} is read at start only",
                hint=f"Set {environment_names(name)[0]} or write it in the configuration file, then restart.",
                setting=name,
                origin=origin.value,
            )


def _put_together(base: LoadedSettings, changed: Mapping[str, Any]) -> LoadedSettings:
    """The base with the changes over it, except where the base may not be overruled."""
    over = {k: v for k, v in changed.items() if base.origins.get(k, Origin.DEFAULT) not in _FIXED}
    for name, value in over.items():
        if isinstance(value, bool) and Settings.model_fields[name].annotation is not bool:
            raise BadSetting(f"setting {name}: {str(value).lower()} is not a number", setting=name)
        if isinstance(value, str | list | dict) and name in _NUMBERS:
            raise BadSetting(f"setting {name}: it must be a number", setting=name)
        if isinstance(value, int | float) and not abs(value) <= LARGEST:
            raise BadSetting(f"setting {name}: at most {LARGEST}", setting=name)
    values = {name: getattr(base.values, name) for name in Settings.model_fields}
    try:
        settings = Settings(**{**values, **over})
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "?"
        raise BadSetting(f"setting {name}: {first['msg']}", setting=name) from error
    origins = {**base.origins, **dict.fromkeys(over, Origin.RUN_TIME)}
    return LoadedSettings(values=settings, origins=origins, config_file=base.config_file)


def _plain(settings: Settings, name: str) -> Any:
    """One value, ready for JSON; a secret is hidden."""
    value = getattr(settings, name)
    if isinstance(value, SecretStr):
        return HIDDEN
    return BaseModel.model_dump(settings, mode="json", include={name})[name]

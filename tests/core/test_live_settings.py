"""Settings that change while the server runs."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ostler.core.clock import Clock
from ostler.core.database import Database
from ostler.core.errors import NotAllowed
from ostler.core.events import EventLog
from ostler.core.live_settings import LiveSettings, SettingIsFixed
from ostler.core.principals import Principal
from ostler.core.settings import BadSetting, Settings
from ostler.core.settings_sources import Origin, load_settings


@pytest.fixture
def make_live(database: Database, events: EventLog, tmp_path: Path) -> Any:
    async def make(
        environ: dict[str, str] | None = None, flags: dict[str, Any] | None = None, config: str = ""
    ) -> LiveSettings:
        file = tmp_path / "config.toml"
        file.write_text(config)
        live = LiveSettings(
            load_settings(environ=environ or {}, flags=flags, config=file), database, events, Clock()
        )
        await live.start()
        return live

    return make


async def test_a_change_holds_at_once_is_told_and_outlives_a_restart(
    make_live: Any, admin: Principal, events: EventLog
) -> None:
    live = await make_live()
    heard: list[Settings] = []
    live.subscribe(heard.append)
    loaded = await live.change({"max_running": 2, "idle_timeout_s": 5}, admin)
    assert live.current.max_running == 2 and live() is live.current and heard == [live.current]
    assert loaded.origins["max_running"] is Origin.RUN_TIME
    again = await make_live()
    assert (again.current.max_running, again.current.idle_timeout_s) == (2, 5.0)
    kept, _ = await events.find(kind="setting.changed", subject_id="max_running")
    assert kept[0].data == {"before": 4, "after": 2} and kept[0].actor == admin.name


async def test_two_changes_at_once_both_hold(make_live: Any, admin: Principal) -> None:
    live = await make_live()
    await asyncio.gather(live.change({"max_running": 2}, admin), live.change({"max_queue": 3}, admin))
    assert (live.current.max_running, live.current.max_queue) == (2, 3)
    again = await make_live()
    assert (again.current.max_running, again.current.max_queue) == (2, 3)


async def test_null_gives_a_setting_back_to_the_file_or_its_default(make_live: Any, admin: Principal) -> None:
    live = await make_live(config="max_running = 7")
    await live.change({"max_running": 2, "max_queue": 3}, admin)
    await live.change({"max_running": None, "max_queue": None}, admin)
    assert (live.current.max_running, live.loaded.origins["max_running"]) == (7, Origin.FILE)
    assert (live.current.max_queue, live.loaded.origins["max_queue"]) == (64, Origin.DEFAULT)


async def test_what_environment_or_command_line_say_cannot_be_changed(
    make_live: Any, admin: Principal
) -> None:
    live = await make_live(environ={"OSTLER_MAX_RUNNING": "3"}, flags={"max_queue": 9})
    for name, source in (("max_running", "environment"), ("max_queue", "command line")):
        with pytest.raises(SettingIsFixed, match=source):
            await live.change({name: 2}, admin)


async def test_the_environment_wins_over_a_kept_change_and_the_change_comes_back_without_it(
    make_live: Any, admin: Principal
) -> None:
    await (await make_live()).change({"max_running": 2}, admin)
    overruled = await make_live(environ={"OSTLER_MAX_RUNNING": "3"})
    assert overruled.current.max_running == 3
    assert overruled.loaded.origins["max_running"] is Origin.ENVIRONMENT
    assert (await make_live()).current.max_running == 2


@pytest.mark.parametrize(
    "values",
    [
        {"max_runing": 2},
        {"max_running": -1},
        {"max_running": "many"},
        {"max_running": True},
        {"max_running": [1]},
        {"max_queue": 5, "probe_failures": 0},
    ],
)
async def test_a_wrong_change_changes_nothing(
    make_live: Any, admin: Principal, values: dict[str, Any]
) -> None:
    live = await make_live()
    before = live.current
    with pytest.raises(BadSetting):
        await live.change(values, admin)
    assert live.current is before and (await make_live()).current == before


async def test_a_setting_that_is_read_at_start_is_refused(make_live: Any, admin: Principal) -> None:
    live = await make_live()
    with pytest.raises(SettingIsFixed):
        await live.change({"port": 1}, admin)


async def test_only_administrators_change_settings(make_live: Any, manager: Principal) -> None:
    live = await make_live()
    with pytest.raises(NotAllowed):
        await live.change({"max_running": 1}, manager)


async def test_a_kept_value_that_is_not_valid_any_more_is_left_out(
    make_live: Any, admin: Principal, database: Database
) -> None:
    from sqlalchemy import text

    await (await make_live()).change({"max_running": 2, "max_queue": 3}, admin)
    async with database.write() as session:
        await session.execute(text("UPDATE settings SET value = '-5' WHERE name = 'max_running'"))
    live = await make_live()
    assert (live.current.max_running, live.current.max_queue) == (4, 3)

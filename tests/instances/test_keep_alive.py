"""How long clients may keep a model: what they send, and what of it is heeded."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from ostler.core.errors import InvalidField
from ostler.core.principals import LOCAL_ADMIN, Role
from ostler.instances.keep_alive import KeepAlive
from tests.instances.conftest import Fake

USER = replace(LOCAL_ADMIN, name="somebody", role=Role.USER)


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (300, 300.0),
        (0, 0.0),
        (2.5, 2.5),
        (-1, math.inf),
        ("5m", 300.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("300ms", 0.3),
        ("24h", 86400.0),
        ("-1m", math.inf),
        ("-1", math.inf),
        ("0", 0.0),
        ("5", 5.0),
        ("0s", 0.0),
        (" 10s ", 10.0),
    ],
)
def test_what_clients_send_is_understood(sent: Any, seconds: float) -> None:
    assert KeepAlive.asked(sent, USER) == KeepAlive(seconds, may_pin=False)


@pytest.mark.parametrize("sent", [True, [], {}, "", "soon", "5 m", "m", "1e9", math.nan, "9" * 60, "5m5"])
def test_what_is_no_duration_is_refused_with_examples(sent: Any) -> None:
    with pytest.raises(InvalidField, match="keep_alive must be seconds or a duration") as caught:
        KeepAlive.asked(sent, USER)
    assert caught.value.facts["field"] == "keep_alive"


def test_a_wish_may_shorten_freely_and_lengthen_up_to_the_limit() -> None:
    assert KeepAlive(5).within(None, 900, 3600) == 5
    assert KeepAlive(2400).within(None, 900, 3600) == 2400
    assert KeepAlive(7200).within(None, 900, 3600) == 3600
    assert KeepAlive(7200).within(None, 900, 60) == 900, "a wish for longer never shortens"
    assert KeepAlive(7200).within(None, 0, 3600) == 7200, "it would have stayed for ever"


def test_a_wish_is_never_longer_than_the_model_s_own_time() -> None:
    assert KeepAlive(7200).within(60, 900, 3600) == 60
    assert KeepAlive(5).within(60, 900, 3600) == 5
    assert KeepAlive(7200).within(0, 900, 3600) == 7200
    assert KeepAlive(math.inf).within(0, 900, 3600) == math.inf


def test_for_ever_needs_the_right_to_pin() -> None:
    manager = replace(LOCAL_ADMIN, role=Role.MANAGER)
    power_user = replace(LOCAL_ADMIN, role=Role.POWER_USER)
    assert KeepAlive.asked(-1, manager).within(None, 900, 3600) == math.inf
    assert KeepAlive.asked(-1, manager).within(60, 900, 3600) == 60, "the model's own policy holds for all"
    assert KeepAlive.asked(-1, power_user).within(None, 900, 3600) == 3600


async def test_keep_alive_0_stops_the_model_once_it_is_idle(house: Fake) -> None:
    model = await house.add("a")
    first, second = await house.lease(model), await house.lease(model)
    first.keep_alive(KeepAlive(0))
    first.release()
    assert house.instances.view(model.id).state == "running", "another request is in flight"
    second.release()
    idle = await house.until("instance.idle")
    assert idle.data["idle_s"] == 0
    await house.until("instance.stopped")


async def test_a_shorter_wish_takes_hold_at_once_and_is_shown(house: Fake) -> None:
    house.settings.change(probe_interval_s=60.0)
    model = await house.add("a", policy={"idle_timeout_s": 600.0})
    lease = await house.lease(model)
    lease.keep_alive(KeepAlive(0.1))
    lease.release()
    view = house.instances.view(model.id)
    assert view.expires_at is not None and view.last_used_at is not None
    assert (view.expires_at - view.last_used_at).total_seconds() == pytest.approx(0.1, abs=0.01)
    await house.until("instance.idle")


async def test_a_longer_wish_lasts_no_longer_than_the_setting_allows(house: Fake) -> None:
    house.settings.change(idle_timeout_s=0.05, max_keep_alive_s=0.2)
    model = await house.add("a")
    lease = await house.lease(model)
    lease.keep_alive(KeepAlive(86_400))
    lease.release()
    assert (await house.until("instance.idle")).data["idle_s"] == 0.2


async def test_the_last_wish_holds_and_one_for_ever_is_kept(house: Fake) -> None:
    model = await house.add("a")
    for wish in (KeepAlive(60), KeepAlive(math.inf, may_pin=True)):
        lease = await house.lease(model)
        lease.keep_alive(wish)
        lease.release()
    (await house.lease(model)).release()
    assert house.instances.view(model.id).expires_at is None
    assert house.state(model) == "running"


async def test_wishes_have_no_say_over_kept_and_pinned_models_and_none_where_that_is_set(house: Fake) -> None:
    kept, pinned, other = (
        await house.add("a"),
        await house.add("b", policy={"pinned": True}),
        await house.add("c"),
    )
    await house.instances.start("a", LOCAL_ADMIN)
    for model in (kept, pinned):
        lease = await house.lease(model)
        lease.keep_alive(KeepAlive(0))
        lease.release()
        assert house.instances.view(model.id).expires_at is None
    house.settings.change(max_keep_alive_s=0)
    lease = await house.lease(other)
    lease.keep_alive(KeepAlive(0))
    lease.release()
    view = house.instances.view(other.id)
    assert view.expires_at is not None and view.last_used_at is not None
    assert (view.expires_at - view.last_used_at).total_seconds() == pytest.approx(900)

"""The first administrator is made once, however many ask at once."""

from __future__ import annotations

import asyncio

from ostler.access.service import Access
from ostler.core.principals import SYSTEM, Role
from tests.access.conftest import MakeAccess

PASSWORD = "a long password"


async def test_of_many_at_once_on_two_servers_one_is_made(access: Access, make_access: MakeAccess) -> None:
    other = await make_access()
    made = await asyncio.gather(
        *((access, other)[n % 2].users.create_owner(f"boss{n}", PASSWORD, "Inn") for n in range(6))
    )
    assert len([user for user in made if user is not None]) == 1
    assert (await access.users.list()).total == (await access.organisations.list()).total == 1


async def test_a_key_that_administers_is_enough_unless_it_asks_itself(access: Access) -> None:
    await access.keys.create("boss", Role.ADMIN, SYSTEM)
    assert await access.users.create_owner("ada", PASSWORD) is None
    made = await access.users.create_owner("ada", PASSWORD, beside_keys=True)
    assert made is not None and made.role is Role.ADMIN
    assert await access.users.create_owner("eve", PASSWORD, beside_keys=True) is None


async def test_people_who_do_not_administer_do_not_count(access: Access) -> None:
    await access.users.create("ada", PASSWORD, Role.USER, SYSTEM)
    first = await access.users.create_owner("boss", PASSWORD)
    assert first is not None and first.org_id is None

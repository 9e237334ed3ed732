"""People, their passwords, and how often a wrong one may be tried."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from ostler.access.attempts import PER_ADDRESS, PER_NAME_AND_ADDRESS, WINDOW_S, Attempts
from ostler.access.service import Access
from ostler.access.users import UserNameTaken, UserNotFound, WrongPassword
from ostler.core.database import Database
from ostler.core.errors import InvalidField, NotAllowed, RateLimited
from ostler.core.principals import Principal, Role
from tests.access.conftest import HeldClock

PASSWORD = "correct horse battery"


async def test_a_person_signs_in_with_the_right_password_only(access: Access, admin: Principal) -> None:
    await access.users.create("ada", PASSWORD, Role.MANAGER, admin)
    assert (await access.users.verify("ada", PASSWORD)).role is Role.MANAGER
    for name, password in (("ada", "wrong"), ("ada", ""), ("bob", PASSWORD), ("ada", "x" * 5_000)):
        with pytest.raises(WrongPassword):
            await access.users.verify(name, password)


async def test_the_password_is_kept_as_argon2_only(
    access: Access, admin: Principal, database: Database
) -> None:
    await access.users.create("ada", PASSWORD, Role.USER, admin)
    async with database.connect() as connection:
        kept = str((await connection.execute(text("SELECT * FROM users"))).all())
        told = str((await connection.execute(text("SELECT * FROM events"))).all())
    assert "$argon2id$" in kept and PASSWORD not in kept + told


async def test_a_disabled_person_does_not_come_in(access: Access, admin: Principal) -> None:
    await access.users.create("ada", PASSWORD, Role.USER, admin)
    await access.users.update("ada", admin, disabled=True)
    with pytest.raises(WrongPassword):
        await access.users.verify("ada", PASSWORD)
    await access.users.update("ada", admin, disabled=False, password="another password")
    await access.users.verify("ada", "another password")


async def test_after_a_few_wrong_passwords_even_the_right_one_has_to_wait(
    access: Access, admin: Principal, clock: HeldClock
) -> None:
    await access.users.create("ada", PASSWORD, Role.USER, admin)
    for _ in range(PER_NAME_AND_ADDRESS):
        with pytest.raises(WrongPassword):
            await access.sign_in("ada", "wrong", "192.0.2.1")
    with pytest.raises(RateLimited) as refused:
        await access.sign_in("ada", PASSWORD, "192.0.2.1")
    await access.sign_in("ada", PASSWORD, "192.0.2.2")
    clock.pass_s(refused.value.retry_after_s)
    await access.sign_in("ada", PASSWORD, "192.0.2.1")


def test_an_address_that_tries_many_names_has_to_wait(clock: HeldClock) -> None:
    attempts = Attempts(clock)
    for number in range(PER_ADDRESS):
        attempts.check(f"name {number}", "192.0.2.1")
        attempts.failed(f"name {number}", "192.0.2.1")
    with pytest.raises(RateLimited):
        attempts.check("ada", "192.0.2.1")
    clock.pass_s(WINDOW_S)
    attempts.check("ada", "192.0.2.1")


@pytest.mark.parametrize("password", ["", "short", "x" * 1_025])
async def test_a_password_of_a_wrong_length_is_refused(
    access: Access, admin: Principal, password: str
) -> None:
    with pytest.raises(InvalidField):
        await access.users.create("ada", password, Role.USER, admin)


async def test_names_are_given_once_and_unknown_people_are_not_found(
    access: Access, admin: Principal
) -> None:
    await access.users.create("ada", PASSWORD, Role.USER, admin)
    with pytest.raises(UserNameTaken):
        await access.users.create("ada", PASSWORD, Role.USER, admin)
    with pytest.raises(UserNotFound):
        await access.users.update("bob", admin, disabled=True)
    with pytest.raises(UserNotFound):
        await access.users.delete(99, admin)


async def test_only_administrators_change_people(access: Access, manager: Principal) -> None:
    with pytest.raises(NotAllowed):
        await access.users.create("ada", PASSWORD, Role.ADMIN, manager)
    with pytest.raises(NotAllowed):
        await access.users.update("ada", manager, role=Role.ADMIN)
    with pytest.raises(NotAllowed):
        await access.users.delete("ada", manager)

"""Organisations, and whose people and keys are."""

from __future__ import annotations

import pytest

from ostler.access.key_records import Owner
from ostler.access.organisations import OrganisationNameTaken, OrganisationNotFound
from ostler.access.service import Access
from ostler.access.users import LastAdmin
from ostler.core.errors import InvalidField, NotAllowed
from ostler.core.principals import Principal, Role


async def test_an_organisation_is_made_renamed_listed_and_found(access: Access, admin: Principal) -> None:
    made = await access.organisations.create("Physics", admin)
    await access.organisations.create("Art", admin)
    await access.organisations.rename(made.id, "Chemistry", admin)
    assert [one.name for one in (await access.organisations.list()).items] == ["Art", "Chemistry"]
    assert (await access.organisations.get("Chemistry")).id == made.id
    with pytest.raises(OrganisationNameTaken):
        await access.organisations.create("Art", admin)
    with pytest.raises(OrganisationNameTaken):
        await access.organisations.rename("Art", "Chemistry", admin)
    with pytest.raises(OrganisationNotFound):
        await access.organisations.get("Physics")
    with pytest.raises(InvalidField):
        await access.organisations.create("../up", admin)


async def test_requests_of_a_person_and_of_a_key_carry_their_organisation(
    access: Access, admin: Principal
) -> None:
    org = await access.organisations.create("Physics", admin)
    user = await access.users.create("marie", "a good password", Role.USER, admin, org_id=org.id)
    owner = Owner(user.id, org.id)
    _, token = await access.keys.create("hers", Role.USER, admin, owner=owner)
    who = access.authenticate(token)
    assert (who.user_id, who.org_id, user.principal.org_id) == (user.id, org.id, org.id)
    assert [key.name for key in (await access.keys.list(owner=Owner(org_id=org.id))).items] == ["hers"]


async def test_without_their_organisation_people_and_keys_go_on(access: Access, admin: Principal) -> None:
    org = await access.organisations.create("Physics", admin)
    user = await access.users.create("marie", "a good password", Role.USER, admin, org_id=org.id)
    _, token = await access.keys.create("hers", Role.USER, admin, owner=Owner(user.id, org.id))
    await access.organisations.delete(org.id, admin)
    await access.keys.refresh()
    assert (await access.users.get(user.id)).org_id is None
    assert access.authenticate(token).org_id is None
    await access.users.delete(user.id, admin)
    await access.keys.refresh()
    assert access.authenticate(token).user_id is None


async def test_an_organisation_or_person_that_is_not_there_owns_nothing(
    access: Access, admin: Principal
) -> None:
    with pytest.raises(InvalidField, match="no organisation 9"):
        await access.users.create("marie", "a good password", Role.USER, admin, org_id=9)
    for owner in (Owner(user_id=9), Owner(org_id=9)):
        with pytest.raises(InvalidField, match="there is no"):
            await access.keys.create("k", Role.USER, admin, owner=owner)


async def test_a_person_makes_and_switches_keys_of_their_own_with_no_more_rights(
    access: Access, admin: Principal
) -> None:
    marie = (await access.users.create("marie", "a good password", Role.POWER_USER, admin)).principal
    key, token = await access.keys.create("hers", Role.USER, marie, owner=Owner(marie.user_id))
    with pytest.raises(NotAllowed):
        await access.keys.create("more", Role.ADMIN, marie, owner=Owner(marie.user_id))
    with pytest.raises(NotAllowed):
        await access.keys.create("foreign", Role.USER, marie)
    await access.keys.switch(key.id, marie, disabled=True)
    other, _ = await access.keys.create("other", Role.USER, admin)
    with pytest.raises(NotAllowed):
        await access.keys.switch(other.id, marie, disabled=True)
    assert (await access.keys.get("hers")).disabled
    assert token


async def test_the_last_administrator_stays(access: Access, admin: Principal) -> None:
    one = await access.users.create("one", "a good password", Role.ADMIN, admin)
    for change in ({"role": Role.USER}, {"disabled": True}):
        with pytest.raises(LastAdmin):
            await access.users.update(one.id, admin, **change)
    with pytest.raises(LastAdmin):
        await access.users.delete(one.id, admin)
    await access.keys.create("root", Role.ADMIN, admin)
    await access.users.update(one.id, admin, role=Role.USER)

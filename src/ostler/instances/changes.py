"""Changed recipes of models that run: whether what runs is still what they say, and what follows.

With the policy `apply_changes` "ask" it is only said (`drift`). With "next_request" no request after the
change is answered by what was before: they wait until it is known whether the launch differs, and, where
it does, until the old engine has ended what it serves and the new one is ready.
"""

from __future__ import annotations

import asyncio

from ostler.core.states import DesiredState
from ostler.instances import upkeep
from ostler.instances.house import House
from ostler.instances.keeper import Keeper
from ostler.instances.orders import StopOrder
from ostler.instances.standing import SYSTEM_ACTOR
from ostler.models.records import NEXT_REQUEST


def begin(house: House, keeper: Keeper) -> None:
    """Let no request pass until `settle` knows more, where the policy says so."""
    if keeper.model.policy.apply_changes == NEXT_REQUEST:
        keeper.hold()


async def settle(house: House, keeper: Keeper) -> None:
    """Look whether what runs is what the recipe says, and have it started anew where that is the policy."""
    applies = keeper.model.policy.apply_changes == NEXT_REQUEST
    if applies and keeper.attempt is not None and not keeper.has_engine:
        await asyncio.wait([keeper.attempt.done])  # it may be launched as it was before the change
    try:
        await upkeep.refresh_drift(house, keeper)
        if applies and keeper.drift and keeper.state.is_active and not keeper.is_leaving:
            keeper.renew(StopOrder("its recipe was changed", SYSTEM_ACTOR, cuts_requests=False))
            if keeper.model.desired_state is DesiredState.RUNNING:
                keeper.ask_start(keeper.cause, SYSTEM_ACTOR)
    finally:
        keeper.let_pass()

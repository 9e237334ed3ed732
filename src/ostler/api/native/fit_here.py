"""The estimate of a model that is on this host, for this host: what is known here makes it better."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ostler.api.native.meant import meant
from ostler.api.services import Services
from ostler.core.principals import Principal
from ostler.fit.estimated import Estimate
from ostler.models.records import NewModel

if TYPE_CHECKING:
    from ostler.api.native.fit import FitIn


async def better_here(
    rooms: Services, who: Principal, body: FitIn, estimate: Estimate, options: Mapping[str, Any]
) -> Estimate:
    """The estimate with what the engine says and what earlier runs took.

    As it is where the question is about other hardware, several contexts, or a repo on the hub.
    """
    if body.on or body.hardware or body.gpus is not None or len(body.contexts) > 1 or body.hub:
        return estimate
    context = {"context_length": body.contexts[0]} if body.contexts else {}
    if body.model is not None:
        model = await meant(rooms, who, body.model)
    else:
        model = await rooms.models.preview(NewModel({"path": body.path}, engine=body.engine), who)
    return await rooms.instances.experience.better_estimate(estimate, model, {**options, **context}, ask=True)

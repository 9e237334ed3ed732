"""Unloading models as Ollama's clients ask for it: an empty request with a keep_alive of 0, or a delete."""

from __future__ import annotations

from ostler.api.services import Services
from ostler.core.errors import NotAllowed
from ostler.core.principals import Principal, Role
from ostler.core.states import DesiredState, InstanceState
from ostler.instances.keep_alive import KeepAlive
from ostler.instances.views import InstanceView, StartCause
from ostler.models.records import Model
from ostler.upstreams.pools import ExternalModel


class KeptByOthers(NotAllowed):
    """A person keeps this model running, and who asks may not stop it."""


async def unload(rooms: Services, model: Model | ExternalModel, principal: Principal) -> None:
    """Stop it, as `ostler stop` does, for those who may stop models (power_user).

    Others may only let go what a request started and nothing else wants: it leaves as soon as it is idle.
    Raises KeptByOthers, and what `Instances.stop` raises.
    """
    if isinstance(model, ExternalModel):
        raise KeptByOthers(f"{model.name} runs elsewhere and cannot be unloaded from here")
    view = rooms.instances.view(model.id)
    if not view.state.is_active:
        return
    if principal.role >= Role.POWER_USER:
        await rooms.instances.stop(model.id, principal)
        return
    lease = None if _is_kept(model, view) else rooms.instances.try_lease(model.id)
    if lease is None:
        raise KeptByOthers(
            f"{model.name} is kept running, and {principal.name} may not stop it",
            hint=f"The role {Role.POWER_USER.label} may.",
        )
    lease.keep_alive(KeepAlive.asked(0, principal))
    lease.release()


async def unload_idle(rooms: Services, model: Model, principal: Principal) -> None:
    """Stop it where only requests wanted it and none is there now; else it is left as it is."""
    view = rooms.instances.view(model.id)
    if view.state is InstanceState.RUNNING and not view.in_flight and not _is_kept(model, view):
        await rooms.instances.stop(model.id, principal)


def _is_kept(model: Model, view: InstanceView) -> bool:
    """True where somebody wants it to run beside those who ask it."""
    is_wanted = view.cause is not StartCause.DEMAND or model.desired_state is DesiredState.RUNNING
    return is_wanted or model.policy.pinned

"""On which GPUs a model is started: the ways that its recipe leaves open, each with what it needs there.

An engine that is shown every GPU spreads over all of them. A model that one GPU can hold is better off on
one: it leaves the others to other models, and no layer waits for data from another card. So there is one
way for each GPU that can hold it, and last the way over all; the scheduler takes the one where it can
start now, with the fewest to leave for it and the most room (`plan.py`).

A way that is chosen becomes part of the launch spec and stays with the running instance: `model_on` is the
recipe as that launch has it, so neither the estimate nor drift changes when free memory does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ostler.core.errors import Conflict
from ostler.fit.devices import Device
from ostler.fit.need import Need
from ostler.fit.reading import Read
from ostler.instances.house import House
from ostler.models.records import HOST_DEVICE, Model

OWN_CHOICE = frozenset({"devices", "main_gpu", "split_mode", "tensor_split"})
"""Engine options with which a person has chosen the GPUs."""
SAVINGS = frozenset({"kv_cache_type", "parallel_slots", "n_cpu_moe"})
"""Engine options that are chosen where memory is short (`fit/choosing.py`)."""
VISIBLE = "_VISIBLE_DEVICES"
SLACK_BYTES = 1024 * 1024


class DevicesGone(Conflict):
    """None of the devices that the model may use is here."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way to place a model: on the devices of these ids (none: on all that there are).

    `rank`: the lower the better liked, where several are as good for everybody else.
    """

    devices: tuple[str, ...]
    need: Need
    rank: int = 0


def model_on(model: Model, devices: Sequence[str]) -> Model:
    """The recipe, limited to these devices."""
    return replace(model, policy=replace(model.policy, devices=tuple(devices)))


async def ways(
    house: House, model: Model, overrides: Mapping[str, Any] | None = None, *, read: Read | None = None
) -> tuple[Way, ...]:
    """The ways to place a start of it now; `read` is its shape where its files are not here.

    Raises DevicesGone, ModelFileGone, BrokenFile.
    """
    await house.memory.look()
    seen, named = house.memory.devices, model.policy.devices
    here = tuple(name for name in named if name not in missing(model, seen))
    if named and not here:
        raise DevicesGone(
            f"{model.name} may only use {', '.join(named)}, and none of them is here",
            hint=f"Here are: {', '.join(device.id for device in seen)}. Change policy.devices of the model.",
            model=model.name,
        )
    whole = Way(here, await house.memory.need(model_on(model, here), overrides, read=read))
    gpus = [device.id for device in seen if device.kind != HOST_DEVICE and device.id in whole.need.by_device]
    if len(gpus) < 2 or is_told(house, model, overrides):
        return (whole,)
    single = []
    given_up = await _given_up(house, model_on(model, here), overrides, read)
    for rank, gpu in enumerate(here or gpus):
        on_one = model_on(model, (gpu,))
        need = await house.memory.need(on_one, overrides, read=read)
        is_whole = await _given_up(house, on_one, overrides, read) <= given_up
        if is_whole and _is_as_good(house, need, whole.need):
            single.append(Way((gpu,), need, rank if here else 0))
    return (*single, replace(whole, rank=len(gpus)))


def placed(house: House, model: Model, devices: Sequence[str]) -> Model:
    """The recipe as it would run on the devices that were chosen for a launch, where it still allows them."""
    named = model.policy.devices
    may_be_chosen = set(devices) <= set(named) if named else tuple(devices) != (HOST_DEVICE,)
    if not devices or not may_be_chosen or (devices != named and is_told(house, model)):
        return model
    return model_on(model, devices)


def missing(model: Model, seen: Sequence[Device]) -> list[str]:
    """The devices that the model may use and that are not here."""
    here = {device.id for device in seen}
    return [name for name in model.policy.devices if name not in here]


def is_told(house: House, model: Model, overrides: Mapping[str, Any] | None = None) -> bool:
    """Has somebody said already how it is shared out over GPUs, or does its engine not spread by itself?"""
    engine = house.preparer.engine(model.engine)
    if not engine.spreads_over_gpus or house.gpus_are_chosen:
        return True
    told = house.preparer.told(model, overrides)
    return bool(told.keys() & OWN_CHOICE) or any(name.endswith(VISIBLE) for name in model.env)


async def _given_up(
    house: House, model: Model, overrides: Mapping[str, Any] | None, read: Read | None
) -> frozenset[str]:
    """What is chosen only because memory is short."""
    choice = await house.memory.choice(model, overrides, read=read)
    return SAVINGS & choice.options.keys()


def _is_as_good(house: House, need: Need, whole: Need) -> bool:
    """Does one GPU hold all that several would: no more on the host, and no shorter context?"""
    on_host = whole.by_device.get(HOST_DEVICE, 0) + SLACK_BYTES
    return (
        need.is_known
        and need.by_device.get(HOST_DEVICE, 0) <= on_host
        and need.shortened_to == whole.shortened_to
        and not house.memory.ledger(()).never(need.by_device)
    )

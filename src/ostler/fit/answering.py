"""The question that people ask: does this model go in, on this machine or on that one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ostler.core.errors import InvalidField
from ostler.fit.beside import Beside
from ostler.fit.choosing import Choices
from ostler.fit.counting import Shape, counter_for, engine_of
from ostler.fit.devices import Device, Devices
from ostler.fit.estimated import Estimate
from ostler.fit.hardware import hardware_from_json, parse_hardware
from ostler.fit.ledger import Bytes

MAX_CONTEXTS = 100


class Fits:
    """Answers for any shape, on the devices of this host or on described ones.

    `reserve` gives the bytes by device that models never get.
    """

    def __init__(self, devices: Devices, reserve: Callable[[], Bytes] = dict) -> None:
        self._devices = devices
        self._reserve = reserve
        self._choices = Choices()

    async def hardware(
        self,
        on: str | None = None,
        described: Mapping[str, Any] | None = None,
        gpus: Sequence[int] | None = None,
    ) -> list[Device]:
        """The devices that are meant: those here, those of the text `on`, or those described as JSON.

        `gpus` takes some of the GPUs, by their place in the list. Raises InvalidField.
        """
        if on is not None and described is not None:
            raise InvalidField("hardware", "give either on or hardware, not both")
        if on is not None:
            devices = parse_hardware(on)
        elif described is not None:
            devices = hardware_from_json(described)
        else:
            devices = await self._devices.list()
        return devices if gpus is None else _chosen(devices, gpus)

    async def answer(
        self,
        shape: Shape,
        options: Mapping[str, Any],
        devices: Sequence[Device],
        contexts: Sequence[int] = (),
        *,
        beside: Beside | None = None,
    ) -> tuple[Estimate, ...]:
        """One estimate for each context length in tokens; without any, for that of the options.

        `options` are canonical engine options; what they leave open is chosen as a start would, and named.
        Raises ImpossibleOption, InvalidField.
        """
        if len(contexts) > MAX_CONTEXTS:
            raise InvalidField("contexts", f"at most {MAX_CONTEXTS} context lengths are tried at once")
        asked = [{**options, "context_length": context} for context in contexts] or [dict(options)]

        def answers() -> tuple[Estimate, ...]:
            return tuple(self._answer(shape, one, devices, beside) for one in asked)

        return await asyncio.to_thread(answers)

    def _answer(
        self,
        shape: Shape,
        options: Mapping[str, Any],
        devices: Sequence[Device],
        beside: Beside | None,
    ) -> Estimate:
        choice = self._choices.of(engine_of(shape), shape, options, devices, self._reserve(), beside)
        together = {**options, **choice.options}
        counter = counter_for(shape, together, devices, beside)
        found = counter.at(together.get("context_length"))
        warnings = found.warnings
        if choice.unknown_why is not None:
            warnings = (*warnings, f"no options were chosen: {choice.unknown_why}")
        told = {**found.options, **choice.options}
        return replace(found, options=told, chosen=tuple(choice.to_json()), warnings=warnings)


def _chosen(devices: Sequence[Device], gpus: Sequence[int]) -> list[Device]:
    there = [device for device in devices if device.kind != "cpu"]
    for number in gpus:
        if not 0 <= number < len(there):
            known = f"The GPUs are 0 to {len(there) - 1}." if there else "There is no GPU at all."
            raise InvalidField("gpus", f"there is no GPU {number}", hint=known)
    hosts = [device for device in devices if device.kind == "cpu"]
    return [*(there[number] for number in dict.fromkeys(gpus)), *hosts]

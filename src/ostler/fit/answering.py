"""The question that people ask: does this model go in, on this machine or on that one."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from ostler.core.errors import InvalidField
from ostler.fit.beside import Beside
from ostler.fit.counting import Shape, counter_for
from ostler.fit.devices import Device, Devices
from ostler.fit.estimated import Estimate
from ostler.fit.hardware import hardware_from_json, parse_hardware

MAX_CONTEXTS = 100


class Fits:
    """Answers for any shape, on the devices of this host or on described ones."""

    def __init__(self, devices: Devices) -> None:
        self._devices = devices

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

        `options` are canonical engine options. Raises ImpossibleOption, InvalidField.
        """
        if len(contexts) > MAX_CONTEXTS:
            raise InvalidField("contexts", f"at most {MAX_CONTEXTS} context lengths are tried at once")
        wanted: list[int | None] = [*contexts] or [options.get("context_length")]

        def count() -> tuple[Estimate, ...]:
            counter = counter_for(shape, options, devices, beside)
            return tuple(counter.at(context) for context in wanted)

        return await asyncio.to_thread(count)


def _chosen(devices: Sequence[Device], gpus: Sequence[int]) -> list[Device]:
    there = [device for device in devices if device.kind != "cpu"]
    for number in gpus:
        if not 0 <= number < len(there):
            known = f"The GPUs are 0 to {len(there) - 1}." if there else "There is no GPU at all."
            raise InvalidField("gpus", f"there is no GPU {number}", hint=known)
    hosts = [device for device in devices if device.kind == "cpu"]
    return [*(there[number] for number in dict.fromkeys(gpus)), *hosts]

"""Devices in place of those that are here: for planning, and for tests of who fits beside whom."""

from __future__ import annotations

from dataclasses import replace

from ostler.core.errors import Invalid
from ostler.fit.devices import Device
from ostler.fit.hardware import ASSUMED_HOST_NAME, read_hardware


class BadDevices(Invalid):
    """The setting `devices` describes no set of devices."""


def pretended(text: str) -> list[Device]:
    """The devices that the setting `devices` describes, in the words of `hardware.py`. Raises BadDevices.

    A host that is not described is left out: it is the real one. Blocking where a file is named.
    """
    try:
        found = read_hardware(text)
    except Invalid as error:
        raise BadDevices(f"the setting devices: {error.message}", hint=error.hint) from error
    return [replace(device, is_real=False) for device in found if device.name != ASSUMED_HOST_NAME]

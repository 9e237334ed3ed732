"""What counts a model's memory, for each format: GGUF under llama.cpp, safetensors under vLLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ostler.fit.beside import Beside
from ostler.fit.devices import Device
from ostler.fit.estimate import Counter
from ostler.fit.estimated import Estimate, Need
from ostler.fit.model_shape import ModelShape
from ostler.fit.vllm_estimate import VllmCounter
from ostler.fit.vllm_shape import VllmShape

Shape = ModelShape | VllmShape
"""A model as its files describe it; what counts it is `counter_for`."""


LLAMACPP, VLLM = "llamacpp", "vllm"


def engine_of(shape: Shape) -> str:
    """The name of the engine that serves models of this shape."""
    return VLLM if isinstance(shape, VllmShape) else LLAMACPP


class Counts(Protocol):
    """Counts one launch at different contexts, in tokens; None is what the engine would take by itself."""

    def needs(self, context: int | None) -> tuple[int, tuple[Need, ...]]:
        """The context in tokens, and what each GPU and then the host needs. Raises ImpossibleOption."""

    def at(self, context: int | None) -> Estimate:
        """The whole answer, with the largest context that fits. Raises ImpossibleOption."""


def counter_for(
    shape: Shape, options: Mapping[str, Any], devices: Sequence[Device], beside: Beside | None = None
) -> Counts:
    """What counts a model of this shape. Raises ImpossibleOption."""
    if isinstance(shape, VllmShape):
        return VllmCounter(shape, options, devices)
    return Counter(shape, options, devices, beside)

"""How far the need of a model with an unknown architecture can be from the estimate.

Its tensors are known, so its weights are. That it keeps keys and values for every layer, and how many
products of a layer are alive at once, is taken at the most; the answer is then an upper bound. The lower
one is the weights and one batch in and out of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence

from ostler.fit.estimated import Bounds, Need
from ostler.fit.llamacpp_settings import Settings
from ostler.fit.model_shape import Layer, ModelShape

_F32_BYTES = 4


def bounds_of(shape: ModelShape, settings: Settings, needs: Sequence[Need]) -> Bounds:
    """The least and the most that all devices together will hold, in bytes."""
    weights = sum(need.weights_bytes + need.overhead_bytes for need in needs)
    least = 2 * settings.batch_tokens * shape.n_embd + settings.output_rows * shape.n_vocab
    return Bounds(weights + least * _F32_BYTES, sum(need.total_bytes for need in needs))


def margin_bytes(shape: ModelShape, settings: Settings) -> int:
    """What the compute buffer may need beyond that of an ordinary decoder: all products of one layer."""
    return settings.batch_tokens * max(_products(shape, layer) for layer in shape.kinds) * _F32_BYTES


def _products(shape: ModelShape, layer: Layer) -> int:
    """Elements that all matrices of a layer give for one token; of experts as many as are used."""
    total = 0
    for tensor in layer.tensors.values():
        if len(tensor.shape) > 1:
            total += tensor.shape[1] * (max(1, shape.experts_used) if len(tensor.shape) > 2 else 1)
    return total

"""Bytes of weights on one GPU: its share of the layers, and of what stands before and behind them."""

from __future__ import annotations

from ostler.fit.vllm_settings import VllmSettings
from ostler.fit.vllm_shape import VllmShape
from ostler.fit.vllm_tensors import Place, Split, Stage

VOCAB_STEP = 64
"""`DEFAULT_VOCAB_PADDING_SIZE` in model_executor/layers/vocab_parallel_embedding.py."""


def layers_by_stage(n_layers: int, stages: int) -> list[range]:
    """The layers of each stage of a pipeline: `get_pp_indices` in distributed/utils.py.

    What does not come out even goes to the stages before the last, from behind.
    """
    sizes = [n_layers // stages] * stages
    for place in range(2, n_layers % stages + 2):
        sizes[-place] += 1
    ends = [sum(sizes[: stage + 1]) for stage in range(stages)]
    return [range(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def weights_bytes(shape: VllmShape, settings: VllmSettings, layers: range) -> int:
    """What a GPU holds that has these layers, in bytes, before anything is moved to the host."""
    total = 0.0
    for (place, split), tensors in shape.weights.sums.items():
        if _is_here(shape, place, layers):
            held = tensors.bytes_at(settings.dtype_bytes, settings.linear_bytes)
            total += held * _padding(shape, place) / _parts(split, shape, settings)
    angles = shape.angles * shape.angle_rows
    return int(total) + (angles + _repeated_elements(shape, settings, layers)) * settings.dtype_bytes


def _repeated_elements(shape: VllmShape, settings: VllmSettings, layers: range) -> int:
    """What a GPU holds more of recurrent layers whose groups are fewer than the GPUs."""
    parts = settings.tensor_parallel
    here = (state for index, state in enumerate(shape.states) if state is not None and index in layers)
    return sum(state.repeated(parts) * state.group_weights // parts for state in here)


def _is_here(shape: VllmShape, place: Place, layers: range) -> bool:
    """The embedding is the output too where there is no matrix for that, so the last stage has it as well."""
    if isinstance(place, int):
        return place in layers
    is_first, is_last = layers.start == 0, layers.stop == shape.layers
    if place is Stage.EMBEDDING:
        return is_first or (is_last and not shape.weights.head)
    return is_first if place is Stage.FIRST else is_last


def _parts(split: Split, shape: VllmShape, settings: VllmSettings) -> int:
    """Into how many parts a tensor is cut; heads of keys and values are not cut themselves."""
    if split is Split.WHOLE:
        return 1
    if split is Split.KV:
        return min(settings.tensor_parallel, max(1, shape.n_kv_heads))
    return settings.tensor_parallel


def _padding(shape: VllmShape, place: Place) -> float:
    """How much longer a matrix is made that has a row for each word."""
    rows = shape.weights.vocab_rows
    if place not in (Stage.EMBEDDING, Stage.HEAD) or not rows:
        return 1.0
    return -(-rows // VOCAB_STEP) * VOCAB_STEP / rows

"""What a reader of an estimate should know: where it is rough, and what the engine will refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostler.fit.beside import Loaded
from ostler.fit.drafting import ways
from ostler.fit.graph_projector import projector_kind
from ostler.fit.llamacpp_settings import Settings
from ostler.fit.model_shape import ModelShape
from ostler.fit.placement import Placement
from ostler.fit.projectors import projector
from ostler.fit.splitting import ROW_KINDS

Rule = tuple[object, str]
"""A sentence, and whether it applies."""


def warnings_of(
    shape: ModelShape,
    options: Mapping[str, Any],
    settings: Settings,
    placement: Placement,
    loaded: Loaded,
) -> tuple[str, ...]:
    """All that apply, each one sentence."""
    rules = (
        *_of_the_model(shape, settings),
        *_of_the_gpus(options, placement),
        *_of_what_is_beside(options, loaded),
    )
    return tuple(text for applies, text in rules if applies)


def _of_the_model(shape: ModelShape, settings: Settings) -> tuple[Rule, ...]:
    name, per_slot = shape.architecture.name, settings.cells
    return (
        (
            not shape.known,
            f"the architecture '{name}' is not known: it is counted as an ordinary decoder with keys and"
            " values in every layer; weights are exact, the rest is an upper bound, and 'fits' goes by it",
        ),
        (shape.architecture.rough is not None, f"the compute buffer leaves out {shape.architecture.rough}"),
        (
            per_slot > shape.trained_context and shape.architecture.memory != "none",
            f"{per_slot} tokens for one request are more than the {shape.trained_context} of the training",
        ),
        (
            settings.type_v.quantized and not settings.flash_attention and shape.causal,
            "llama.cpp refuses a quantized cache of values without flash attention",
        ),
    )


def _of_the_gpus(options: Mapping[str, Any], placement: Placement) -> tuple[Rule, ...]:
    kinds = sorted({gpu.kind for gpu in placement.gpus})
    no_rows = placement.mode == "row" and [kind for kind in kinds if kind not in ROW_KINDS]
    return (
        (placement.gpus, "the overhead of a GPU is a set sum, not a measurement"),
        (
            placement.staged_bytes,
            "some weights stay on the host: the first GPU's compute buffer is counted for the case that it"
            " fetches them for large batches",
        ),
        (
            placement.mode != "layer",
            f"split_mode {placement.mode} is counted by the GPUs' shares, and was not checked on GPUs",
        ),
        (
            no_rows,
            f"llama.cpp has no split buffers for {', '.join(no_rows or ())}: it will refuse split_mode row",
        ),
        (
            placement.mode == "tensor" and options.get("flash_attention") == "off",
            "llama.cpp refuses split_mode tensor without flash attention",
        ),
    )


def _of_what_is_beside(options: Mapping[str, Any], loaded: Loaded) -> tuple[Rule, ...]:
    header = loaded.projector
    kind = projector_kind(header) if header else None
    return (
        *((True, sentence) for sentence in loaded.unread),
        (
            header is not None,
            "the projector's compute buffer is counted for the image that llama.cpp reserves for at the"
            " start; a larger one needs more",
        ),
        (
            header is not None and projector(kind) is None,
            f"projectors of the kind '{kind}' are counted as if they were 'mlp'",
        ),
        (
            "draft-mtp" in ways(options) and not options.get("draft_model"),
            "the second context of the spec_type draft-mtp is not counted",
        ),
    )

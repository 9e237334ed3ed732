"""What a reader of an estimate should know: where it is rough, and what the engine will refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostler.fit.llamacpp_settings import Settings
from ostler.fit.model_shape import ModelShape
from ostler.fit.placement import Placement


def warnings_of(
    shape: ModelShape, options: Mapping[str, Any], settings: Settings, placement: Placement
) -> tuple[str, ...]:
    """All that apply, each one sentence."""
    name = shape.architecture.name
    per_slot = settings.cells
    split = options.get("split_mode")
    rows = (
        (
            not shape.known,
            f"the architecture '{name}' is not known: it is counted as an ordinary decoder, so the weights"
            " are exact, the cache is an upper bound and the compute buffer a guess",
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
        (bool(placement.gpus), "the overhead of a GPU is a set sum, not a measurement"),
        (
            bool(placement.staged_bytes),
            "some weights stay on the host: the first GPU's compute buffer is counted for the case that it"
            " fetches them for large batches",
        ),
        (split in ("row", "tensor"), f"split_mode {split} is counted as if it were 'layer'"),
        (bool(options.get("lora")), "adapters (LoRA) are not counted"),
        (bool(options.get("mmproj")), "the projector's own compute buffer is not counted"),
        (bool(options.get("draft_model")), "the draft model is not counted"),
    )
    return tuple(text for applies, text in rows if applies)

"""What a reader of an estimate for vLLM should know: where it is rough, and what the engine will refuse."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostler.fit.vllm_settings import VllmSettings
from ostler.fit.vllm_shape import VllmShape


def warnings_of(shape: VllmShape, options: Mapping[str, Any], settings: VllmSettings) -> tuple[str, ...]:
    """All that apply, each one sentence."""
    asked, own = options.get("quantization"), shape.quantization
    rows = (
        (
            not shape.known,
            f"the model type '{shape.architecture.model_type}' is not known: it is counted as an ordinary"
            " decoder, so the weights are close, the cache is an upper bound and the rest a guess",
        ),
        (
            settings.context > shape.trained_context,
            f"vLLM refuses a context of {settings.context} tokens: the model was trained for"
            f" {shape.trained_context}",
        ),
        (
            bool(own and asked and settings.linear_bytes is None and str(asked) != own),
            f"the file is quantized by '{own}': vLLM refuses '{asked}' unless it is of that kind",
        ),
        (
            settings.on_cpu and settings.cache_bytes is None,
            f"vLLM takes {settings.utilization:.0%} of the host's memory unless cpu_kv_cache_gib says less",
        ),
        (bool(settings.gpus), "activations, CUDA graphs and the overhead of a GPU are counted, not measured"),
        (shape.has_vision, "the working memory of the encoder of images or sound is a guess"),
        (bool(options.get("enable_lora")), "adapters (LoRA) are not counted"),
        (bool(options.get("speculative_config")), "speculative decoding is not counted"),
        (bool(options.get("enable_expert_parallel")), "experts are counted as if each was split"),
    )
    return tuple(text for applies, text in rows if applies)

"""The estimate of memory for vLLM: weights by GPU, the cache that is left, and with bad input.

How far it is from vLLM's own plans is in tests/real/test_vllm_fit.py.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ostler.core.errors import OstlerError
from ostler.fit.devices import Device
from ostler.fit.errors import ImpossibleHeader, ImpossibleOption, IncompleteHeader, NotEstimable
from ostler.fit.estimated import Estimate
from ostler.fit.vllm_compute import CPU_SERVER_BYTES
from ostler.fit.vllm_estimate import VllmCounter
from ostler.fit.vllm_shape import VllmShape
from tests.fit.hf_models import LLAMA_8B, LLAMA_8B_PARAMETERS, SMALL, decoder_tensors, header_of, shape_of

GIB = 1 << 30
TOKEN_8B_BYTES = 32 * 2 * 8 * 128 * 2
"""Keys and values of one token of the 8B model in two bytes each."""


def gpu(index: int = 0, total: int = 24 * GIB, free: int | None = None, name: str = "GPU") -> Device:
    return Device(f"cuda:{index}", name, "cuda", total, total if free is None else free)


def host(total: int = 64 * GIB, free: int | None = None) -> Device:
    return Device("cpu", "host", "cpu", total, total if free is None else free)


def told(shape: VllmShape, *devices: Device, context: int | None = None, **options: Any) -> Estimate:
    return VllmCounter(shape, options, devices).at(context)


def test_the_share_of_the_gpu_is_taken_whole_and_the_cache_gets_what_is_left() -> None:
    answer = told(shape_of(), gpu(), host(), context=8_192)
    need = answer.devices[0]
    assert need.total_bytes == math.ceil(24 * GIB * 0.92) and answer.fits
    angles = 131_072 * 128 * 2
    assert need.weights_bytes == 2 * LLAMA_8B_PARAMETERS + angles
    tokens = answer.details["kv_cache_tokens"]
    assert tokens * TOKEN_8B_BYTES == pytest.approx(need.kv_cache_bytes, rel=0.001)
    assert answer.details["max_concurrency"] == pytest.approx(tokens / 8_192, abs=0.01)


def test_an_open_context_comes_down_to_what_fits_and_that_then_fits() -> None:
    answer = told(shape_of(), gpu(), host())
    chosen = answer.options["context_length"]
    assert chosen == answer.max_context_length == answer.context_length < 131_072 and answer.fits
    assert told(shape_of(), gpu(), host(), context=chosen).fits
    assert not told(shape_of(), gpu(), host(), context=chosen + 1).fits


def test_a_context_that_does_not_fit_is_refused_although_memory_is_free() -> None:
    need = told(shape_of(), gpu(total=18 * GIB), host(), context=65_536, gpu_memory_utilization=0.95).devices[
        0
    ]
    assert need.limit_bytes is not None and need.total_bytes > need.limit_bytes and not need.fits


def test_no_larger_share_is_chosen_than_is_free_and_a_stated_share_stays() -> None:
    busy = gpu(free=20 * GIB)
    answer = told(shape_of(), busy, host(), context=4_096)
    assert answer.options["gpu_memory_utilization"] == 0.83 and answer.fits
    assert not told(shape_of(), busy, host(), context=4_096, gpu_memory_utilization=0.92).fits


def test_as_few_gpus_are_chosen_as_hold_the_model() -> None:
    four = [gpu(index, 12 * GIB) for index in range(4)]
    assert told(shape_of(), *four, host(), context=4_096).options["tensor_parallel_size"] == 2
    assert told(shape_of(), gpu(0), gpu(1), context=4_096).options["tensor_parallel_size"] == 1
    uneven = [gpu(index, 7 * GIB) for index in range(3)]
    assert told(shape_of(), *uneven, context=4_096).options["tensor_parallel_size"] == 2, "3 do not share 32"


def test_gpus_share_matrices_and_repeat_norms_and_heads_that_are_too_few() -> None:
    shape = shape_of(SMALL)
    one = told(shape, gpu(), context=1_024, tensor_parallel_size=1).devices
    eight = told(shape, *[gpu(n) for n in range(8)], context=1_024, tensor_parallel_size=8).devices
    assert len(eight) == 8 and len({need.weights_bytes for need in eight}) == 1
    whole = {name: t for name, t in decoder_tensors(SMALL).items() if "norm" in name}
    kv = {name: t for name, t in decoder_tensors(SMALL).items() if "k_proj" in name or "v_proj" in name}
    angles = 8_192 * 32 * 2
    norms, keys = header_of(whole).weights_bytes, header_of(kv).weights_bytes
    rest = one[0].weights_bytes - norms - keys - angles
    assert eight[0].weights_bytes == norms + angles + keys // 2 + rest // 8
    tokens = [told(shape, *[gpu(n) for n in range(k)], context=1_024, tensor_parallel_size=k,
                   kv_cache_memory_bytes=GIB).details["kv_cache_tokens"] for k in (1, 2, 8)]  # fmt: skip
    assert tokens[1] == 2 * tokens[0] and tokens[2] == tokens[1], "two heads, one for each GPU"


def test_a_pipeline_deals_out_layers_with_the_embedding_first_and_the_output_last() -> None:
    shape = shape_of(SMALL, num_hidden_layers=5)
    first, last = told(shape, gpu(0), gpu(1), context=1_024, pipeline_parallel_size=2).devices
    assert first.weights_bytes > last.weights_bytes, "the last stage has two layers of five"
    tied = shape_of(SMALL, tie_word_embeddings=True)
    first, last = told(tied, gpu(0), gpu(1), context=1_024, pipeline_parallel_size=2).devices
    assert last.weights_bytes - first.weights_bytes == 256 * 2, "the embedding is on both, a norm on the last"


def test_copies_hold_as_many_tokens_each() -> None:
    one = told(shape_of(SMALL), gpu(), context=1_024, data_parallel_size=1).details["kv_cache_tokens"]
    two = told(shape_of(SMALL), gpu(0), gpu(1), context=1_024, data_parallel_size=2)
    assert two.details["kv_cache_tokens"] == 2 * one and len(two.devices) == 2


def test_a_cache_in_fp8_holds_twice_as_much() -> None:
    plain = told(shape_of(SMALL), context=1_024, cpu_kv_cache_gib=1).details["kv_cache_tokens"]
    small = told(shape_of(SMALL), context=1_024, cpu_kv_cache_gib=1, kv_cache_type="fp8")
    assert small.details["kv_cache_tokens"] == 2 * plain


def test_layers_with_a_window_make_room_for_more_requests() -> None:
    full = told(shape_of(SMALL), context=8_192, cpu_kv_cache_gib=1).details["max_concurrency"]
    gemma = shape_of(SMALL, model_type="gemma2", sliding_window=512, tie_word_embeddings=True)
    some = told(gemma, context=8_192, cpu_kv_cache_gib=1, max_num_batched_tokens=512)
    assert full * 1.5 < some.details["max_concurrency"] < full * 2


def test_a_compressed_cache_is_the_same_on_each_gpu() -> None:
    shape = shape_of(SMALL, model_type="deepseek_v3", kv_lora_rank=512, qk_rope_head_dim=64)
    for size in (1, 2):
        gpus = [gpu(n) for n in range(size)]
        answer = told(shape, *gpus, context=1_024, tensor_parallel_size=size, kv_cache_memory_bytes=GIB)
        assert answer.details["kv_cache_tokens"] == GIB // (4 * 64 * 576 * 2) * 64


def test_weights_are_cast_and_quantized_as_they_are_loaded() -> None:
    stored_wide = shape_of(SMALL, decoder_tensors(SMALL, "F32"))
    plain = told(shape_of(SMALL), gpu(), context=1_024).devices[0].weights_bytes
    assert told(stored_wide, gpu(), context=1_024).devices[0].weights_bytes == plain
    wide = told(stored_wide, gpu(), context=1_024, dtype="float32").devices[0].weights_bytes
    assert wide == 2 * plain
    for method, least in (("fp8", 0.5), ("bitsandbytes", 0.25)):
        small = told(shape_of(SMALL), gpu(), context=1_024, quantization=method).devices[0].weights_bytes
        assert plain * least < small < plain


def test_packed_weights_are_counted_as_they_are_stored() -> None:
    tensors = decoder_tensors(SMALL)
    name = "model.layers.0.mlp.down_proj"
    del tensors[f"{name}.weight"]
    tensors |= {f"{name}.qweight": ("I32", (64, 256)), f"{name}.scales": ("F16", (4, 256))}
    config = {**SMALL, "quantization_config": {"quant_method": "gptq", "bits": 4}}
    shape = VllmShape.of([header_of(tensors)], config)
    plain = told(shape_of(SMALL), gpu(), context=1_024).devices[0].weights_bytes
    packed = told(shape, gpu(), context=1_024).devices[0].weights_bytes
    assert plain - packed == 512 * 256 * 2 - (64 * 256 * 4 + 4 * 256 * 2)
    warned = told(shape, gpu(), context=1_024, quantization="fp8").warnings
    assert any("gptq" in text for text in warned)


def test_weights_that_are_moved_to_the_host_are_counted_there() -> None:
    answer = told(shape_of(), gpu(), host(), context=4_096, cpu_offload_gb=4)
    stays = told(shape_of(), gpu(), host(), context=4_096)
    assert answer.host.weights_bytes == 4 * GIB
    assert answer.devices[0].weights_bytes == stays.devices[0].weights_bytes - 4 * GIB


def test_on_the_cpu_the_cache_is_what_is_stated_or_the_rest_of_the_share() -> None:
    stated = told(shape_of(SMALL), host(), context=1_024, cpu_kv_cache_gib=2)
    assert stated.devices == () and stated.host.kv_cache_bytes == 2 * GIB
    assert stated.host.limit_bytes is None and "limit_bytes" not in stated.host.to_json()
    share = told(shape_of(SMALL), host(), context=1_024)
    assert share.host.total_bytes == math.ceil(64 * GIB * 0.92) + CPU_SERVER_BYTES
    assert any("cpu_kv_cache_gib" in text for text in share.warnings)


def test_an_encoder_caches_nothing() -> None:
    answer = told(shape_of(SMALL, model_type="bert"), gpu(), context=512)
    assert answer.details["kv_cache_tokens"] == 0 and answer.devices[0].kv_cache_bytes == 0


def test_the_graphs_of_cuda_go_with_enforce_eager() -> None:
    counted = told(shape_of(), gpu(), context=4_096).devices[0].compute_bytes
    assert told(shape_of(), gpu(), context=4_096, enforce_eager=True).devices[0].compute_bytes < counted


def test_a_language_model_within_another_is_found() -> None:
    outer = {"model_type": "llava", "text_config": dict(SMALL), "vision_config": {"hidden_size": 99}}
    tensors = {f"language_{name}": tensor for name, tensor in decoder_tensors(SMALL).items()}
    tensors["vision_tower.encoder.layers.9.mlp.fc1.weight"] = ("BF16", (64, 64))
    shape = VllmShape.of([header_of(tensors)], outer)
    assert (shape.layers, shape.has_vision) == (4, True)
    plain = told(shape_of(SMALL), gpu(), context=512).devices[0].weights_bytes
    assert told(shape, gpu(), context=512).devices[0].weights_bytes == plain + 64 * 64 * 2


def test_an_unknown_type_is_counted_as_an_ordinary_decoder_and_that_is_said() -> None:
    strange = told(shape_of(SMALL, model_type="gizmo"), gpu(), context=512)
    assert strange.devices == told(shape_of(SMALL), gpu(), context=512).devices
    assert any("gizmo" in text for text in strange.warnings)


@pytest.mark.parametrize(
    ("changes", "error", "word"),
    [
        ({"num_attention_heads": None}, IncompleteHeader, "num_attention_heads"),
        ({"num_hidden_layers": None}, IncompleteHeader, "num_hidden_layers"),
        ({"hidden_size": None}, IncompleteHeader, "hidden_size"),
        ({"num_attention_heads": 0}, ImpossibleHeader, "no heads"),
        ({"num_hidden_layers": 1 << 20}, ImpossibleHeader, "layers"),
        ({"num_attention_heads": 1 << 20}, ImpossibleHeader, "heads"),
    ],
)
def test_a_configuration_that_cannot_be_counted_says_why(
    changes: dict[str, Any], error: type[OstlerError], word: str
) -> None:
    with pytest.raises(error, match=word):
        VllmShape.of([header_of(decoder_tensors(SMALL))], {**SMALL, **changes})


def test_files_without_a_configuration_or_without_weights_are_not_estimated() -> None:
    with pytest.raises(NotEstimable, match=r"config\.json"):
        VllmShape.of([header_of(decoder_tensors(SMALL))], None)
    with pytest.raises(NotEstimable):
        VllmShape.of([], SMALL)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"tensor_parallel_size": 3}, "tensor_parallel_size"),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size"),
        ({"kv_cache_type": "q8_0"}, "kv_cache_type"),
        ({"gpu_memory_utilization": 1.5}, "gpu_memory_utilization"),
        ({"gpu_memory_utilization": float("nan")}, "gpu_memory_utilization"),
        ({"dtype": "int3"}, "dtype"),
        ({"max_num_seqs": "many"}, "max_num_seqs"),
        ({"cpu_offload_gb": -1}, "cpu_offload_gb"),
    ],
)
def test_an_option_that_cannot_be_counted_with_is_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ImpossibleOption) as told_why:
        told(shape_of(SMALL), gpu(), context=512, **options)
    assert told_why.value.facts["field"] == field


VALUES = st.none() | st.booleans() | st.integers(-3, 1 << 40) | st.floats() | st.text(max_size=5)
NESTED = VALUES | st.lists(VALUES, max_size=5) | st.dictionaries(st.text(max_size=5), VALUES, max_size=3)
MORE_KEYS = (
    *("rope_scaling", "layer_types", "sliding_window", "quantization_config", "text_config", "head_dim"),
    *("kv_lora_rank", "num_experts", "num_experts_per_tok"),
)
KEYS = st.sampled_from((*LLAMA_8B, *MORE_KEYS))
TYPES = st.sampled_from(
    ("llama", "gemma3_text", "deepseek_v3", "mamba", "qwen3_next", "jamba", "lfm2", "bert")
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(TYPES, st.dictionaries(KEYS, NESTED, max_size=4))
def test_no_configuration_ends_in_another_error_than_ours(model_type: str, changes: dict[str, Any]) -> None:
    try:
        shape = VllmShape.of(
            [header_of(decoder_tensors(SMALL))], {**SMALL, "model_type": model_type, **changes}
        )
        told(shape, gpu(), gpu(1), host())
    except OstlerError as error:
        assert error.message

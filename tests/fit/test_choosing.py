"""Choosing what a recipe leaves open, on the headers of models as large as people run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ostler.fit.choosing import choose
from ostler.fit.model_shape import ModelShape
from ostler.fit.need import need_of_shape
from ostler.fit.pretend import pretended
from ostler.fit.reasons import Choice
from tests.fit.large_headers import llama_8b, qwen3_moe_30b

LLAMA = ModelShape.of([llama_8b()])
MOE = ModelShape.of([qwen3_moe_30b()])
RESERVE = {"": 256 << 20}


def chosen(hardware: str, shape: ModelShape = LLAMA, **options: Any) -> Choice:
    return choose(shape, options, pretended(hardware), RESERVE)


def reason(choice: Choice, name: str) -> str:
    return next(line.reason for line in choice.lines if line.name == name)


def fits(hardware: str, choice: Choice, shape: ModelShape = LLAMA, **options: Any) -> bool:
    devices = pretended(hardware)
    need = need_of_shape(shape, {**options, **choice.options}, devices, RESERVE).by_device
    return all(need.get(device.id, 0) <= device.total_bytes - RESERVE[""] for device in devices)


def test_where_all_of_it_fits_it_gets_every_layer_and_the_context_of_its_training() -> None:
    assert chosen("24GiB,cpu:64GiB").options == {
        "gpu_layers": 33,
        "context_length": 131_072,
        "fit": "off",
    }


def test_the_context_is_shortened_before_layers_leave_the_gpu_or_the_cache_is_quantized() -> None:
    choice = chosen("12GiB,cpu:32GiB")
    assert choice.options["gpu_layers"] == 33 and "kv_cache_type" not in choice.options
    context = choice.options["context_length"]
    assert 8192 < context < 131_072 and context % 1024 == 0
    assert fits("12GiB,cpu:32GiB", choice)
    assert "131072 tokens of the training need 20.7 GiB on cuda:0" in reason(choice, "context_length")


def test_the_cache_is_quantized_before_the_context_falls_below_8192() -> None:
    hardware = "6.2GiB,cpu:16GiB"
    choice = chosen(hardware)
    assert (choice.options["kv_cache_type"], choice.options["gpu_layers"]) == ("q8_0", 33)
    assert choice.options["context_length"] >= 8192 and fits(hardware, choice)
    without = chosen(hardware, flash_attention="off")
    assert "kv_cache_type" not in without.options and without.options["gpu_layers"] < 33
    assert "as f16, with 8192 tokens of context, it needs 5.6 GiB" in reason(choice, "kv_cache_type")


def test_layers_that_no_gpu_can_hold_stay_on_the_host() -> None:
    choice = chosen("4GiB,cpu:16GiB")
    assert 0 < choice.options["gpu_layers"] < 33 and choice.options["context_length"] >= 8192
    assert fits("4GiB,cpu:16GiB", choice)
    one_more = {**choice.options, "gpu_layers": choice.options["gpu_layers"] + 1}
    on_gpu = [
        need_of_shape(LLAMA, options, pretended("4GiB,cpu:16GiB"), RESERVE).by_device["cuda:0"] / 2**30
        for options in (choice.options, one_more)
    ]
    assert on_gpu[0] <= 3.75 * 7 / 8 < on_gpu[1], "an eighth of what models may have stays free"
    assert f"{choice.options['gpu_layers']} of 33 fit on cuda:0" in reason(choice, "gpu_layers")


def test_of_a_mixture_the_experts_go_to_the_host_and_not_whole_layers() -> None:
    choice = chosen("12GiB,cpu:32GiB", MOE)
    assert choice.options["gpu_layers"] == 49 and 0 < choice.options["n_cpu_moe"] < 48
    assert fits("12GiB,cpu:32GiB", choice, MOE)
    set_by_hand = chosen("12GiB,cpu:32GiB", MOE, cpu_moe=True)
    assert "n_cpu_moe" not in set_by_hand.options


def test_several_gpus_share_by_what_they_can_hold_and_not_by_what_is_free_now() -> None:
    choice = chosen("24GiB,12GiB,cpu:64GiB")
    assert choice.options["tensor_split"] == [24_320, 12_032]
    busy = [replace(device, free_bytes=1 << 30) for device in pretended("24GiB,12GiB,cpu:64GiB")]
    assert choose(LLAMA, {}, busy, RESERVE) == choice
    assert chosen("2x12GiB,cpu:64GiB").options["tensor_split"] == [1, 1]
    assert "tensor_split" not in chosen("2x12GiB,cpu:64GiB", split_mode="none").options


def test_on_the_host_only_the_context_is_chosen_and_half_of_the_memory_is_left_to_others() -> None:
    choice = chosen("cpu:16GiB")
    assert list(choice.options) == ["context_length"]
    need = need_of_shape(LLAMA, choice.options, pretended("cpu:16GiB"), RESERVE).by_device["cpu"]
    assert 7 << 30 < need <= 8 << 30
    tight = chosen("cpu:8GiB")
    assert tight.options == {"context_length": 8192} and fits("cpu:8GiB", tight)


@pytest.mark.parametrize(
    "options",
    [
        {"context_length": 100_000},
        {"context_length": 0},
        {"gpu_layers": 10},
        {"gpu_layers": "all"},
        {"gpu_layers": 0},
        {"kv_cache_type_k": "f16", "kv_cache_type_v": "f16"},
        {"parallel_slots": 2},
        {"tensor_split": [3.0, 1.0]},
        {"context_length": 4096, "gpu_layers": 33, "tensor_split": [1.0], "parallel_slots": 1, "fit": "off"},
    ],
)
@pytest.mark.parametrize("hardware", ["2GiB,cpu:8GiB", "6GiB,2GiB,cpu:32GiB", "cpu:4GiB"])
def test_what_is_set_is_never_chosen(hardware: str, options: dict[str, Any]) -> None:
    if options.get("tensor_split") and hardware.count("GiB") != 3:
        return
    choice = chosen(hardware, **options)
    assert choice.unknown_why is None and not choice.options.keys() & options.keys()
    if "kv_cache_type_k" in options:
        assert "kv_cache_type" not in choice.options


def test_left_to_be_chosen_means_absent_or_auto() -> None:
    assert chosen("24GiB,cpu:64GiB", gpu_layers="auto").options["gpu_layers"] == 33
    assert chosen("24GiB,cpu:64GiB", gpu_layers=-1).options["gpu_layers"] == 33


def test_slots_with_caches_of_their_own_get_a_context_each() -> None:
    assert chosen("80GiB,cpu:64GiB", parallel_slots=3).options["context_length"] == 3 * 131_072


def test_the_engine_s_own_wishes_for_fitting_are_heeded() -> None:
    usual, roomy = chosen("12GiB,cpu:32GiB"), chosen("12GiB,cpu:32GiB", fit_target=[4096])
    assert roomy.options["context_length"] < usual.options["context_length"]
    assert chosen("6.2GiB,cpu:16GiB", fit_ctx=4096).options["context_length"] < 8192
    left = chosen("12GiB,cpu:32GiB", fit="on")
    assert left.lines == () and left.unknown_why == "the option fit leaves it to the engine"


def test_what_cannot_fit_anywhere_gets_the_least_and_says_so() -> None:
    choice = chosen("cpu:2GiB")
    assert choice.options == {"context_length": 4096} and not fits("cpu:2GiB", choice)
    assert "the shortest that is chosen" in reason(choice, "context_length")


def test_nothing_is_chosen_for_what_is_not_known() -> None:
    unknown = replace(LLAMA, known=False, architecture=replace(LLAMA.architecture, name="newcomer"))
    choice = chosen("24GiB,cpu:64GiB", unknown)
    assert choice.lines == () and choice.unknown_why == "the architecture 'newcomer' is not known"
    wrong = chosen("24GiB,cpu:64GiB", devices=["Vulkan7"])
    assert wrong.lines == () and "Vulkan7" in (wrong.unknown_why or "")


def test_every_choice_has_a_reason_with_its_value_ready_for_json() -> None:
    for hardware in ("2GiB,cpu:8GiB", "6GiB,2GiB,cpu:32GiB", "12GiB,cpu:32GiB", "cpu:4GiB"):
        for shape in (LLAMA, MOE):
            lines = chosen(hardware, shape).to_json()
            assert lines and all(set(line) == {"name", "value", "reason"} for line in lines)
            assert all(len(line["reason"]) > 20 for line in lines)


def test_a_host_that_is_not_described_holds_whatever_falls_to_it() -> None:
    choice = chosen("4GiB")
    assert 0 < choice.options["gpu_layers"] < 33
    nowhere = choose(LLAMA, {}, [], RESERVE)
    assert nowhere.options == {"context_length": 131_072}
    assert "a host whose memory is not known" in reason(nowhere, "context_length")

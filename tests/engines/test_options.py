"""The option machinery, on llama.cpp's table and on small ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.core.errors import Invalid
from ostler.engines.llamacpp_options import TABLE
from ostler.engines.options import BadOptionValue, Option, OptionTable, OwnedOption, UnknownOption


def test_nought_and_no_and_unset_are_three_things() -> None:
    assert TABLE.to_args({"gpu_layers": 0}) == ["--gpu-layers", "0"]
    assert TABLE.to_args({"gpu_layers": None}) == []
    assert TABLE.to_args({"jinja": False}) == ["--no-jinja"]
    assert TABLE.to_args({"jinja": True}) == ["--jinja"]
    assert TABLE.to_args({"jinja": None}) == []
    assert TABLE.to_args({"temperature": 0}) == ["--temp", "0"]


def test_the_order_of_arguments_does_not_depend_on_the_order_of_options() -> None:
    one = TABLE.to_args({"threads": 2, "context_length": 512, "jinja": True})
    other = TABLE.to_args({"jinja": True, "context_length": 512, "threads": 2})
    assert one == other == ["--ctx-size", "512", "--threads", "2", "--jinja"]


@pytest.mark.parametrize(
    ("given_name", "value", "name", "read"),
    [
        ("c", "4096", "context_length", 4096),
        ("ctx_size", 4096, "context_length", 4096),
        ("context_size", 4096, "context_length", 4096),
        ("--ctx-size", 4096.0, "context_length", 4096),
        ("ngl", "all", "gpu_layers", "all"),
        ("n_gpu_layers", 0, "gpu_layers", 0),
        ("np", 2, "parallel_slots", 2),
        ("ctk", "Q8_0", "kv_cache_type_k", "q8_0"),
        ("flash_attention", True, "flash_attention", "on"),
        ("fa", "false", "flash_attention", "off"),
        ("no_kv_offload", True, "kv_offload", False),
        ("no_mmproj", "true", "mmproj_auto", False),
        ("mlock", True, "load_mode", "mlock"),
        ("no_mmap", True, "load_mode", "none"),
        ("draft_max", 8, "spec_draft_n_max", 8),
        ("skip_warmup", True, "warmup", False),
        ("numa_policy", "isolate", "numa", "isolate"),
        ("ts", "3,1", "tensor_split", [3.0, 1.0]),
        ("lora", '/a.gguf,"/b,c.gguf"', "lora", ["/a.gguf", "/b,c.gguf"]),
        ("seed", -1, "seed", -1),
    ],
)
def test_other_peoples_names_and_spellings_are_understood(
    given_name: str, value: Any, name: str, read: Any
) -> None:
    assert TABLE.validate({given_name: value}) == {name: read}


def test_an_old_switch_that_says_no_leaves_the_option_unset() -> None:
    assert TABLE.validate({"mlock": False, "direct_io": False}) == {}


def test_one_cache_type_stands_for_both_and_gives_way() -> None:
    assert TABLE.validate({"kv_cache_type": "q8_0", "kv_cache_type_v": "f16"}) == {
        "kv_cache_type_k": "q8_0",
        "kv_cache_type_v": "f16",
    }


def test_the_same_option_twice_must_agree() -> None:
    assert TABLE.validate({"c": 512, "ctx_size": "512"}) == {"context_length": 512}
    with pytest.raises(BadOptionValue, match="disagree"):
        TABLE.validate({"c": 512, "ctx_size": 1024})


def test_an_unknown_option_is_answered_with_near_names() -> None:
    with pytest.raises(UnknownOption) as caught:
        TABLE.validate({"contxt_length": 1})
    assert caught.value.facts["near"][0] == "context_length"
    assert "context_length" in (caught.value.hint or "")


def test_an_option_that_is_gone_says_what_to_do_instead() -> None:
    with pytest.raises(UnknownOption) as caught:
        TABLE.validate({"spec_ngram_size_n": 3})
    assert "spec_ngram_simple_size_n" in (caught.value.hint or "")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("context_length", -5, "at least 0"),
        ("context_length", "many", "whole number"),
        ("context_length", 1.5, "whole number"),
        ("context_length", 2**40, "whole number"),
        ("context_length", True, "whole number"),
        ("top_p", 1.5, "from 0 to 1"),
        ("top_p", float("nan"), "number"),
        ("jinja", "perhaps", "true or false"),
        ("jinja", 7, "true or false"),
        ("pooling", "max", "one of none, mean"),
        ("gpu_layers", "some", "'auto' or 'all'"),
        ("grammar", "a\0b", "NUL"),
        ("grammar", {"a": 1}, "text"),
        ("lora", [""], "a path"),
        ("override_tensor", ["a,b=CPU"], "without ','"),
        ("control_vector_layer_range", "1", "text"),
    ],
)
def test_a_bad_value_is_refused_and_the_rule_told(name: str, value: Any, says: str) -> None:
    with pytest.raises(BadOptionValue, match=says) as caught:
        TABLE.validate({name: value})
    assert caught.value.facts["field"] == f"options.{name}"


@pytest.mark.parametrize(
    "name",
    ["host", "port", "api_key", "--api-key", "model", "m", "alias", "a", "hf_repo", "hf", "models_dir"],
)
def test_what_ostler_decides_is_no_option(name: str) -> None:
    with pytest.raises(OwnedOption):
        TABLE.validate({name: "x"})


@pytest.mark.parametrize(
    "argument", ["--port", "--port=80", "--api_key=x", "-m", "-a", "--host", "--api-key-file", "--help"]
)
def test_what_ostler_decides_is_no_extra_argument(argument: str) -> None:
    with pytest.raises(OwnedOption):
        TABLE.check_extra_args(["--verbose", argument, "x"])
    TABLE.check_extra_args(["--verbose", "-1", "port"])


@pytest.mark.parametrize("name", ["LLAMA_ARG_HOST", "LLAMA_ARG_PORT", "LLAMA_API_KEY", "LLAMA_ARG_MODEL"])
def test_what_ostler_decides_is_no_variable(name: str) -> None:
    with pytest.raises(OwnedOption):
        TABLE.check_env({name: "x"})
    TABLE.check_env({"CUDA_VISIBLE_DEVICES": "0", "LLAMA_ARG_N_PREDICT": "5"})


@pytest.mark.parametrize("env", [{"": "x"}, {"A=B": "x"}, {"A": "x\0y"}])
def test_a_variable_that_cannot_be_is_refused(env: dict[str, str]) -> None:
    with pytest.raises(BadOptionValue):
        TABLE.check_env(env)


def test_a_list_is_joined_or_repeated_as_the_engine_wants_it() -> None:
    assert TABLE.to_args({"lora": ["/a.gguf", "/b,c.gguf"]}) == ["--lora", '/a.gguf,"/b,c.gguf"']
    assert TABLE.to_args({"reverse_prompt": ["a", "b"]}) == ["--reverse-prompt", "a", "--reverse-prompt", "b"]
    assert TABLE.to_args({"control_vector_layer_range": [1, 8]}) == ["--control-vector-layer-range", "1", "8"]


def test_one_name_may_not_mean_two_options() -> None:
    with pytest.raises(ValueError, match="means both"):
        OptionTable("x", [Option("a", "int", ("--same",)), Option("b", "int", ("--same",))])


names = st.sampled_from([option.name for option in TABLE]) | st.text(max_size=20)
values = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.lists(st.text())


@given(st.dictionaries(names, values, max_size=4))
def test_whatever_is_given_is_checked_or_refused_and_what_passes_is_stable(options: dict[str, Any]) -> None:
    try:
        checked = TABLE.validate(options)
    except Invalid:
        return
    assert TABLE.validate(checked) == checked
    assert all(isinstance(argument, str) for argument in TABLE.to_args(checked))


def test_what_somebody_has_set_is_found_wherever_it_stands() -> None:
    env = {"LLAMA_ARG_CTX_SIZE": "4096", "LLAMA_ARG_N_GPU_LAYERS": "3", "OTHER": "x"}
    told = TABLE.told({"n_ctx": 512}, ("-ngl", "7", "--new-flag", "x"), env)
    assert told == {"context_length": 512, "gpu_layers": 7}, "arguments over options over variables"
    assert TABLE.told({}, (), {"LLAMA_ARG_CTX_SIZE": "many"}) == {"context_length": "many"}
    assert TABLE.told({"threads": 2}, ("--ctx-size",)) == {"threads": 2}, "its launch says what is wrong"

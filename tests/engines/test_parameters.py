"""Every option that is not refused sets something in llama.cpp's parameters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import xllamacpp

from ostler.engines.llama_server.arguments import Arguments, BadArgument, read_arguments
from ostler.engines.llama_server.fields import REFUSED
from ostler.engines.llama_server.parameters import make_parameters
from ostler.engines.llamacpp_options import TABLE
from ostler.engines.options import Option, write_option

ROWS = [option for option in TABLE if option.flags and option.name not in REFUSED]
SPECIAL_VALUES: dict[str, object] = {
    "override_tensor": ["blk=CPU"],
    "draft_override_tensor": ["blk=CPU"],
    "cpu_mask": "f",
    "cpu_mask_batch": "f",
    "draft_cpu_mask": "f",
    "draft_cpu_mask_batch": "f",
    "cpu_range": "0-3",
    "cpu_range_batch": "0-3",
    "draft_cpu_range": "0-3",
    "samplers": ["top_k", "min_p"],
    "sampler_seq": "kmt",
    "grammar": 'root ::= "a"',
    "json_schema": '{"type": "object"}',
    "chat_template_kwargs": '{"a": 1}',
    "lora_scaled": ["/adapter:0.5"],
    "mmproj_device": "none",
    "log_colors": "off",
    "log_prefix": True,
    "log_timestamps": True,
    "log_jsonl": False,
}


def value_for(option: Option, tmp_path: Path) -> object:
    """A value that is not the default."""
    if option.name in SPECIAL_VALUES:
        return SPECIAL_VALUES[option.name]
    if option.name.endswith("_file"):
        file = tmp_path / "file"
        is_schema, is_grammar = option.name.startswith("json"), option.name.startswith("grammar")
        file.write_text('{"type": "object"}' if is_schema else 'root ::= "a"' if is_grammar else "text")
        return str(file)
    if option.type == "bool":
        return not option.default
    if option.choices:
        one = next(choice for choice in reversed(option.choices) if choice != option.default)
        return [one] if option.repeat else one
    if option.type in ("int", "float"):
        number = next(number for number in (1, 2, 0.5, 0) if _may_be(option, number))
        return [number] if option.repeat else number
    text = str(tmp_path) if option.type == "path" else "text"
    return [text] if option.repeat else text


def _may_be(option: Option, number: float) -> bool:
    low, high = option.minimum, option.maximum
    inside = (low is None or number >= low) and (high is None or number <= high)
    return inside and number != option.default and (option.type == "float" or isinstance(number, int))


@pytest.mark.parametrize("option", ROWS, ids=lambda option: option.name)
def test_an_option_reaches_the_engine(option: Option, tmp_path: Path) -> None:
    value = TABLE.validate({option.name: value_for(option, tmp_path)})[option.name]
    arguments = read_arguments(["--model", "/m.gguf", *write_option(option, value)], {})
    if write_option(option, value):
        assert arguments.options[option.name] == value
    make_parameters(arguments, xllamacpp)


def test_values_arrive_as_given() -> None:
    flags = "-m /m.gguf -c 0 -ngl 0 -np 2 --no-kv-offload -ctk q8_0 --temp 0 --seed -1 -ts 3,1 -fa on"
    params = make_parameters(read_arguments(flags.split(), {"LLAMA_API_KEY": "a,b"}), xllamacpp)
    assert (params.model.path, params.n_ctx, params.n_gpu_layers, params.n_parallel) == ("/m.gguf", 0, 0, 2)
    assert params.no_kv_offload and params.sampling.temp == 0 and params.sampling.seed == 2**32 - 1
    assert params.tensor_split[:3] == [3.0, 1.0, 0.0]
    assert params.cache_type_k == xllamacpp.ggml_type.GGML_TYPE_Q8_0
    assert params.api_keys == ["a", "b"]


def test_slots_are_four_that_share_the_context_unless_told() -> None:
    params = make_parameters(read_arguments(["-m", "/m.gguf"], {}), xllamacpp)
    assert (params.n_parallel, params.kv_unified) == (4, True)
    params = make_parameters(read_arguments(["-m", "/m.gguf", "--no-kv-unified"], {}), xllamacpp)
    assert (params.n_parallel, params.kv_unified) == (4, False)


def test_template_values_are_joined() -> None:
    flags = ["-m", "/m.gguf", "--chat-template-kwargs", '{"a": 1}', "--reasoning", "off"]
    params = make_parameters(read_arguments(flags, {}), xllamacpp)
    kwargs = {name: json.loads(value) for name, value in params.default_template_kwargs.items()}
    assert kwargs == {"a": 1, "enable_thinking": False, "preserve_reasoning": True}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_refused_option_is_an_error_even_from_the_environment(name: str) -> None:
    arguments = Arguments(options={name: "x"}, owned={"--model": "/m.gguf"})
    with pytest.raises(BadArgument, match=TABLE.get(name).flag or name):
        make_parameters(arguments, xllamacpp)

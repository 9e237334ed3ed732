"""Pasted command lines."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.core.errors import Invalid
from ostler.engines.command_line import BadCommand
from ostler.engines.llamacpp_options import TABLE


def test_a_whole_command_from_a_shell_script_is_read() -> None:
    parsed = TABLE.parse_command(
        "CUDA_VISIBLE_DEVICES=0,1 /opt/llama.cpp/build/bin/llama-server \\\n"
        '  -m "/models/my model.gguf" --alias qwen -c 8192 -ngl 99 \\\r\n'
        "  --host=0.0.0.0 --port 8080 --api-key secret -fa on --no-mmap --temp 0 \\\n"
        "  --seed -1 --lora '/a b.gguf' --new-flag some --other=1 --switch"
    )
    assert parsed.model == "/models/my model.gguf"
    assert parsed.alias == "qwen"
    assert parsed.env == {"CUDA_VISIBLE_DEVICES": "0,1"}
    assert parsed.options == {
        "context_length": 8192,
        "flash_attention": "on",
        "gpu_layers": 99,
        "load_mode": "none",
        "lora": ["/a b.gguf"],
        "temperature": 0.0,
        "seed": -1,
    }
    assert parsed.extra_args == ("--new-flag", "some", "--other", "1", "--switch")
    assert parsed.ignored == ("--host 0.0.0.0", "--port 8080", "--api-key")


def test_a_repo_from_the_hub_is_kept_as_a_spec() -> None:
    assert TABLE.parse_command("llama-server -hf org/repo:Q4_K_M").hub == "org/repo:Q4_K_M"
    assert TABLE.parse_command("llama-server -hf org/repo -hff a.gguf").hub == "org/repo:a.gguf"


def test_flags_alone_and_a_model_without_a_flag_are_read() -> None:
    assert TABLE.parse_command("-c 512").options == {"context_length": 512}
    assert TABLE.parse_command("llama-server /m.gguf -c 512").model == "/m.gguf"


def test_negative_numbers_are_values() -> None:
    parsed = TABLE.parse_command("llama-server --cache-ram -1 --yarn-ext-factor -1.5 --new -2")
    assert parsed.options == {"yarn_ext_factor": -1.5, "cache_ram": -1}
    assert parsed.extra_args == ("--new", "-2")


def test_underscores_in_long_flags_are_read_as_the_engine_reads_them() -> None:
    parsed = TABLE.parse_command("llama-server --ctx_size 512 --api_key x")
    assert parsed.options == {"context_length": 512}
    assert parsed.ignored == ("--api_key",)


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ('llama-server -m "/a', "no closing quotation"),
        ("llama-server -c", "needs a value"),
        ("llama-server -c --jinja", "needs a value"),
        ("llama-server ---c 1", "not a flag"),
        ("llama-server -m a.gguf b.gguf", "stands alone"),
        ("llama-server -m a.gguf | tee log", "pipes"),
        ("llama-server -c 5\0", "NUL"),
        ("x" * 70_000, "longer"),
    ],
)
def test_what_cannot_be_read_is_told(command: str, says: str) -> None:
    with pytest.raises(BadCommand, match=says):
        TABLE.parse_command(command)


def test_what_is_written_is_read_back() -> None:
    options = TABLE.validate(
        {
            "context_length": 4096,
            "jinja": False,
            "lora": ["/a b.gguf", "/c,d.gguf"],
            "tensor_split": [3, 1],
            "samplers": ["top_k", "min_p"],
            "temperature": 0.25,
            "control_vector_layer_range": "1 8",
            "reverse_prompt": ["a 'b'", "-c"],
        }
    )
    options.pop("reverse_prompt")
    command = shlex.join(["llama-server", *TABLE.to_args(options)])
    assert TABLE.parse_command(command).options == options


@given(
    st.text(max_size=80) | st.lists(st.sampled_from(["-c", "1", "-m", "a", "--jinja", "-ts", "3,1", "--x"]))
)
def test_any_text_is_read_or_refused(text: str | list[str]) -> None:
    try:
        TABLE.parse_command(text)
    except Invalid:
        return

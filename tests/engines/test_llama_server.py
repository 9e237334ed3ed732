"""The built-in engine, for real: xllamacpp on the demo model."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest

from ostler.engines.llama_server.fields import (
    ENUMS,
    FIELDS,
    FILES,
    FLIPPED,
    FOLDERS,
    REFUSED,
    SAMPLED,
)
from ostler.engines.llama_server.main import FIT_MEMORY
from ostler.engines.llama_server.special import SPECIAL
from ostler.engines.llamacpp_diagnosis import DIAGNOSIS
from ostler.engines.llamacpp_options import TABLE
from ostler.engines.probe import read_flags
from tests.engines.conftest import Running, StartEngine

HELLO = {"model": "demo", "max_tokens": 8, "messages": [{"role": "user", "content": "hi"}]}


def test_it_answers_a_chat_and_counts_tokens(engine: Running) -> None:
    answer = engine.ask("/v1/chat/completions", HELLO)
    assert answer["model"] == "demo"
    assert answer["choices"][0]["message"]["content"].startswith("Hello")
    assert answer["usage"]["completion_tokens"] == 8


def test_it_streams_and_ends_with_usage_where_asked(engine: Running) -> None:
    body = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    status, text = engine.call("/v1/chat/completions", body)
    events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert status == 200 and events[-1] == "[DONE]"
    assert json.loads(events[-2])["usage"]["completion_tokens"] == 8
    assert len(events) > 5


def test_it_speaks_completions_responses_and_messages(engine: Running) -> None:
    assert engine.ask("/v1/completions", {"prompt": "hi", "max_tokens": 2})["choices"][0]["text"]
    assert engine.ask("/v1/responses", {"input": "hi", "max_output_tokens": 2})["output"]
    message = engine.ask("/v1/messages", HELLO)
    assert message["type"] == "message" and message["content"][0]["text"].startswith("Hello")


def test_it_gives_logprobs_and_keeps_to_a_schema(engine: Running) -> None:
    chosen = engine.ask("/v1/chat/completions", {**HELLO, "logprobs": True, "top_logprobs": 2})
    assert len(chosen["choices"][0]["logprobs"]["content"]) == 8
    schema = {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}
    text = engine.ask("/v1/chat/completions", {**HELLO, "max_tokens": 60, "response_format": wanted})
    assert text["choices"][0]["message"]["content"].lstrip().startswith("{")


def test_it_tells_slots_properties_metrics_and_its_alias(engine: Running) -> None:
    slots = engine.ask("/slots")
    assert [slot["n_ctx"] for slot in slots] == [512, 512]
    assert engine.ask("/props")["total_slots"] == 2
    assert "llamacpp:prompt_tokens_total" in engine.call("/metrics")[1]
    assert engine.ask("/v1/models")["data"][0]["id"] == "demo"


def test_every_request_but_health_needs_the_key(engine: Running) -> None:
    assert engine.call("/v1/chat/completions", HELLO, key="wrong")[0] == 401
    assert engine.call("/v1/models", key="wrong")[0] == 401
    assert engine.call("/health", key="wrong")[0] == 200


def write_adapter(path: Path, model: Path) -> None:
    """A LoRA adapter of rank 2 for the demo model's first query projection."""
    reader = gguf.GGUFReader(model)
    field = reader.get_field("general.architecture")
    assert field is not None
    writer = gguf.GGUFWriter(path, str(field.contents()))
    writer.add_string("general.type", "adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 2.0)
    target = next(tensor for tensor in reader.tensors if tensor.name == "blk.0.attn_q.weight")
    width, height = (int(size) for size in target.shape)
    writer.add_tensor(f"{target.name}.lora_a", np.ones((2, width), dtype=np.float32))
    writer.add_tensor(f"{target.name}.lora_b", np.ones((height, 2), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_an_adapter_is_loaded_and_listed_with_its_strength(
    start_engine: StartEngine, tmp_path: Path, demo_model: Path
) -> None:
    path = tmp_path / "adapter.gguf"
    write_adapter(path, demo_model)
    running = start_engine("--lora-scaled", f"{path}:0.5")
    assert running.url, running.log
    adapters = running.ask("/lora-adapters")
    assert [(adapter["path"], adapter["scale"]) for adapter in adapters] == [(str(path), 0.5)]


def test_a_model_in_parts_is_loaded(start_engine: StartEngine, shared: Path) -> None:
    parts = sorted((shared / "demo-model" / "split").glob("*-00001-of-*.gguf"))
    running = start_engine(model=parts[0])
    assert running.url, running.log
    assert running.ask("/v1/chat/completions", HELLO)["choices"][0]["message"]["content"]


def test_a_missing_part_is_named(start_engine: StartEngine, shared: Path, tmp_path: Path) -> None:
    first = sorted((shared / "demo-model" / "split").glob("*-00001-of-*.gguf"))[0]
    (tmp_path / first.name).write_bytes(first.read_bytes())
    running = start_engine(model=tmp_path / first.name)
    found = DIAGNOSIS.diagnose(running.log, running.process.returncode)
    assert found and "00002-of" in found.reason


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_exit_code_0(start_engine: StartEngine, number: signal.Signals) -> None:
    running = start_engine("--embeddings", "--pooling", "mean")
    assert len(running.ask("/v1/embeddings", {"input": "hi"})["data"][0]["embedding"]) == 256
    running.process.send_signal(number)
    assert running.process.wait(timeout=10) == 0


def test_options_come_from_variables_too_and_arguments_win(start_engine: StartEngine) -> None:
    env = {"LLAMA_ARG_N_PARALLEL": "3", "LLAMA_ARG_CTX_SIZE": "512"}
    running = start_engine("--ctx-size", "768", env=env)
    assert [slot["n_ctx"] for slot in running.ask("/slots")] == [256, 256, 256]


def test_a_file_that_is_no_model_ends_it_with_a_diagnosis(start_engine: StartEngine, tmp_path: Path) -> None:
    path = tmp_path / "no.gguf"
    path.write_text("this is not a model, only some text that somebody renamed")
    running = start_engine(model=path)
    assert running.url is None and running.process.returncode == 1
    found = DIAGNOSIS.diagnose(running.log, 1)
    assert found and found.title == "Not a GGUF file"


def test_a_file_that_is_cut_off_is_told_apart(
    start_engine: StartEngine, tmp_path: Path, demo_model: Path
) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(demo_model.read_bytes()[:200_000])
    running = start_engine(model=path)
    found = DIAGNOSIS.diagnose(running.log, running.process.returncode)
    assert found and found.title == "File broken"


def test_a_port_in_use_ends_it_with_a_diagnosis(start_engine: StartEngine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        running = start_engine("--port", str(taken.getsockname()[1]))
    assert running.process.returncode == 1
    found = DIAGNOSIS.diagnose(running.log, 1)
    assert found and found.title == "Port in use"


def test_a_quantized_value_cache_without_flash_attention_is_explained(start_engine: StartEngine) -> None:
    running = start_engine("--cache-type-v", "q8_0", "--flash-attn", "off")
    found = DIAGNOSIS.diagnose(running.log, running.process.returncode)
    assert found and found.title == "Quantized cache without flash attention"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--no-such-flag",), "--no-such-flag"),
        (("--control-vector", "/x"), "--control-vector"),
        (("--ctx-size", "many"), "--ctx-size"),
        (("--ctx-size",), "--ctx-size"),
        (("--hf-repo", "a/b"), "--hf-repo"),
        (("--mlock",), "--load-mode"),
        (("--chat-template-kwargs", "[]"), "--chat-template-kwargs"),
        (("--lora-scaled", "adapter"), "--lora-scaled"),
        (("--samplers", "top_k;nope"), "--samplers"),
        (("--grammar-file", "/no/such/file"), "--grammar-file"),
        (("--port", "-1"), "--port"),
    ],
)
def test_what_it_cannot_honour_is_an_error_that_names_the_flag(
    start_engine: StartEngine, flags: tuple[str, ...], named: str
) -> None:
    running = start_engine(*flags)
    assert running.process.returncode == 2
    assert any(line.startswith("error:") and named in line for line in running.log), running.log


def test_each_option_is_carried_out_or_refused_and_in_one_place() -> None:
    places = (FIELDS, FLIPPED, SAMPLED, ENUMS, FILES, FOLDERS, REFUSED, SPECIAL)
    names = [name for place in places for name in place]
    assert sorted(names) == sorted(option.name for option in TABLE if option.flags)


def test_help_names_what_it_honours_and_nothing_else() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ostler.engines.llama_server", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    flags = read_flags(done.stdout)
    honoured = {f for o in TABLE if o.name not in REFUSED for f in (*o.flags, *o.negative_flags)}
    assert honoured <= flags <= TABLE.flags() | {FIT_MEMORY}
    assert not flags & {TABLE.get(name).flag for name in REFUSED}


def test_it_starts_without_the_heavy_parts_of_ostler() -> None:
    code = "import ostler.engines.llama_server.main, ostler.engines.llama_server.parameters, sys"
    heavy = "'pydantic', 'sqlalchemy', 'asyncio', 'fastapi', 'xllamacpp', 'email'"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}; print([m for m in ({heavy}) if m in sys.modules])"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"

"""The estimate of memory: against what the engine allocates, over devices, and with bad input."""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ostler.core.errors import Kind, OstlerError
from ostler.fit.devices import Device
from ostler.fit.errors import ImpossibleHeader, ImpossibleOption, IncompleteHeader, NotEstimable
from ostler.fit.model_shape import ModelShape
from ostler.library.gguf import read_gguf_header
from ostler.library.gguf_header import GgufHeader, Value
from tests.fit.estimates import estimate, sweep
from tests.fit.small_models import Sizes, write_model

MIB = 1024 * 1024
GIB = 1024 * MIB


def host(free_bytes: int = 64 * GIB) -> Device:
    return Device("cpu", "host", "cpu", free_bytes, free_bytes)


def gpu(index: int, free_bytes: int = 24 * GIB) -> Device:
    return Device(f"cuda:{index}", "GPU", "cuda", free_bytes, free_bytes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def header_of(folder: Path, name: str, sizes: Sizes | None = None) -> GgufHeader:
    return read_gguf_header(write_model(folder, name, sizes))


def shape_of(folder: Path, name: str, sizes: Sizes | None = None) -> ModelShape:
    return ModelShape.of([header_of(folder, name, sizes)])


async def said_by_the_engine(model: Path, *flags: str) -> dict[str, float]:
    """MiB of model, keys and values, as the engine logs them while it loads."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "ostler.engines.llama_server", "--model", str(model), "--port", port]
    engine = await asyncio.create_subprocess_exec(
        *command, "-lv", "4", *flags, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    assert engine.stdout is not None
    said: dict[str, float] = {}
    async with asyncio.timeout(30):
        async for line in engine.stdout:
            text = line.decode(errors="replace")
            for name, pattern in (
                ("weights", r"model buffer size =\s+([\d.]+) MiB"),
                ("kv", r"llama_kv_cache: size =\s+([\d.]+) MiB"),
                ("compute", r"compute buffer size =\s+([\d.]+) MiB"),
            ):
                if found := re.search(pattern, text):
                    said[name] = float(found[1])
            if len(said) == 3:
                break
    engine.kill()
    await engine.wait()
    return said


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, ()),
        ({"context_length": 512}, ("-c", "512")),
        ({"kv_cache_type_k": "q8_0"}, ("-ctk", "q8_0")),
        (
            {"kv_cache_type": "q8_0", "context_length": 768},
            ("-ctk", "q8_0", "-ctv", "q8_0", "-fa", "on", "-c", "768"),
        ),
    ],
)
async def test_weights_cache_and_compute_agree_with_the_engine(
    demo_model: Path, options: dict[str, Any], flags: tuple[str, ...]
) -> None:
    shape = ModelShape.of([read_gguf_header(demo_model)])
    need = estimate(shape, options, ()).host
    said = await said_by_the_engine(demo_model, *flags)
    assert need.weights_bytes / MIB == pytest.approx(said["weights"], abs=0.01)
    assert need.kv_cache_bytes / MIB == pytest.approx(said["kv"], abs=0.01)
    assert need.compute_bytes / MIB == pytest.approx(said["compute"], rel=0.1)


def test_the_answer_has_the_keys_that_clients_read(folder: Path) -> None:
    found = estimate(shape_of(folder, "llama"), {}, [gpu(0), host()]).to_json()
    keys = {"engine", "context_length", "parallel", "devices", "host", "fits", "max_context_length"}
    assert keys | {"options", "exactness", "warnings"} <= found.keys()
    need = {"id", "name", "weights_bytes", "kv_cache_bytes", "compute_bytes", "overhead_bytes"}
    for device in (*found["devices"], found["host"]):
        told = {"total_bytes", "free_bytes", "measured_bytes", "shared_bytes", "fits"}
        assert need | told == device.keys()


def test_with_all_layers_on_a_gpu_only_the_embedding_stays_on_the_host(folder: Path) -> None:
    shape = shape_of(folder, "llama")
    found = estimate(shape, {"gpu_layers": "all"}, [gpu(0), host()])
    assert found.host.weights_bytes == shape.loose["token_embd.weight"].n_bytes
    assert found.host.kv_cache_bytes == 0
    assert found.devices[0].weights_bytes > 0 and found.options == {"gpu_layers": 5}


def test_where_the_gpu_takes_from_the_host_both_have_to_fit_into_one_memory(folder: Path) -> None:
    shape = shape_of(folder, "llama")

    def fits(pool_bytes: int, limit_bytes: int) -> bool:
        metal = Device("metal:0", "chip", "metal", limit_bytes, limit_bytes, pool="cpu")
        found = estimate(shape, {"gpu_layers": "all", "context_length": 512}, [metal, host(pool_bytes)])
        assert found.host.shared_bytes == found.devices[0].total_bytes > 0 == found.devices[0].shared_bytes
        return found.fits

    own = Device("metal:0", "chip", "metal", 1 << 40, 1 << 40)
    apart = estimate(shape, {"gpu_layers": "all", "context_length": 512}, [own, host()])
    on_gpu, whole = apart.devices[0].total_bytes, apart.total("total_bytes")
    assert fits(whole, on_gpu)
    assert not fits(whole - 1, on_gpu), "each fits alone, both together do not"
    assert not fits(whole, on_gpu - 1), "the GPU's limit holds within the pool"


def test_one_gpu_layer_is_the_output(folder: Path) -> None:
    shape = shape_of(folder, "llama")
    found = estimate(shape, {"gpu_layers": 1}, [gpu(0), host()])
    outside = sum(shape.loose[name].n_bytes for name in ("output.weight", "output_norm.weight"))
    assert found.devices[0].weights_bytes == outside
    assert found.devices[0].kv_cache_bytes == 0


def test_a_tied_embedding_lies_on_the_host_and_on_the_gpu(folder: Path) -> None:
    shape = shape_of(folder, "qwen2")
    found = estimate(shape, {"gpu_layers": "all"}, [gpu(0), host()])
    alone = estimate(shape, {}, [host()])
    embedding = shape.loose["token_embd.weight"].n_bytes
    both = found.host.weights_bytes + found.devices[0].weights_bytes
    assert both - alone.host.weights_bytes == pytest.approx(embedding, rel=0.01)


def test_experts_kept_on_the_host_leave_the_gpu(folder: Path) -> None:
    shape = shape_of(folder, "qwen3moe")
    whole = estimate(shape, {"gpu_layers": "all"}, [gpu(0), host()])
    half = estimate(shape, {"gpu_layers": "all", "n_cpu_moe": 2}, [gpu(0), host()])
    moved = sum(
        tensor.n_bytes
        for layer in shape.layers[:2]
        for name, tensor in layer.tensors.items()
        if "_exps" in name
    )
    assert whole.devices[0].weights_bytes - half.devices[0].weights_bytes == moved
    assert half.host.weights_bytes - whole.host.weights_bytes == moved


def test_layers_are_dealt_out_in_the_proportions_of_the_split(folder: Path) -> None:
    shape = shape_of(folder, "llama", Sizes(layers=7))
    found = estimate(shape, {"gpu_layers": "all", "tensor_split": [3, 1]}, [gpu(0), gpu(1), host()])
    per_layer = estimate(shape, {}, [host()]).host.kv_cache_bytes // 7
    assert [need.kv_cache_bytes // per_layer for need in found.devices] == [6, 1]


def test_where_the_choice_is_open_as_many_layers_are_offloaded_as_fit(folder: Path) -> None:
    shape = shape_of(folder, "llama", Sizes(layers=7))
    whole = estimate(shape, {"gpu_layers": "all"}, [gpu(0), host()]).devices[0].total_bytes
    found = estimate(shape, {}, [gpu(0, whole - MIB), host()])
    assert found.devices[0].fits and 0 < found.options["gpu_layers"] < 8
    more = {"gpu_layers": found.options["gpu_layers"] + 1}
    assert not estimate(shape, more, [gpu(0, whole - MIB), host()]).fits


def test_the_largest_context_fits_and_the_next_does_not(folder: Path) -> None:
    shape = shape_of(folder, "llama")
    room = [host(60 * MIB)]
    largest = estimate(shape, {"parallel_slots": 1}, room).max_context_length
    assert largest is not None and 256 <= largest < shape.trained_context
    assert estimate(shape, {"parallel_slots": 1, "context_length": largest}, room).fits
    assert not estimate(shape, {"parallel_slots": 1, "context_length": largest + 256}, room).fits


def test_what_cannot_fit_at_all_has_no_largest_context(folder: Path) -> None:
    found = estimate(shape_of(folder, "llama"), {}, [host(MIB)])
    assert not found.fits and found.max_context_length is None


def test_a_window_keeps_the_cache_small_unless_it_is_to_be_full(folder: Path) -> None:
    shape = shape_of(folder, "gemma3", Sizes(layers=6))
    small = estimate(shape, {"context_length": 16_384}, [host()]).host.kv_cache_bytes
    full = estimate(shape, {"context_length": 16_384, "swa_full": True}, [host()]).host.kv_cache_bytes
    assert small < full / 2


def test_an_unknown_architecture_is_counted_and_named(folder: Path) -> None:
    header = header_of(folder, "llama")
    renamed = {key.replace("llama.", "newcomer."): value for key, value in header.metadata.items()}
    renamed["general.architecture"] = "newcomer"
    found = estimate(ModelShape.of([replace(header, metadata=renamed)]), {}, [host()])
    known = estimate(ModelShape.of([header]), {}, [host()])
    assert found.host.weights_bytes == known.host.weights_bytes
    assert any("newcomer" in warning for warning in found.warnings)
    assert found.bounds is not None and known.bounds is None
    assert found.host.weights_bytes < found.bounds.lower_bytes < known.total("total_bytes")
    assert known.total("total_bytes") < found.bounds.upper_bytes == found.total("total_bytes")
    assert set(found.to_json()["bounds"]) == {"lower_bytes", "upper_bytes"}
    assert "bounds" not in known.to_json()


def test_an_unknown_architecture_fits_where_its_upper_bound_fits(folder: Path) -> None:
    header = header_of(folder, "llama")
    renamed = {key.replace("llama.", "newcomer."): value for key, value in header.metadata.items()}
    renamed["general.architecture"] = "newcomer"
    shape = ModelShape.of([replace(header, metadata=renamed)])
    bounds = estimate(shape, {}, [host()]).bounds
    assert bounds is not None
    assert estimate(shape, {}, [host(bounds.upper_bytes)]).fits
    assert not estimate(shape, {}, [host(bounds.upper_bytes - 1)]).fits


def test_drafted_tokens_are_checked_in_a_larger_batch(folder: Path) -> None:
    shape = shape_of(folder, "llama", Sizes(vocab=32_000))
    plain = estimate(shape, {"ubatch_size": 64}, [host()]).host.compute_bytes
    drafting = estimate(shape, {"ubatch_size": 64, "spec_type": ["ngram-mod"]}, [host()]).host.compute_bytes
    assert drafting > plain


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("general.architecture", None, IncompleteHeader),
        ("llama.block_count", None, IncompleteHeader),
        ("llama.embedding_length", None, IncompleteHeader),
        ("llama.attention.head_count", None, IncompleteHeader),
        ("llama.attention.head_count", 0, ImpossibleHeader),
        ("llama.attention.head_count_kv", 0, ImpossibleHeader),
        ("llama.block_count", 1 << 30, ImpossibleHeader),
        ("general.type", "adapter", NotEstimable),
    ],
)
def test_a_header_that_says_too_little_or_nonsense_is_refused(
    folder: Path, key: str, value: Value | None, error: type[OstlerError]
) -> None:
    header = header_of(folder, "llama")
    metadata = {name: kept for name, kept in header.metadata.items() if name != key}
    if value is not None:
        metadata[key] = value
    with pytest.raises(error) as caught:
        ModelShape.of([replace(header, metadata=metadata)])
    assert caught.value.kind is Kind.INVALID and caught.value.hint


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("context_length", -1),
        ("context_length", 1 << 40),
        ("kv_cache_type_k", "q9_9"),
        ("gpu_layers", "some"),
        ("devices", ["CUDA7"]),
        ("tensor_split", [1, 1, 1]),
        ("override_tensor", ["(=CPU"]),
    ],
)
def test_an_option_that_cannot_be_right_is_named(folder: Path, name: str, value: Any) -> None:
    with pytest.raises(ImpossibleOption) as caught:
        estimate(shape_of(folder, "llama"), {name: value}, [gpu(0), host()])
    assert caught.value.facts["field"] == name


@pytest.mark.parametrize("name", ["llama", "gemma3", "qwen3moe"])
def test_a_sweep_says_what_single_estimates_say(folder: Path, name: str) -> None:
    shape = shape_of(folder, name, Sizes(layers=12))
    contexts = [1_024 * step for step in range(1, 21)]
    devices = [gpu(0, 560 * MIB + 20 * MIB), gpu(1, 590 * MIB), host()]
    swept = sweep(shape, {}, devices, contexts)
    assert swept == tuple(estimate(shape, {"context_length": tokens}, devices) for tokens in contexts)
    assert len({found.options["gpu_layers"] for found in swept}) > 1

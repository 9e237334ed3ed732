"""What is loaded beside a model: drafting models, adapters, projectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from ostler.fit.beside import Beside
from ostler.fit.devices import Device
from ostler.fit.estimated import Estimate
from ostler.fit.model_shape import ModelShape
from ostler.fit.reading import Shapes
from ostler.library.gguf import read_gguf_header
from tests.fit.estimates import estimate
from tests.fit.small_beside import write_adapter, write_projector
from tests.fit.small_models import Sizes, write_model

GIB = 1 << 30
CPU = Device("cpu", "host", "cpu", 64 * GIB, 64 * GIB)
GPUS = [Device(f"cuda:{index}", "GPU", "cuda", 24 * GIB, 24 * GIB) for index in range(2)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), "llama")


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("draft"), "qwen2", Sizes(layers=2))


def shape_of(path: Path) -> ModelShape:
    return ModelShape.of([read_gguf_header(path)])


def told(model: Path, options: Mapping[str, object], devices: list[Device]) -> Estimate:
    return estimate(shape_of(model), options, devices, beside=Beside(None, Shapes().headers))


def test_a_drafting_model_is_added_with_the_context_of_the_model(model: Path, draft: Path) -> None:
    options = {"context_length": 4096, "draft_model": str(draft)}
    alone = told(model, {"context_length": 4096}, [CPU]).host
    its_own = estimate(shape_of(draft), {"context_length": 4096}, [CPU]).host
    both = told(model, options, [CPU]).host
    assert both.weights_bytes == alone.weights_bytes + its_own.weights_bytes
    assert both.kv_cache_bytes == alone.kv_cache_bytes + its_own.kv_cache_bytes
    assert both.compute_bytes == alone.compute_bytes + its_own.compute_bytes


def test_a_drafting_model_has_its_own_types_of_cache(model: Path, draft: Path) -> None:
    plain = told(model, {"draft_model": str(draft), "kv_cache_type": "q8_0"}, [CPU]).host
    small = told(
        model,
        {"draft_model": str(draft), "kv_cache_type": "q8_0", "draft_kv_cache_type_k": "q8_0"},
        [CPU],
    ).host
    assert small.kv_cache_bytes < plain.kv_cache_bytes


def test_a_drafting_model_goes_to_its_own_device(model: Path, draft: Path) -> None:
    options = {"devices": ["cuda:0"], "draft_model": str(draft), "draft_devices": ["cuda:1"]}
    found = told(model, options, [*GPUS, CPU])
    assert [need.id for need in found.devices] == ["cuda:0", "cuda:1"]
    only = told(model, {"devices": ["cuda:0"]}, [*GPUS, CPU]).devices[0]
    assert found.devices[0] == only and found.devices[1].kv_cache_bytes > 0
    assert found.devices[1].overhead_bytes > 0


def test_layers_make_room_for_a_drafting_model(tmp_path: Path, draft: Path) -> None:
    model = write_model(tmp_path, "llama", Sizes(layers=16))
    whole = told(model, {"gpu_layers": "all"}, [GPUS[0], CPU]).devices[0].total_bytes
    tight = Device("cuda:0", "GPU", "cuda", whole, whole)
    assert told(model, {}, [tight, CPU]).options == {"gpu_layers": 17}
    beside = told(model, {"draft_model": str(draft)}, [tight, CPU])
    assert 0 < beside.options["gpu_layers"] < 17 and beside.devices[0].fits


def test_adapters_lie_where_the_matrices_lie_that_they_change(model: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter.gguf", model)
    size = read_gguf_header(adapter).weights_bytes
    options = {"lora": [str(adapter)], "gpu_layers": "all"}
    plain, found = (told(model, one, [GPUS[0], CPU]) for one in ({"gpu_layers": "all"}, options))
    assert found.devices[0].weights_bytes - plain.devices[0].weights_bytes == size
    scaled = told(model, {"lora_scaled": [f"{adapter}:0.5"]}, [CPU]).host.weights_bytes
    assert scaled - told(model, {}, [CPU]).host.weights_bytes == size


def test_a_projector_of_the_options_is_counted_with_its_buffer(model: Path, tmp_path: Path) -> None:
    projector = write_projector(tmp_path / "mmproj.gguf", "qwen2vl_merger")
    options = {"gpu_layers": 0, "mmproj": str(projector)}
    on_gpu = told(model, options, [GPUS[0], CPU])
    assert on_gpu.devices[0].weights_bytes == read_gguf_header(projector).weights_bytes
    assert on_gpu.devices[0].compute_bytes > 30 << 20
    on_host = told(model, {**options, "mmproj_offload": False}, [GPUS[0], CPU])
    assert on_host.devices[0].compute_bytes < on_host.host.compute_bytes
    assert any("larger" in warning for warning in on_gpu.warnings)


def test_the_projector_beside_the_model_can_be_left_out(model: Path, tmp_path: Path) -> None:
    header = read_gguf_header(write_projector(tmp_path / "mmproj.gguf", "gemma3"))
    with_it = estimate(shape_of(model), {}, [CPU], beside=Beside(header)).host
    without = estimate(shape_of(model), {"mmproj_auto": False}, [CPU], beside=Beside(header)).host
    assert with_it.weights_bytes - without.weights_bytes == header.weights_bytes


@pytest.mark.parametrize("name", ["draft_model", "mmproj", "lora"])
def test_a_file_that_cannot_be_read_is_told_of_and_the_rest_is_counted(
    model: Path, tmp_path: Path, name: str
) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\x03\x00\x00\x00")
    for path in (broken, tmp_path / "absent.gguf"):
        found = told(model, {name: [str(path)] if name == "lora" else str(path)}, [CPU])
        assert found.host == told(model, {}, [CPU]).host
        assert any("not counted" in warning for warning in found.warnings)


def test_for_a_model_on_the_hub_local_files_are_told_of(model: Path, draft: Path) -> None:
    found = estimate(shape_of(model), {"draft_model": str(draft)}, [CPU], beside=Beside())
    assert any(str(draft) in warning for warning in found.warnings)


def test_a_read_file_is_kept_until_it_changes(draft: Path, tmp_path: Path) -> None:
    shapes = Shapes()
    assert shapes.headers(draft) is shapes.headers(draft)

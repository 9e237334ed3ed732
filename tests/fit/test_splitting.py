"""How several GPUs share a model."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import pytest

from ostler.fit.device import Device, Kind
from ostler.fit.model_shape import ModelShape
from ostler.fit.overheads import OVERHEADS
from ostler.library.gguf import read_gguf_header
from tests.fit.estimates import estimate
from tests.fit.small_models import Sizes, write_model

GIB = 1 << 30
DEVICES = [
    *(Device(f"cuda:{index}", "GPU", "cuda", 24 * GIB, 24 * GIB) for index in range(2)),
    Device("cpu", "host", "cpu", 64 * GIB, 64 * GIB),
]


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> ModelShape:
    path = write_model(tmp_path_factory.mktemp("models"), "llama", Sizes(layers=7))
    return ModelShape.of([read_gguf_header(path)])


def test_by_tensors_heads_are_shared_and_norms_are_on_both(shape: ModelShape) -> None:
    alone = estimate(shape, {"gpu_layers": "all"}, [DEVICES[0], DEVICES[2]]).devices[0]
    both = estimate(shape, {"gpu_layers": "all", "split_mode": "tensor"}, DEVICES)
    first, second = both.devices
    assert first.kv_cache_bytes == second.kv_cache_bytes == alone.kv_cache_bytes // 2
    assert first.weights_bytes == second.weights_bytes
    norms = sum(t.n_bytes for layer in shape.layers for t in layer.tensors.values() if len(t.shape) == 1)
    norms += shape.loose["output_norm.weight"].n_bytes
    assert first.weights_bytes == pytest.approx((alone.weights_bytes + norms) / 2, rel=0.001)
    assert any("split_mode tensor" in warning for warning in both.warnings)


def test_by_tensors_the_stated_shares_count(shape: ModelShape) -> None:
    options = {"gpu_layers": "all", "split_mode": "tensor", "tensor_split": [3, 1]}
    first, second = estimate(shape, options, DEVICES).devices
    assert first.kv_cache_bytes == 3 * second.kv_cache_bytes


def test_by_rows_matrices_are_shared_and_the_cache_stays_with_its_layer(shape: ModelShape) -> None:
    by_layer = estimate(shape, {"gpu_layers": "all"}, DEVICES)
    by_row = estimate(shape, {"gpu_layers": "all", "split_mode": "row"}, DEVICES)
    assert [n.kv_cache_bytes for n in by_row.devices] == [n.kv_cache_bytes for n in by_layer.devices]
    first, second = by_row.devices
    assert first.weights_bytes == pytest.approx(second.weights_bytes, rel=0.01)
    assert by_row.total("weights_bytes") == pytest.approx(by_layer.total("weights_bytes"), rel=0.001)


def test_rows_on_gpus_that_cannot_split_them_are_told_of(shape: ModelShape) -> None:
    found = estimate(shape, {"gpu_layers": "all", "split_mode": "row"}, DEVICES)
    assert any("refuse split_mode row" in warning for warning in found.warnings)


def test_rows_on_intels_gpus_are_split_without_a_warning(shape: ModelShape) -> None:
    gpus = [replace(gpu, id=f"xpu:{index}", kind="xpu") for index, gpu in enumerate(DEVICES[:2])]
    found = estimate(shape, {"gpu_layers": "all", "split_mode": "row"}, [*gpus, DEVICES[2]])
    assert not any("refuse split_mode row" in warning for warning in found.warnings)


def test_every_kind_of_gpu_has_its_overhead() -> None:
    assert {*get_args(Kind)} - {"cpu"} == OVERHEADS.keys()


@pytest.mark.parametrize("mode", ["row", "tensor"])
def test_one_gpu_has_nothing_to_share(shape: ModelShape, mode: str) -> None:
    options = {"gpu_layers": "all"}
    plain = estimate(shape, options, [DEVICES[0], DEVICES[2]])
    assert estimate(shape, {**options, "split_mode": mode}, [DEVICES[0], DEVICES[2]]) == plain

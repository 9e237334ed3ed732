"""The estimate of memory against llama.cpp itself, over a grid of small models and options."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fit_exactness import BESIDE, Compared, beside_grid, compare, grid, llama_server
from tests.fit.small_models import MAKERS

pytestmark = pytest.mark.real
EACH = 10
EACH_BESIDE = 4
SEED = 2_026


@pytest.mark.timeout(600)
def test_every_buffer_is_within_its_limit_over_the_grid(tmp_path: Path) -> None:
    server = _server()
    results = [compare(server, case) for case in grid(tmp_path, seed=SEED, each=EACH)]
    assert len(results) == EACH * len(MAKERS) >= 200
    assert not [_sentence(result) for result in results if result.misses]


@pytest.mark.timeout(300)
def test_what_is_loaded_beside_a_model_is_within_the_limits(tmp_path: Path) -> None:
    server = _server()
    results = [compare(server, case) for case in beside_grid(tmp_path, seed=SEED, each=EACH_BESIDE)]
    assert len(results) == EACH_BESIDE * len(BESIDE)
    assert not [_sentence(result) for result in results if result.misses]


def _server() -> Path:
    server = llama_server()
    if server is None:
        pytest.skip("llama-server is missing (PATH or .venv-llama/bin/llama-server)")
    return server


def _sentence(result: Compared) -> str:
    errors = ", ".join(f"{kind} {result.error(kind):+.1%}" for kind in result.misses)
    return f"{result.case.architecture}: {errors} with {dict(result.case.options)}"

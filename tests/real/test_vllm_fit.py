"""The estimate of memory for vLLM against vLLM's own code, and against the log of real starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks.fit_exactness_vllm import (
    LIMITS,
    TYPES,
    Case,
    Compared,
    compare,
    estimated,
    grid,
    said_by_a_start,
)

pytestmark = pytest.mark.real
EACH = 4
SEED = 2_026
STARTED = ("qwen2", "gemma2", "deepseek_v2")


@pytest.fixture(scope="module")
def python(vllm: Path) -> Path:
    return vllm / "bin" / "python"


@pytest.fixture(scope="module")
def cases(python: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return grid(tmp_path_factory.mktemp("models"), python, seed=SEED, each=EACH)


@pytest.mark.timeout(1_200)
def test_weights_and_cache_are_within_their_limits_over_the_grid(python: Path, cases: list[Case]) -> None:
    results = list(compare(python, cases))
    assert len(results) == EACH * len(TYPES)
    assert {result.case.world for result in results} == {1, 2}
    assert not [_sentence(result) for result in results if result.misses]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("model_type", STARTED)
def test_the_log_of_a_start_says_the_same(
    python: Path, cases: list[Case], shared: Path, model_type: str
) -> None:
    case = next(case for case in cases if case.model_type == model_type and case.world == 1)
    for file in (shared / "demo-model" / "hf").glob("*token*"):  # words do not matter, but vLLM wants some
        shutil.copy(file, case.model)
    tokens, at_once = said_by_a_start(python, case)
    ours = estimated(case)["tokens"]
    assert ours == pytest.approx(tokens, rel=LIMITS["tokens"])
    assert ours / case.options["context_length"] == pytest.approx(at_once, rel=LIMITS["tokens"])


def _sentence(result: Compared) -> str:
    errors = ", ".join(f"{kind} {result.error(kind):+.1%}" for kind in result.misses)
    return f"{result.case.model_type} x{result.case.world}: {errors} with {dict(result.case.options)}"

"""Benchmarks that people run by hand find what they need where the tests find it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import fit_exactness_vllm


@pytest.mark.parametrize("name", ["OSTLER_TEST_VLLM", "XDG_CACHE_HOME"])
def test_the_comparison_with_vllm_looks_where_the_tests_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr("sys.argv", ["fit_exactness_vllm"])
    with pytest.raises(SystemExit):
        fit_exactness_vllm.main()
    assert f"no environment with vLLM at {tmp_path}" in capsys.readouterr().err

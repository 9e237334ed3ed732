"""Benchmarks, which people run by hand: they find their parts, name what is missing, and lose no numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import containers, fit_exactness_vllm
from benchmarks.__main__ import kept, lacking, machine, page, rows


@pytest.mark.parametrize("name", ["OSTLER_TEST_VLLM", "XDG_CACHE_HOME"])
def test_the_comparison_with_vllm_looks_where_the_tests_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr("sys.argv", ["fit_exactness_vllm"])
    with pytest.raises(SystemExit):
        fit_exactness_vllm.main()
    assert f"no environment with vLLM at {tmp_path}" in capsys.readouterr().err


def test_a_run_of_some_parts_keeps_what_the_page_says_of_the_others(tmp_path: Path) -> None:
    results = {"fit": {"slowest": {"one_ms": 1.5}}, "dates": {"fit": "2026-01-31"}, "machine": machine()}
    (tmp_path / "page.md").write_text(page(results))
    told = kept(tmp_path / "none.json", tmp_path / "page.md")
    assert (told["fit"], told["dates"]) == (results["fit"], results["dates"])


def test_a_part_that_cannot_be_measured_names_what_is_missing_and_misses_no_goal(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    results = {"containers": containers.measure(), "dates": {}, "machine": machine()}
    assert ("containers", "dockerd: run tests/real/install.sh") in lacking(results)
    (row,) = [row for row in rows(results) if "container" in row[0]]
    assert row[-1] == "not measured"

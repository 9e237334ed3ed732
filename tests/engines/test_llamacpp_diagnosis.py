"""Why llama-server ended, by what a real one printed (tests/real/provoke_llamacpp.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from ostler.engines.llamacpp import LlamaCpp
from ostler.engines.llamacpp_diagnosis import DIAGNOSIS
from ostler.engines.registry import ENGINES

LOGS = Path(__file__).parent / "logs" / "llamacpp"

ENDS = {
    "adapter_missing": "Adapter not usable",
    "adapter_wrong": "Adapter not usable",
    "allocation_failed": "Batch too large for the memory",
    "architecture_unknown": "Architecture not supported",
    "cache_type_unknown": "Bad value",
    "chat_template_broken": "Chat template not usable",
    "chat_template_file_missing": "Bad value",
    "chat_template_unknown": "Chat template not usable",
    "context_too_large": "Context too large",
    "device_unknown": "Bad value",
    "disk_full": "Disk full",
    "draft_missing": "Drafting model not usable",
    "file_cut": "File broken",
    "file_missing": "File missing",
    "flag_unknown": "Unknown flag",
    "grammar_file_missing": "Bad value",
    "hub_absent": "Access to the repo is restricted",
    "hub_gated": "Access to the repo is restricted",
    "hub_unreachable": "No connection",
    "library_missing": "Library missing",
    "not_a_gguf": "Not a GGUF file",
    "permission_denied": "File cannot be read",
    "port_taken": "Port in use",
    "projector_broken": "Projector not usable",
    "projector_missing": "Projector not usable",
    "projector_wrong": "Projector not usable",
    "quantized_v_without_flash_attention": "Quantized cache without flash attention",
    "shard_missing": "Part missing",
    "shard_second": "Not the first part",
    "tensor_missing": "File does not fit the engine",
    "tokenizer_unknown": "Tokenizer not supported",
    "value_invalid": "Bad value",
    "value_missing": "Bad value",
}
"""What llama-server b11434 printed for each fault, and what it means."""

WARNED = {
    "context_over_training": "Context longer than trained",
    "tokenizer_unnamed": "Tokenizer not named in the file",
}
"""What it printed while it went on to serve."""


def lines_of(name: str) -> list[str]:
    return (LOGS / f"{name}.log").read_text().splitlines()


@pytest.mark.parametrize(("name", "title"), ENDS.items())
def test_a_real_end_is_explained(name: str, title: str) -> None:
    found = DIAGNOSIS.diagnose(lines_of(name), 1)
    assert found is not None and found.title == title
    assert found.line and found.fixes[0] == found.hint and found.severity == "error"


@pytest.mark.parametrize(("name", "title"), WARNED.items())
def test_a_real_warning_is_a_note_and_no_end(name: str, title: str) -> None:
    engine = LlamaCpp()
    assert engine.diagnose(lines_of(name), 0) is None
    assert [(note.title, note.severity) for note in engine.notes(lines_of(name))] == [(title, "warning")]


def test_every_captured_log_has_its_meaning() -> None:
    assert {log.stem for log in LOGS.glob("*.log")} == ENDS.keys() | WARNED.keys()


def test_no_other_engine_is_thought_of_when_one_ends() -> None:
    """Every engine has rules of its own beside those of the machine, and the names of files are told."""
    assert all(engine.known_ends.rules for engine in ENGINES)
    found = DIAGNOSIS.diagnose(lines_of("shard_missing"), 1)
    assert found is not None and "00002-of-00003" in found.reason

"""A real llama-server is brought to each of its ends, and the end is explained as the kept log of it."""

from __future__ import annotations

import shutil

import pytest

from ostler.engines.llamacpp import LlamaCpp
from tests.engines.test_llamacpp_diagnosis import ENDS, WARNED
from tests.real.provoke_llamacpp import FAULTS, program, run

pytestmark = [pytest.mark.real, pytest.mark.timeout(120)]

MOUNTS = {"disk_full"}
"""Faults that need the right to mount a small file system."""


@pytest.fixture(autouse=True)
def needs_the_program() -> None:
    if not program().exists():
        pytest.skip("llama-server is missing: run tests/real/install.sh")


def test_every_fault_has_a_meaning() -> None:
    assert FAULTS.keys() == ENDS.keys() | WARNED.keys()


@pytest.mark.parametrize(("name", "title"), ENDS.items())
def test_an_end_is_explained_as_it_happens(name: str, title: str) -> None:
    if name in MOUNTS and shutil.which("mount") is None:
        pytest.skip("mount is missing: apt install mount")
    code, lines = run(name)
    assert code, lines[-5:]
    found = LlamaCpp().diagnose(lines, code)
    assert found is not None and found.title == title, lines[-10:]


@pytest.mark.parametrize(("name", "title"), WARNED.items())
def test_a_warning_is_a_note_while_it_serves(name: str, title: str) -> None:
    code, lines = run(name)
    assert code is None
    assert [note.title for note in LlamaCpp().notes(lines)] == [title]

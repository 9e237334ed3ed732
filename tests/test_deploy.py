"""What `deploy/` ships is safe by default and names what is really there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ostler.core.settings import DEFAULT_PORT, Settings, environment_names

DEPLOY = Path(__file__).parents[1] / "deploy"
DOCKERFILES = sorted(DEPLOY.rglob("Dockerfile"))


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_an_image_does_not_run_as_root(path: Path) -> None:
    users = re.findall(r"^USER (\S+)", path.read_text(), re.MULTILINE)
    assert users
    assert users[-1] not in ("root", "0", "0:0")


def test_what_an_image_copies_is_there() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    sources = [source for line in copied for source in line.split()]
    assert sources
    for source in sources:
        assert (DEPLOY.parent / source).exists(), source
        assert f"!{source.split('/')[0]}" in (DEPLOY.parent / ".dockerignore").read_text().split()


def test_a_published_port_is_on_loopback() -> None:
    ports = re.findall(r'^\s+- "([\d.:]+)"$', (DEPLOY / "compose.yaml").read_text(), re.MULTILINE)
    assert ports == [f"127.0.0.1:{DEFAULT_PORT}:{DEFAULT_PORT}"]


def test_model_files_are_mounted_read_only() -> None:
    mounts = re.findall(r"^\s+- (\$\{MODELS_DIR.+)$", (DEPLOY / "compose.yaml").read_text(), re.MULTILINE)
    assert len(mounts) == 2
    assert all(mount.endswith(":ro") for mount in mounts)


def test_every_variable_that_is_set_is_a_setting() -> None:
    known = {name for setting in Settings.model_fields for name in environment_names(setting)}
    for file in [*DOCKERFILES, DEPLOY / "compose.yaml"]:
        for variable in re.findall(r"\b(OSTLER_[A-Z_]+)[=:] ?", file.read_text()):
            assert variable in known, f"{file}: {variable}"

"""The dialects that this server speaks."""

from __future__ import annotations

from ostler.api.dialects.base import Dialect
from ostler.api.dialects.bodhi.mounted import BODHI
from ostler.api.dialects.cortex.mounted import CORTEX
from ostler.api.dialects.llamactl.mounted import LLAMACTL
from ostler.api.dialects.ollama.mounted import OLLAMA

DIALECTS: tuple[Dialect, ...] = (CORTEX, LLAMACTL, OLLAMA, BODHI)


def is_spoken(path: str) -> bool:
    """True for a path that belongs to a dialect, also where it lies under `/v1/`."""
    return any(dialect.owns(path) for dialect in DIALECTS)


def takes_files(path: str) -> bool:
    """True where whole files come in, of any size."""
    return any(dialect.takes_files(path) for dialect in DIALECTS)

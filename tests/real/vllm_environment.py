"""Where the virtual environment with vLLM is, for tests and benchmarks alike."""

from __future__ import annotations

import os
from pathlib import Path


def vllm_environment() -> Path:
    """OSTLER_TEST_VLLM, or where tests/real/install.sh puts it; whether it is there is another question."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(os.environ.get("OSTLER_TEST_VLLM") or cache / "ostler-tests" / "venv-vllm-0.32.0")


def is_complete(environment: Path) -> bool:
    """True once everything in it was installed."""
    return (environment / ".complete").exists()

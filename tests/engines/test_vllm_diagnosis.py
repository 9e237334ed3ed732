"""Why vLLM ended, by what a real one printed (tests/real/provoke_vllm.py) or by its source."""

from __future__ import annotations

from pathlib import Path

LOGS = Path(__file__).parent / "logs" / "vllm"

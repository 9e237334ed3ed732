"""Asking an executable which devices it sees."""

from __future__ import annotations

import sys

import pytest

from ostler.engines.probe import Prober, read_devices


@pytest.mark.parametrize(
    ("text", "sees"),
    [
        ("Available devices:\n  (none)\n", False),
        (
            "ggml_cuda_init: found 1\nAvailable devices:\n  CUDA0: NVIDIA L4 (22700 MiB, 22500 MiB free)\n",
            True,
        ),
        ("error: unknown argument: --list-devices\n", None),
        (None, None),
    ],
)
def test_whether_a_program_sees_gpus_is_read_from_its_list_of_devices(
    text: str | None, sees: bool | None
) -> None:
    assert read_devices(text) is sees


async def test_the_built_in_engine_says_which_devices_it_sees() -> None:
    assert await Prober().sees_gpus((sys.executable, "-m", "ostler.engines.llama_server")) is False

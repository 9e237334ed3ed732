"""What the tests of the hub room share: a Hub of the product pointed at a test hub."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ostler.core.settings import Settings
from ostler.hub import Hub
from ostler.hub.calls import Patience
from tests.hub.repos import HubRepo
from tests.hub.server import HubServer

MakeHub = Callable[..., Hub]

NO_PAUSES = Patience(silence_s=5.0, total_s=10.0, pauses_s=(0.0, 0.0))


@pytest.fixture
def make_hub(hub_server: HubServer, tmp_path: Path) -> MakeHub:
    """A Hub with these settings (`hf_token="..."`), without a token file unless it is given."""

    def make(
        *, patience: Patience = NO_PAUSES, token_file: Path = tmp_path / "no-token", **settings: Any
    ) -> Hub:
        values = {"hf_endpoint": hub_server.endpoint, **settings}
        return Hub(Settings(**values), token_file=token_file, patience=patience)

    return make


@pytest.fixture
def hub(make_hub: MakeHub) -> Hub:
    """A Hub without a token."""
    return make_hub()


@pytest.fixture
def repo(hub_server: HubServer) -> HubRepo:
    return hub_server.add_repo(
        "org/tiny-GGUF",
        {"tiny-Q4_K_M.gguf": b"four", "tiny-Q8_0.gguf": b"eight", "README.md": b"# Tiny"},
        downloads=12,
        likes=3,
        tags=("llama",),
    )

"""Log lines are readable, machine-readable on demand, and hold no secret."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from ostler.core.logs import hide_secrets, set_up_logging


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.parametrize(
    "secret",
    ["ostler-" + "k" * 43, "hf_abcdefghijklmnopqrstu", "sk-proj-abcdefghijklmnopqrstu"],
)
def test_keys_and_tokens_are_hidden(secret: str) -> None:
    assert secret not in hide_secrets(f"used {secret} and Authorization: Bearer {secret}.")
    assert "s3cret" not in hide_secrets("postgresql+psycopg://ostler:s3cret@db/ostler is down")


@pytest.mark.usefixtures("restored_logging")
def test_machines_get_one_json_object_per_line_with_the_extra_facts() -> None:
    stream = io.StringIO()
    set_up_logging("info", "json", stream)
    logging.getLogger("ostler.instances").info("it %s", "runs", extra={"model": "qwen"})
    entry = json.loads(stream.getvalue())
    assert entry["message"] == "it runs" and entry["model"] == "qwen" and entry["level"] == "info"


@pytest.mark.usefixtures("restored_logging")
def test_people_get_time_level_room_and_message() -> None:
    stream = io.StringIO()
    set_up_logging("info", "text", stream)
    logging.getLogger("ostler.instances").warning("it stopped")
    logging.getLogger("ostler.instances").debug("a detail")
    assert stream.getvalue().endswith("WARNING instances: it stopped\n")
    assert "a detail" not in stream.getvalue()

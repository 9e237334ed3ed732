"""Bodies that make no sense are refused in Ollama's shape, and never end in a failure of ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.serving import ServerProcess

pytestmark = pytest.mark.real

PATHS = ("chat", "generate", "embed", "embeddings", "show", "pull", "push", "create", "copy", "delete")
NOT_HERE = {501, 503, 507}
"""What is known and cannot be done: pushing, asking a hub while offline."""

NAMES = (
    *("model", "name", "messages", "prompt", "suffix", "system", "template", "context", "raw", "images"),
    *("stream", "format", "options", "keep_alive", "think", "logprobs", "top_logprobs", "tools", "input"),
    *("truncate", "dimensions", "from", "files", "adapters", "parameters", "source", "destination"),
    *("insecure", "license", "quantize", "modelfile", "other"),
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=20)
    | st.sampled_from(["demo", "sha256:" + "a" * 64, "-1", "5m", "../../etc/passwd", "hf.co/a/b:c", "\ud800"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "images", "tool_calls", "function", "num_ctx", "stop"])
            | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)
HUGE_NAME = b'{"model": "' + b"x" * 2_000_000 + b'"}'
BODIES = st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=8)
SENSIBLE = st.fixed_dictionaries(
    {"model": st.just("demo"), "options": st.just({"num_predict": 1})},
    optional={name: VALUES for name in NAMES if name not in ("model", "options")},
)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, demo_model: Path) -> Iterator[httpx2.Client]:
    folder = tmp_path_factory.mktemp("fuzzed")
    (folder / "data" / "models").mkdir(parents=True)
    shutil.copy(demo_model, folder / "data" / "models" / "demo.gguf")
    server = ServerProcess(folder / "data", environment={"HOME": str(folder)}).start()
    server.ask("/ostler/v1/models", {"name": "demo", "source": {"path": "demo.gguf"}})
    with httpx2.Client(base_url=server.url, timeout=60) as client:
        yield client
    server.end_everything()


def check(client: httpx2.Client, path: str, content: bytes) -> None:
    method = "DELETE" if path == "delete" else "POST"
    answer = client.request(method, f"/api/{path}", content=content)
    assert answer.status_code < 500 or answer.status_code in NOT_HERE, (path, content[:300], answer.text)
    if answer.status_code >= 400:
        assert list(answer.json()) == ["error"] and answer.json()["error"], answer.text
    if b'"demo"' in content and path == "delete":  # it did what it was told: put it back
        client.post("/ostler/v1/models", json={"name": "demo", "source": {"path": "demo.gguf"}})


@pytest.mark.parametrize("path", PATHS)
def test_no_body_ends_in_a_failure_of_ours(client: httpx2.Client, path: str) -> None:
    @given(body=BODIES | SENSIBLE | VALUES)
    @settings(max_examples=40, deadline=None, database=None, derandomize=True,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    def tried(body: Any) -> None:
        check(client, path, json.dumps(body).encode())

    tried()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe", b"NaN", b'{"model": NaN}', b"[" * 100_000, HUGE_NAME,
     b'{"model": "demo", "options": {"seed": 1e999}}', b'{"model": "demo\\u0000"}', b"\x1f\x8b"],
    ids=["empty", "half", "no text", "nan", "nan inside", "deep", "huge name", "infinite", "nul", "packed"],
)  # fmt: skip
def test_what_is_no_json_or_too_large_is_refused(client: httpx2.Client, path: str, content: bytes) -> None:
    check(client, path, content)


def test_a_body_over_the_limit_is_refused(client: httpx2.Client) -> None:
    for path in ("chat", "show"):
        answer = client.post(f"/api/{path}", content=b'{"model": "' + b"x" * (65 * 1024 * 1024) + b'"}')
        assert answer.status_code == 413 and list(answer.json()) == ["error"]

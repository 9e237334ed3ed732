"""Cortex's own web frontend, page by page: every call that it makes, with what it sends and what it reads.

Written from shared/reference/cortex.md (1: paths, 8: pages). The frontend is served from another port, signs
in with a cookie, sends its `Origin`, and knows neither a key nor a CSRF token. The server here is one that
others can reach, so nothing is allowed but what the cookie allows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import PROCESSES
from tests.conformance.cortex_client import Answer, CortexClient
from tests.conformance.cortex_house import CortexHouse

pytestmark = pytest.mark.real

ORIGIN = "http://frontend.test:3001"
WHO = {"username": "owner", "password": "a long password"}
NOW_AND_THEN = ("id", "name", "served_model_name", "task", "engine_type", "state", "archived", "port")
OF_MODELS = (
    *NOW_AND_THEN,
    *("container_name", "mode", "repo_id", "local_path", "dtype", "tp_size", "gpu_memory_utilization"),
    *("max_model_len", "selected_gpus", "tokenizer", "hf_config_path", "quantization", "kv_cache_dtype"),
    *("enforce_eager", "ngl", "tensor_split", "batch_size", "threads", "context_size", "parallel_slots"),
    *("flash_attention", "mlock", "no_mmap", "numa_policy", "split_mode", "cache_type_k", "cache_type_v"),
    *("engine_image", "engine_startup_args_json", "engine_startup_env_json", "request_defaults_json"),
    *("custom_request_json", "startup_timeout_sec", "request_timeout_sec", "stream_timeout_sec"),
)
OF_ESTIMATES = (
    *("params_b", "model_weights_gb", "kv_cache_gb", "overhead_gb", "total_per_gpu_gb", "required_vram_gb"),
    *("gpu_count", "note"),
)
OF_GROUPS = (
    *("quant_type", "display_name", "files", "full_paths", "is_multipart", "expected_parts", "actual_parts"),
    *("total_size_mb", "status", "can_use", "warning", "is_recommended"),
    *("metadata.architecture", "metadata.context_length", "metadata.block_count"),
)
OF_UPSTREAMS = ("last_status_code", "last_latency_ms", "consecutive_fails", "history", "served_names")
OF_SAMPLES = (
    "num_requests_running",
    "num_requests_waiting",
    "prompt_tokens_total",
    "generation_tokens_total",
)
FORM = {
    "mode": "offline",
    "repo_id": "",
    "local_path": "demo/demo-Q8_0.gguf",
    "name": "Demo model",
    "served_model_name": "demo",
    "task": "generate",
    "engine_type": "llamacpp",
    "tp_size": 1,
    "gpu_memory_utilization": 0.9,
    "hf_offline": True,
    "context_size": 512,
    "parallel_slots": 1,
    "temperature": 0.8,
    "top_p": 0.9,
    "top_k": 40,
    "repetition_penalty": 1.2,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
}
"""What the wizard's last step sends: every field that it shows, wanted or not."""


@dataclass(frozen=True)
class Call:
    """One call of a page. `reads` are dotted names in the answer, or in each entry of a list of them."""

    method: str
    path: str
    body: Any = None
    query: Mapping[str, Any] = field(default_factory=dict)
    reads: tuple[str, ...] = ()
    status: int = 200


def get(path: str, *reads: str, **query: Any) -> Call:
    return Call("GET", path, None, query, reads)


def post(path: str, body: Any = None, *reads: str, **query: Any) -> Call:
    return Call("POST", path, body, query, reads)


SIGNING_IN = (
    post("/auth/login", WHO, "status", "user.username", "user.role"),
    get("/auth/me", "username", "role"),
)
CHOOSING = (  # the wizard's steps before there is a model
    get("/admin/models", *OF_MODELS),
    get("/admin/system/gpus", "index", "name", "mem_used_mb", "mem_total_mb", "flash_attention_supported"),
    get("/admin/models/base-dir", "base_dir"),
    Call("PUT", "/admin/models/base-dir", {"base_dir": "BASE"}, reads=("base_dir",)),
    get("/admin/models/local-folders", base="BASE"),
    get(
        "/admin/models/inspect-folder",
        *("has_safetensors", "gguf_files", "gguf_groups", "tokenizer_files", "config_files", "warnings"),
        *(
            "params_b",
            "hidden_size",
            "num_hidden_layers",
            "num_attention_heads",
            "gguf_validation.valid_files",
        ),
        *(
            "engine_recommendation.recommended",
            "engine_recommendation.reason",
            "engine_recommendation.options",
        ),
        base="BASE",
        folder="demo",
    ),
    get(
        "/admin/models/inspect-folder",
        *("safetensor_info.total_size_gb", "safetensor_info.file_count", "safetensor_info.architecture"),
        base="BASE",
        folder="hf",
    ),
    Call("GET", "/admin/models/hf-config", None, {"repo_id": "org/name"}, status=503),  # without a network
    post("/admin/models", FORM, "id"),
)
RUNNING = (  # the page of models, and its dialogs
    post("/admin/models/ID/dry-run", None, "command", "command_str", "valid", "warnings", "vram_estimate"),
    post("/admin/models/ID/start", None, "status", "container", "port"),
    get("/admin/models/ID/readiness", "status", "detail"),
    get("/admin/models", *OF_MODELS),
    get("/admin/models/ID/logs"),
    get("/admin/models/ID/logs", "logs", "diagnosis", "summary", "state", diagnose="true"),
    post(
        "/admin/models/ID/test",
        None,
        *("success", "test_type", "request", "response.choices", "error", "latency_ms", "timestamp"),
    ),
    Call("PATCH", "/admin/models/ID", {"temperature": 0.1, "context_size": 1024}, reads=("status",)),
    post("/admin/models/ID/apply", None, "status", "container", "port"),
)
RECIPES = (
    post("/admin/recipes/from-model/ID", {"name": "kept", "description": "as it runs"}, "id", "name"),
    get("/admin/recipes", "id", "name", "description", "engine_type", "task", limit=100, offset=0),
    get("/admin/recipes/1", "name", "context_size", "ngl", "local_path", "engine_type", "temperature"),
    Call("PATCH", "/admin/recipes/1", {"description": "changed"}, reads=("name", "description")),
    Call("DELETE", "/admin/recipes/1"),
)
HEALTH = (
    get(
        "/admin/upstreams",
        "circuit_breakers",
        "health",
        "meta",
        "registry",
        "lb_index",
        "now",
        "health_ttl_sec",
    ),
    post("/admin/upstreams/refresh-health", {}, "results"),
    get("/v1/models/status", "data"),
)
SYSTEM = (
    get("/admin/system/summary", "cpu_count", "load_avg_1m", "mem_total_mb", "disk_total_gb", "gpus"),
    get("/admin/system/throughput", "req_per_sec", "prompt_tokens_per_sec", "latency_p50_ms", "ttft_p95_ms"),
    get("/admin/system/host/summary", "cpu_util_pct", "mem_used_mb", "disk_used_pct", "net_rx_bps"),
    get(
        "/admin/system/host/trends", "cpu_util_pct", "cpu_per_core_pct", "disk_rw_bps", minutes=15, step_s=15
    ),
    get("/admin/system/capabilities", "os", "isContainer", "isWSL", "gpu.count", "selectedProviders.host"),
    get(
        "/admin/system/docker-images",
        *("offline_mode", "offline_ready", "engines.vllm.image", "engines.llamacpp.cached", "infrastructure"),
        *("summary", "recommendations"),
    ),
    get(
        "/admin/models/metrics",
        *("model_id", "model_name", "served_name", "status", "error", *OF_SAMPLES),
        *("time_to_first_token_p50_ms", "request_latency_p95_ms", "gpu_cache_usage_pct"),
    ),
)
PLAYGROUND = (
    get("/v1/models/running", "served_model_name", "task", "engine_type", "state"),
    get(
        "/v1/models/demo/constraints",
        *("context_size", "max_model_len", "max_tokens_default", "request_defaults", "supports_streaming"),
    ),
    post(
        "/v1/chat/sessions",
        {"model_name": "demo", "engine_type": "llamacpp", "constraints": {"context_size": 512}},
        *("id", "title", "model_name", "engine_type", "messages"),
    ),
    post(
        "/v1/chat/sessions/CHAT/messages", {"role": "user", "content": "Hi there"}, "id", "role", "timestamp"
    ),
    post(
        "/v1/chat/completions",
        {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8},
        "choices",
        "usage",
    ),
    post(
        "/v1/chat/sessions/CHAT/messages",
        {"role": "assistant", "content": "Hello", "metrics": {"tok_per_s": 9.5, "ttft_ms": 12}},
        "id",
    ),
    get("/v1/chat/sessions", "id", "title", "model_name", "message_count", "updated_at"),
    get("/v1/chat/sessions/CHAT", "messages", "title"),
    Call("DELETE", "/v1/chat/sessions/CHAT", reads=("status",)),
    Call("DELETE", "/v1/chat/sessions", reads=("status", "deleted_count")),
)
USAGE = (
    get(
        "/admin/usage",
        "created_at",
        "model_name",
        "task",
        "total_tokens",
        "latency_ms",
        "status_code",
        limit=50,
    ),
    get("/admin/usage", hours=24, task="chat", status="2xx", model="demo", limit=50, offset=0),
    get("/admin/usage/aggregate", "model_name", "requests", "total_tokens", hours=24),
    get("/admin/usage/series", "ts", "requests", "total_tokens", hours=24, bucket="hour"),
    get("/admin/usage/series", "ts", "requests", hours=168, bucket="day"),
    get("/admin/usage/latency", "p50_ms", "p95_ms", "avg_ms", hours=24),
    get("/admin/usage/ttft", "p50_s", "p95_s", hours=24),
    get("/admin/usage/export", hours=24),
)
ACCESS = (
    post("/admin/orgs", {"name": "Inn"}, "id", "name", "created_at"),
    get("/admin/orgs", "id", "name", "created_at"),
    get("/admin/orgs/lookup", "id", "name"),
    Call("PATCH", "/admin/orgs/1", {"name": "Yard"}, reads=("name",)),
    post("/admin/users", {**WHO, "username": "ada", "role": "User", "org_id": 1}, "id", "username", "role"),
    get("/admin/users", "id", "username", "role", "org_id", "status", "created_at", sort="created_at:desc"),
    get("/admin/users/lookup", "id", "username"),
    Call("PATCH", "/admin/users/2", {"status": "disabled"}, reads=("status",)),
    post(
        "/admin/keys",
        {"scopes": "chat", "user_id": 2, "org_id": 1, "ip_allowlist": ""},
        "id",
        "prefix",
        "token",
    ),
    get(
        "/admin/keys",
        *("id", "prefix", "scopes", "expires_at", "last_used_at", "disabled", "user_id", "org_id"),
        *("created_at", "username", "org_name"),
    ),
    Call("DELETE", "/admin/keys/2", reads=("status",)),
    post("/admin/me/keys", {"scopes": "chat"}, "token"),
    get("/admin/me/keys", "id", "prefix", "scopes"),
    Call("DELETE", "/admin/users/2", reads=("status",)),
    Call("DELETE", "/admin/orgs/1", reads=("status",)),
)
ENDING = (
    post("/admin/models/ID/stop", None, "status"),
    post("/admin/models/ID/archive", None, "status"),
    Call("PATCH", "/admin/models/ID", {"archived": False}, reads=("status",)),
    Call("DELETE", "/admin/models/ID", reads=("status", "files_preserved", "recipes_deleted", "note")),
)
DEPLOYMENT = tuple(  # a page that is not served; docs/cortex.md says what there is instead
    Call("GET", f"/admin/deployment/{name}", status=404, reads=("error.message",))
    for name in ("options", "status", "jobs", "model-manifests")
)
SIGNING_OUT = (
    post("/auth/logout", None, "status"),
    Call("GET", "/auth/me", status=401, reads=("error.message",)),
)


@pytest.fixture
def house(tmp_path: Path, demo_model: Path) -> Iterator[CortexHouse]:
    """A server that others can reach, for pages of another origin; its owner is made by its first key."""
    settings = {"OSTLER_HOST": "0.0.0.0", "OSTLER_ALLOWED_ORIGINS": ORIGIN}
    house = CortexHouse(tmp_path, demo_model, {**PROCESSES, **settings})
    said = house.server.process.stdout if house.server.process else None
    assert said is not None and "shown only now" in said.readline()
    owner = CortexClient(house.server.url, Authorization=f"Bearer {said.readline().strip()}")
    assert owner.good("POST", "/admin/bootstrap-owner", {**WHO, "org_name": ""})["status"] == "ok"
    yield house
    house.server.end_everything()
    house.assert_untouched()


class Frontend:
    """The pages in a browser: the cookie of the last sign-in, and what they learnt of ids."""

    def __init__(self, house: CortexHouse) -> None:
        self.client = CortexClient(house.server.url, Origin=ORIGIN)
        self.words = {"BASE": str(house.models_dir)}

    def walk(self, *calls: Call) -> Answer:
        """Make the calls in their order; each must be answered as the page expects it. The last answer."""
        for call in calls:
            body = json.loads(self._filled(json.dumps(call.body)))
            query = {name: self._filled(str(value)) for name, value in call.query.items()}
            answer = self.client(call.method, self._filled(call.path), body, **query)
            assert answer.status == call.status, f"{call}: {answer.status} {answer.body}"
            for name in call.reads:
                assert_has(answer.body, name, call)
            self._learn(call, answer)
        return answer

    def _learn(self, call: Call, answer: Answer) -> None:
        if call.path == "/auth/login":
            self.client.headers = {
                **self.client.headers,
                "Cookie": answer.headers["set-cookie"].partition(";")[0],
            }
        elif (call.method, call.path) == ("POST", "/admin/models"):
            self.words["ID"] = str(answer.body["id"])
        elif (call.method, call.path) == ("POST", "/v1/chat/sessions"):
            self.words["CHAT"] = answer.body["id"]

    def _filled(self, text: str) -> str:
        for word, value in self.words.items():
            text = text.replace(word, value)
        return text


def assert_has(found: Any, name: str, call: Call) -> None:
    """The answer, or each entry of a list that is one, has that name; an empty list has nothing to miss."""
    for part in name.split("."):
        if isinstance(found, list):
            assert all(part in entry for entry in found), f"{call} reads {name} of {found}"
            return
        assert isinstance(found, dict) and part in found, f"{call} reads {name} of {found}"
        found = found[part]


def test_every_page_finds_what_it_reads(house: CortexHouse) -> None:
    pages = Frontend(house)
    assert pages.client("GET", "/admin/models").status == 401, "nobody is signed in yet"
    me = pages.walk(*SIGNING_IN)
    assert (me.body, me.headers["access-control-allow-credentials"]) == (
        {"username": "owner", "role": "Admin"},
        "true",
    )
    pages.walk(*CHOOSING)
    number = int(pages.words["ID"])
    groups = pages.client.get("/admin/models/inspect-folder", base=pages.words["BASE"], folder="demo")
    for name in OF_GROUPS:
        assert_has(groups["gguf_groups"][0], name, CHOOSING[5])
    dry, start, *others = RUNNING
    for name in OF_ESTIMATES:
        assert_has(pages.walk(dry).body["vram_estimate"], name, dry)
    assert pages.walk(start).body["status"] in ("starting", "loading", "running")
    pages.client.until_state(number, "running")
    pages.walk(*others)
    pages.client.until(number, lambda state: state == "running")
    pages.walk(*RECIPES)
    (meta,) = pages.walk(HEALTH[0]).body["meta"].values()
    for name in OF_UPSTREAMS:
        assert_has(meta, name, HEALTH[0])
    pages.walk(*HEALTH, *SYSTEM, *PLAYGROUND)
    completions = {"model": "demo", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8}
    asked = pages.client("POST", "/v1/chat/completions", completions)
    assert (asked.status, asked.headers["access-control-allow-credentials"]) == (200, "true")
    *pieces, end = pages.client.streamed("/v1/chat/completions", completions)
    assert end == "[DONE]" and json.loads(pieces[0])["choices"]
    pages.walk(*USAGE, *ACCESS, *ENDING, *DEPLOYMENT)
    assert pages.client.models() == {}
    pages.walk(SIGNING_OUT[0])
    pages.client.headers = {"Origin": ORIGIN}  # the browser has forgotten its cookie
    pages.walk(SIGNING_OUT[1])


def test_a_page_of_another_origin_gets_nothing_done(house: CortexHouse) -> None:
    pages = Frontend(house)
    pages.walk(*SIGNING_IN)
    number = pages.client.create(**FORM)
    pages.client.headers = {**pages.client.headers, "Origin": "http://elsewhere.test"}
    for method, path, body in (
        ("POST", f"/admin/models/{number}/start", None),
        ("DELETE", f"/admin/models/{number}", None),
        ("POST", "/v1/chat/completions", {"model": "demo", "messages": [{"role": "user", "content": "Hi"}]}),
    ):
        refused = pages.client(method, path, body)
        assert refused.status in (401, 403), refused.body
        assert "access-control-allow-credentials" not in {name.lower() for name in refused.headers}
    pages.client.headers["Origin"] = ORIGIN
    assert pages.client.state(number) == "stopped"

"""Every field of a model goes through our record and comes back as it was sent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ostler.api.dialects.cortex.fields import FIELDS, LLAMACPP, VLLM, fields_of
from ostler.core.principals import LOCAL_ADMIN
from tests.api.conftest import Api, MakeApi
from tests.library.gguf_files import write_safetensors

MODELS = "//admin/models"
SECRET = "hf_abcdefsecret"

COMMON: dict[str, Any] = {
    "mode": "offline",
    "name": "A title with blanks",
    "served_model_name": "served",
    "task": "generate",
    "selected_gpus": [1, 0],
    "engine_image": "registry.local/engine:1.2",
    "engine_version": "1.2.3",
    "engine_digest": "sha256:0123",
    "hf_offline": True,
    "startup_timeout_sec": 900,
    "request_timeout_sec": 45,
    "stream_timeout_sec": 12.5,
    "engine_startup_args_json": '[{"flag": "--seed",  "type": "int", "value": -5}, '
    '{"flag": "--off", "type": "bool", "value": false}]',
    "engine_startup_env_json": '[{"key": "A", "value": "b c"}]',
    "custom_request_json": '{"min_p":  0.05, "stop": ["END"]}',
    "request_defaults_json": '{"seed": 7}',
    "temperature": 0.0,
    "top_p": 0.9,
    "top_k": 40,
    "repetition_penalty": 1.2,
    "frequency_penalty": 0.5,
    "presence_penalty": -0.5,
    "system_prompt": "Be brief.",
}
OF_ENGINE: dict[str, dict[str, Any]] = {
    VLLM: {
        "tp_size": 2,
        "gpu_memory_utilization": 0.8,
        "dtype": "bfloat16",
        "max_model_len": 4096,
        "tokenizer": "org/tokenizer",
        "hf_config_path": "org/config",
        "trust_remote_code": True,
        "kv_cache_dtype": "fp8",
        "max_num_batched_tokens": 8192,
        "quantization": "awq",
        "block_size": 16,
        "swap_space_gb": 4.0,
        "enforce_eager": False,
        "cpu_offload_gb": 2.0,
        "enable_prefix_caching": False,
        "prefix_caching_hash_algo": "sha256",
        "enable_chunked_prefill": True,
        "max_num_seqs": 64,
        "cuda_graph_sizes": "1,2, 4",
        "pipeline_parallel_size": 1,
        "device": "cuda",
        "attention_backend": "FLASH_ATTN",
        "disable_log_requests": True,
        "disable_log_stats": False,
        "vllm_v1_enabled": True,
        "gguf_weight_format": "auto",
        "entrypoint_override": "python3,-m,vllm.entrypoints.openai.api_server",
        "debug_logging": False,
        "trace_mode": True,
        "engine_request_timeout": 60,
        "max_log_len": 200,
    },
    LLAMACPP: {
        "ngl": 0,
        "tensor_split": "0.50,0.5",
        "split_mode": "layer",
        "batch_size": 256,
        "ubatch_size": 128,
        "threads": 2,
        "context_size": 1024,
        "parallel_slots": 2,
        "rope_freq_base": 10000.0,
        "rope_freq_scale": 1.0,
        "flash_attention": False,
        "mlock": True,
        "no_mmap": False,
        "numa_policy": "distribute",
        "cache_type_k": "f16",
        "cache_type_v": "f16",
        "draft_model_path": "/models/draft.gguf",
        "draft_n": 8,
        "draft_p_min": 0.5,
        "verbose_logging": False,
        "check_tensors": True,
        "skip_warmup": True,
        "chat_template": "chatml",
        "chat_template_file": "templates/a.jinja",
        "jinja_enabled": False,
        "defrag_thold": 0.1,
        "lora_adapters_json": '[{"path": "lora/a.gguf", "scale": 0.5}, {"path": "lora/b.gguf"}]',
        "lora_init_without_apply": True,
        "grammar_file": "grammars/json.gbnf",
        "enable_embeddings": False,
        "cont_batching": False,
    },
}


@pytest.fixture
def places(api: Api, model_file: Path) -> dict[str, str]:
    """Where each engine's model lies in the models folder."""
    folder = model_file.parent / "org" / "tensors"
    write_safetensors(folder / "model.safetensors", {"a": ("BF16", (8, 8))})
    (folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    return {VLLM: "org/tensors", LLAMACPP: model_file.name}


async def made(api: Api, body: dict[str, Any]) -> int:
    answer = await api.post(MODELS, body)
    assert answer.status_code == 200, answer.text
    number: int = answer.json()["id"]
    return number


async def item(api: Api, number: int) -> dict[str, Any]:
    found: dict[str, Any] = (await api.get(f"{MODELS}/{number}")).json()
    return found


async def whole(api: Api, places: dict[str, str], engine: str) -> tuple[int, dict[str, Any]]:
    """A model with a value in every field."""
    body = {**COMMON, **OF_ENGINE[engine], "engine_type": engine, "local_path": places[engine]}
    assert body.keys() | {"hf_token", "repo_id"} == {field.name for field in fields_of(engine)}
    return await made(api, {**body, "hf_token": SECRET}), body


def differing(shown: dict[str, Any], sent: dict[str, Any]) -> dict[str, Any]:
    return {name: (shown[name], value) for name, value in sent.items() if shown[name] != value}


@pytest.mark.parametrize("engine", [VLLM, LLAMACPP])
async def test_every_field_comes_back_as_it_was_sent(api: Api, places: dict[str, str], engine: str) -> None:
    number, sent = await whole(api, places, engine)
    shown = await item(api, number)
    assert shown.keys() >= {field.name for field in FIELDS}
    if engine == LLAMACPP:
        assert shown["tp_size"] == 2  # as many as tensor_split has
    assert differing(shown, sent) == {}
    assert shown["state"] == "stopped" and shown["archived"] is False
    assert shown["port"] is None and shown["container_name"] is None
    assert (await api.get(MODELS)).json() == [shown]


@pytest.mark.parametrize("engine", [VLLM, LLAMACPP])
async def test_a_change_of_one_field_changes_no_other(api: Api, places: dict[str, str], engine: str) -> None:
    number, sent = await whole(api, places, engine)
    others = {**OF_ENGINE[engine], **COMMON, "temperature": 0.4, "name": "Another", "ngl": 7, "mlock": False}
    for field in fields_of(engine):
        if not field.can_change or field.name not in others:
            continue
        answer = await api("PATCH", f"{MODELS}/{number}", {field.name: others[field.name]})
        assert answer.json() == {"status": "ok"}, answer.text
    sent |= {name: others[name] for name in ("temperature", "name")}
    if engine == LLAMACPP:
        sent |= {"ngl": 7, "mlock": False}
    sent.pop("request_defaults_json")  # the others were sent after it, and it is made of them
    shown = await item(api, number)
    assert differing(shown, {**sent, "custom_request_json": shown["custom_request_json"]}) == {}
    assert api.services.models.get(number).env["HF_TOKEN"] == SECRET


async def test_null_takes_a_value_away_and_nothing_else(api: Api, places: dict[str, str]) -> None:
    number, sent = await whole(api, places, LLAMACPP)
    for name in ("ngl", "hf_token", "selected_gpus", "temperature", "lora_adapters_json", "engine_image"):
        assert (await api("PATCH", f"{MODELS}/{number}", {name: None})).status_code == 200
        sent[name] = None
    del sent["request_defaults_json"]
    assert differing(await item(api, number), sent) == {}
    model = api.services.models.get(number)
    assert "HF_TOKEN" not in model.env and "gpu_layers" not in model.options and model.env["A"] == "b c"


async def test_values_live_in_our_record_under_our_names(api: Api, places: dict[str, str]) -> None:
    number, _ = await whole(api, places, LLAMACPP)
    model = api.services.models.get(number)
    models_dir = model_dir(api)
    assert model.options["gpu_layers"] == 0 and model.options["flash_attention"] == "off"
    assert model.options["load_mode"] == "mmap+mlock" and model.options["warmup"] is False
    assert model.options["draft_model"] == f"{models_dir}/draft.gguf"
    assert model.options["lora_scaled"] == [f"{models_dir}/lora/a.gguf:0.5"]
    assert model.options["spec_draft_n_max"] == 8
    assert model.policy.devices == ("cuda:1", "cuda:0") and model.policy.start_timeout_s == 900
    assert (model.policy.request_timeout_s, model.policy.stream_timeout_s) == (45, 12.5)
    assert model.runtime_options == {"image": "registry.local/engine:1.2"}
    assert model.request_defaults["repeat_penalty"] == 1.2 and model.request_defaults["min_p"] == 0.05
    assert model.request_defaults["seed"] == 7
    assert model.extra_args == ("--seed", "-5") and model.env == {"HF_TOKEN": SECRET, "A": "b c"}
    assert model.origin == "cortex" and model.runtime == "docker" and not model.policy.on_demand


async def test_what_vllm_has_dropped_is_kept_in_the_record(api: Api, places: dict[str, str]) -> None:
    number, _ = await whole(api, places, VLLM)
    options = api.services.models.get(number).options
    assert options["swap_space_gb"] == 4.0 and options["enable_log_requests"] is False
    assert options["cudagraph_capture_sizes"] == [1, 2, 4] and options["vllm_v1_enabled"] is True


async def test_the_trace_mode_also_waits_for_every_kernel(api: Api, places: dict[str, str]) -> None:
    body = {"mode": "offline", "local_path": places[VLLM], "served_model_name": "v", "trace_mode": True}
    number = await made(api, body)
    dry = (await api.post(f"{MODELS}/{number}/dry-run")).json()
    assert {"VLLM_TRACE_FUNCTION": "1", "CUDA_LAUNCH_BLOCKING": "1"}.items() <= dry["environment"].items()
    assert any("CUDA_LAUNCH_BLOCKING=1" in warning["message"] for warning in dry["warnings"])
    await api("PATCH", f"{MODELS}/{number}", {"trace_mode": False})
    assert (await item(api, number))["trace_mode"] is False
    options = api.services.models.get(number).options
    assert options["trace_functions"] is False and "cuda_launch_blocking" not in options


async def test_cpu_alone_keeps_it_off_the_gpus(api: Api, places: dict[str, str]) -> None:
    body = {"mode": "offline", "local_path": places[VLLM], "served_model_name": "v", "device": "cpu"}
    number = await made(api, {**body, "selected_gpus": [0]})
    assert api.services.models.get(number).policy.devices == ("cpu",)
    shown = await item(api, number)
    assert (shown["device"], shown["selected_gpus"]) == ("cpu", [0])


@pytest.mark.parametrize("engine", [VLLM, LLAMACPP])
async def test_the_task_embed_makes_the_engine_embed(api: Api, places: dict[str, str], engine: str) -> None:
    number = await made(
        api,
        {
            "mode": "offline",
            "local_path": places[engine],
            "engine_type": engine,
            "task": "embed",
            "name": "e",
        },
    )
    options = api.services.models.get(number).options
    assert options.get("embeddings", options.get("runner")) in (True, "pooling")
    assert (await item(api, number))["task"] == "embed"


async def test_no_answer_shows_a_secret(api: Api, places: dict[str, str]) -> None:
    body = {"mode": "offline", "local_path": places[LLAMACPP], "engine_type": LLAMACPP, "name": "s"}
    secrets = {
        "hf_token": SECRET,
        "engine_startup_env_json": [{"key": "MY_TOKEN", "value": SECRET}],
        "engine_startup_args_json": [{"flag": "--ssl-key-password", "type": "string", "value": SECRET}],
    }
    number = await made(api, {**body, **secrets})
    shown = await api.get(f"{MODELS}/{number}")
    assert SECRET not in shown.text and SECRET not in (await api.get(MODELS)).text
    back = {name: shown.json()[name] for name in ("hf_token", "engine_startup_env_json")}
    assert (await api("PATCH", f"{MODELS}/{number}", back)).status_code == 200  # an edit form sends it back
    model = api.services.models.get(number)
    assert model.env == {"HF_TOKEN": SECRET, "MY_TOKEN": SECRET}
    assert "hidden" in (await api.post(MODELS, {**body, "name": "t", **back})).text


async def test_a_model_made_by_another_way_is_shown_as_it_is(api: Api, model_file: Path) -> None:
    model = await api.model(
        model_file,
        "native",
        options={"context_length": 512, "flash_attention": "auto", "embeddings": True},
        extra_args=("--seed", "3", "-v", "--multi", "a", "b"),
        request_defaults={"repeat_penalty": 1.1, "min_p": 0.1},
    )
    shown = await item(api, model.id)
    assert (shown["name"], shown["served_model_name"], shown["engine_type"]) == ("native", "native", LLAMACPP)
    assert (shown["mode"], shown["local_path"], shown["task"]) == ("offline", model_file.name, "embed")
    assert (shown["context_size"], shown["flash_attention"], shown["ngl"]) == (512, None, None)
    assert shown["repetition_penalty"] == 1.1 and json.loads(shown["custom_request_json"]) == {"min_p": 0.1}
    assert [(e["flag"], e["value"]) for e in json.loads(shown["engine_startup_args_json"])] == [
        ("--seed", 3),
        ("-v", None),
        ("--multi", ["a", "b"]),
    ]


async def test_a_native_change_wins_over_what_was_sent_once(api: Api, places: dict[str, str]) -> None:
    number, _ = await whole(api, places, LLAMACPP)
    await api.services.models.update(
        number, {"options": {"tensor_split": [1.0], "context_length": 99}}, LOCAL_ADMIN
    )
    shown = await item(api, number)
    assert (shown["tensor_split"], shown["context_size"], shown["tp_size"]) == ("1", 99, 1)
    assert shown["grammar_file"] == "grammars/json.gbnf"


async def test_changing_a_native_model_leaves_what_cortex_does_not_know(api: Api, model_file: Path) -> None:
    model = await api.model(
        model_file,
        "native",
        options={"flash_attention": "auto", "kv_unified": True, "threads": 1},
        policy={"pinned": True, "devices": ["cuda:0"]},
        aliases=("other",),
    )
    assert (await api("PATCH", f"{MODELS}/{model.id}", {"threads": 2, "temperature": 0.1})).status_code == 200
    changed = api.services.models.get(model.id)
    assert changed.options == {"threads": 2, "flash_attention": "auto", "kv_unified": True}
    assert changed.policy == model.policy and changed.aliases == ("other",)
    assert changed.request_defaults == {"temperature": 0.1}


async def test_a_hub_model_is_online(api: Api) -> None:
    number = await made(api, {"mode": "online", "repo_id": "org/name", "served_model_name": "hub"})
    shown = await item(api, number)
    assert (shown["mode"], shown["repo_id"], shown["local_path"]) == ("online", "org/name", None)
    assert (shown["tp_size"], shown["gpu_memory_utilization"]) == (1, 0.9)  # Cortex's own defaults


async def test_a_folder_with_one_gguf_is_enough(api: Api, model_file: Path) -> None:
    folder = model_file.parent / "folder"
    folder.mkdir()
    shutil.copy(model_file, folder / "b-Q8_0.gguf")
    shutil.copy(model_file, folder / "a-Q8_0.gguf")
    number = await made(
        api, {"mode": "offline", "local_path": "folder", "engine_type": LLAMACPP, "name": "f"}
    )
    assert api.services.models.get(number).source.path == str(folder / "a-Q8_0.gguf")
    assert (await item(api, number))["local_path"] == "folder"


def model_dir(api: Api) -> Path:
    return api.services.settings.current.effective_models_dir


@pytest.mark.parametrize(
    ("devices", "device", "passed_on"),
    [("2x24GiB", None, True), ("2x24GiB", "cpu", False), ("cpu:32GiB", None, False)],
)
async def test_the_share_of_gpus_is_kept_and_not_passed_on_where_there_is_none(
    make_api: MakeApi, devices: str, device: str | None, passed_on: bool
) -> None:
    api = await make_api(devices=devices, cortex_runtime="process")
    folder = api.data_dir / "models" / "tensors"
    write_safetensors(folder / "model.safetensors", {"a": ("BF16", (8, 8))})
    (folder / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    body = {"mode": "offline", "local_path": "tensors", "served_model_name": "v", "device": device}
    number = await made(api, body)
    assert ("gpu_memory_utilization" in api.services.models.get(number).options) is passed_on
    assert (await item(api, number))["gpu_memory_utilization"] == 0.9
    for sent in (0.8, None):
        await api("PATCH", f"{MODELS}/{number}", {"gpu_memory_utilization": sent})
        assert (await item(api, number))["gpu_memory_utilization"] == sent
    await api("PATCH", f"{MODELS}/{number}", {"gpu_memory_utilization": 0.7})
    await api("PATCH", f"{MODELS}/{number}", {"device": None, "max_model_len": 512})
    options = api.services.models.get(number).options
    assert options.get("gpu_memory_utilization") == (0.7 if devices != "cpu:32GiB" else None)
    assert (await item(api, number))["gpu_memory_utilization"] == 0.7


async def test_a_model_whose_paths_are_outside_the_base_folder_of_today_can_be_changed(
    api: Api, places: dict[str, str]
) -> None:
    number, _ = await whole(api, places, LLAMACPP)
    before = api.services.models.get(number).options
    folder = model_dir(api) / "elsewhere"
    folder.mkdir()
    assert (await api("PUT", f"{MODELS}/base-dir", {"base_dir": str(folder)})).status_code == 200
    assert (await api("PATCH", f"{MODELS}/{number}", {"temperature": 0.4, "threads": 3})).status_code == 200
    assert api.services.models.get(number).options == {**before, "threads": 3}
    refused = await api("PATCH", f"{MODELS}/{number}", {"draft_model_path": f"{model_dir(api)}/draft.gguf"})
    assert refused.status_code == 400, "a new path is inside the base folder"


@pytest.mark.parametrize(
    ("variable", "instead"),
    [("CUDA_VISIBLE_DEVICES", "selected_gpus"), ("NCCL_P2P_DISABLE", "nccl_p2p_disable")],
)
async def test_a_variable_that_is_not_for_custom_environments_names_what_is_instead(
    api: Api, places: dict[str, str], variable: str, instead: str
) -> None:
    body = {"mode": "offline", "local_path": places[VLLM], "served_model_name": "v"}
    number = await made(api, body)
    environment = [{"key": variable, "value": "1"}]
    refused = await api("PATCH", f"{MODELS}/{number}", {"engine_startup_env_json": environment})
    error = refused.json()["error"]
    assert (refused.status_code, error["message"]) == (400, "protected_variable") and instead in error["hint"]
    if instead.startswith("nccl"):
        assert (await api("PATCH", "/models/v", {"options": {instead: True}})).status_code == 200

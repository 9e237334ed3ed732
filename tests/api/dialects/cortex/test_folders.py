"""The base folder, the folders in it, what they hold, and what the hub says of a repo."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from ostler.core.principals import Role
from tests.api.conftest import Api, MakeApi
from tests.api.dialects.cortex.shapes import envelope
from tests.hub.server import HubServer
from tests.library.gguf_files import (
    model_metadata,
    write_lora,
    write_model,
    write_projector,
    write_safetensors,
    write_shards,
)

BASE, FOLDERS, INSPECT = (f"//admin/models/{end}" for end in ("base-dir", "local-folders", "inspect-folder"))
CONFIG = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "model_type": "gemma3",
    "torch_dtype": "bfloat16",
    "text_config": {
        "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 100,
        "max_position_embeddings": 4096,
    },
}  # fmt: skip


def models_of(api: Api) -> Path:
    return api.data_dir / "models"


async def inspected(api: Api, folder: str) -> dict[str, Any]:
    answer = await api.get(INSPECT, base=str(models_of(api)), folder=folder)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def safetensors(folder: Path, name: str = "model.safetensors") -> None:
    write_safetensors(folder / name, {"a": ("BF16", (8, 8))})
    (folder / "config.json").write_text(json.dumps(CONFIG))


def state_of(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*")}


async def test_the_base_folder_begins_as_the_models_folder_and_moves(api: Api, tmp_path: Path) -> None:
    assert (await api.get(BASE)).json() == {"base_dir": str(models_of(api))}
    elsewhere = tmp_path / "elsewhere"
    write_model(elsewhere / "sub" / "m-Q8_0.gguf", "Q8_0")
    before = state_of(elsewhere)
    moved = await api("PUT", BASE, {"base_dir": str(elsewhere)})
    assert moved.json() == (await api.get(BASE)).json() == {"base_dir": str(elsewhere)}
    assert str(elsewhere) in [root["path"] for root in (await api.get("/roots")).json()["items"]]
    assert (await api.get(FOLDERS)).json() == ["sub"]
    body = (await api.get(INSPECT, base=str(elsewhere), folder="sub")).json()
    assert body["gguf_groups"][0]["local_path"] == "sub/m-Q8_0.gguf"
    assert (await api("PUT", BASE, {"base_dir": str(elsewhere)})).status_code == 200
    assert (await api("PUT", BASE, {"base_dir": str(elsewhere / "sub")})).status_code == 200
    assert state_of(elsewhere) == before


async def test_a_base_folder_that_cannot_be_is_refused(api: Api, tmp_path: Path) -> None:
    envelope(await api("PUT", BASE, {"base_dir": "  "}), 400, "base_dir_required")
    envelope(await api("PUT", BASE, {}), 400, "base_dir_required")
    for path in ("models", "../x", "/x/../etc"):
        envelope(await api("PUT", BASE, {"base_dir": path}), 400, "base_dir_must_be_absolute")
    absent = tmp_path / "absent"
    envelope(await api("PUT", BASE, {"base_dir": str(absent)}), 404)
    envelope(await api("PUT", BASE, {"base_dir": str(models_of(api) / "absent")}), 404)
    assert not absent.exists()
    assert (await api.get(BASE)).json() == {"base_dir": str(models_of(api))}


async def test_folders_are_named_and_nothing_outside_the_library_is_shown(api: Api, tmp_path: Path) -> None:
    for name in ("b", "a", "a/deep"):
        (models_of(api) / name).mkdir()
    write_model(models_of(api) / "loose.gguf", "Q8_0")
    assert (await api.get(FOLDERS, base=str(models_of(api)))).json() == ["a", "b"]
    assert (await api.get(FOLDERS)).json() == ["a", "b"]
    assert (await api.get(FOLDERS, base=str(models_of(api) / "absent"))).json() == []
    for base in ("/", "/etc", str(tmp_path)):
        envelope(await api.get(FOLDERS, base=base), 403)
        envelope(await api.get(INSPECT, base=base, folder="x"), 403)
    envelope(await api.get(FOLDERS, base=f"{models_of(api)}/../.."), 400, "base_must_be_absolute")


async def test_a_folder_to_inspect_must_be_there_and_inside(api: Api, tmp_path: Path) -> None:
    envelope(await api.get(INSPECT, folder="x"), 400, "base_required")
    base = str(models_of(api))
    envelope(await api.get(INSPECT, base=base, folder="absent"), 404, "folder_not_found")
    (tmp_path / "outside").mkdir()
    (models_of(api) / "link").symlink_to(tmp_path / "outside")
    for folder in ("..", "../", "../../outside", "a/../../x", "/etc", "link", "x" * 4000):
        answer = await api.get(INSPECT, base=base, folder=folder)
        assert answer.status_code in (403, 404, 422), answer.text


@pytest.mark.parametrize("path", [BASE, FOLDERS, INSPECT, "//admin/models/hf-config"])
async def test_only_administrators_look_around(guarded: Api, path: str) -> None:
    envelope(await guarded.get(path), 401, "unauthenticated")
    manager = await guarded.as_role(Role.MANAGER)
    envelope(await guarded("GET", path, headers=manager), 403, "forbidden")


async def test_groups_are_whole_models_with_their_folder_named_where_names_meet(api: Api) -> None:
    folder = models_of(api) / "org"
    named = {**model_metadata(), "general.file_type": 7}
    write_model(folder / "m-Q8_0.gguf", "Q8_0", metadata=named)
    write_model(folder / "m-F16.gguf", "F16")
    write_model(folder / "other" / "m-Q8_0.gguf", "Q8_0")
    write_projector(folder / "mmproj-F16.gguf")
    write_lora(folder / "lora.gguf")
    body = await inspected(api, "org")
    groups = body["gguf_groups"]
    assert [group["files"] for group in groups] == [["m-Q8_0.gguf"], ["other/m-Q8_0.gguf"], ["m-F16.gguf"]]
    first = groups[0]
    assert (first["quant_type"], first["display_name"]) == ("Q8_0", "Q8_0 (m-Q8_0.gguf)")
    assert groups[2]["display_name"] == "F16"
    assert first["full_paths"] == [str(folder / "m-Q8_0.gguf")]
    assert (first["is_multipart"], first["expected_parts"], first["actual_parts"]) == (False, 1, 1)
    assert (first["status"], first["can_use"], first["warning"]) == ("ready", True, None)
    assert [group["is_recommended"] for group in groups] == [True, False, False]
    assert first["metadata"]["file_type_name"] == "Q8_0"
    assert first["metadata"]["architecture"] == "llama" and first["metadata"]["attention_head_count"]
    assert len(body["gguf_files"]) == 5
    assert body["gguf_validation"] == {
        "total_files": 5, "valid_files": 5, "invalid_files": 0, "warnings": [], "errors": [],
    }  # fmt: skip
    assert body["warnings"] == []


async def test_split_models_are_usable_as_they_are_and_missing_parts_are_named(api: Api) -> None:
    folder = models_of(api) / "split"
    write_shards(folder / "whole", "m-Q8_0", 3)
    paths = write_shards(folder / "part", "n-F16", 3)
    paths[1].unlink()
    body = await inspected(api, "split")
    whole, part = body["gguf_groups"]
    assert (whole["status"], whole["can_use"], whole["is_multipart"]) == ("ready", True, True)
    assert (whole["expected_parts"], whole["actual_parts"]) == (3, 3)
    assert whole["local_path"] == "split/whole/m-Q8_0-00001-of-00003.gguf"
    assert (part["status"], part["can_use"], part["actual_parts"]) == ("incomplete", False, 2)
    assert part["warning"] == "missing: n-F16-00002-of-00003.gguf"
    assert body["gguf_validation"]["warnings"] and body["warnings"][0].startswith("gguf_parts_missing")
    advice = body["engine_recommendation"]
    assert (advice["recommended"], advice["has_multipart_gguf"]) == ("llamacpp", True)
    assert [option["engine"] for option in advice["options"]] == ["llamacpp"]
    assert not advice["options"][0]["requires_merge"]


async def test_head_counts_by_layer_are_facts_like_others(api: Api) -> None:
    metadata = {**model_metadata(), "llama.attention.head_count": [4, 8]}
    write_model(models_of(api) / "layers" / "m.gguf", "Q8_0", metadata=metadata)
    group = (await inspected(api, "layers"))["gguf_groups"][0]
    assert group["metadata"]["attention_head_count"] == 8


async def test_broken_files_are_counted_and_named(api: Api, demo_model: Path) -> None:
    folder = models_of(api) / "broken"
    folder.mkdir()
    (folder / "cut.gguf").write_bytes(demo_model.read_bytes()[:100_000])
    (folder / "page.gguf").write_text("<html>")
    shutil.copy(demo_model, folder / "good.gguf")
    body = await inspected(api, "broken")
    validation = body["gguf_validation"]
    assert (validation["total_files"], validation["valid_files"], validation["invalid_files"]) == (3, 1, 2)
    assert body["warnings"] == ["gguf_validation_errors: 2 file(s) failed validation"]
    good, *bad = body["gguf_groups"]
    assert good["can_use"] and not any(group["can_use"] for group in bad)
    assert "truncated" in bad[0]["warning"] and bad[0]["metadata"] is None


async def test_safetensors_are_served_by_vllm_and_nested_configurations_are_read(api: Api) -> None:
    folder = models_of(api) / "hf"
    safetensors(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (folder / name).write_text("{}")
    body = await inspected(api, "hf")
    info = body["safetensor_info"]
    assert body["has_safetensors"] and (info["files"], info["file_count"]) == (["model.safetensors"], 1)
    assert (info["model_type"], info["torch_dtype"]) == ("gemma3", "bfloat16")
    assert (info["vocab_size"], info["max_position_embeddings"]) == (100, 4096)
    assert (body["hidden_size"], body["num_hidden_layers"], body["num_attention_heads"]) == (64, 2, 4)
    assert body["tokenizer_files"] == ["tokenizer.json", "tokenizer_config.json"]
    assert body["config_files"] == ["config.json", "generation_config.json"]
    assert body["warnings"] == []
    assert body["gguf_validation"] is None and body["gguf_groups"] == []
    write_model(folder / "m-Q8_0.gguf", "Q8_0")
    advice = (await inspected(api, "hf"))["engine_recommendation"]
    options = [(o["engine"], o["format"], o["is_recommended"]) for o in advice["options"]]
    assert options == [("vllm", "safetensors", True), ("llamacpp", "gguf", False)]
    assert (advice["recommended"], advice["vllm_gguf_compatible"]) == ("vllm", False)


async def test_an_index_whose_shards_are_missing_is_not_recommended(api: Api) -> None:
    folder = models_of(api) / "indexed"
    safetensors(folder, "model-00001-of-00002.safetensors")
    weights = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    body = await inspected(api, "indexed")
    assert body["safetensor_info"]["missing"] == ["model-00002-of-00002.safetensors"]
    assert body["warnings"] == ["safetensors_incomplete: model-00002-of-00002.safetensors"]
    assert body["engine_recommendation"]["recommended"] == "either"
    assert "missing" in body["engine_recommendation"]["reason"]


async def test_a_folder_without_models_has_nothing_to_recommend(api: Api) -> None:
    (models_of(api) / "empty").mkdir()
    body = await inspected(api, "empty")
    assert body["engine_recommendation"]["recommended"] == "either"
    assert body["gguf_groups"] == [] and body["params_b"] is None


async def test_the_original_tokenizer_is_suggested(api: Api) -> None:
    write_model(models_of(api) / "Qwen3-8B-GGUF" / "x-Q8_0.gguf", "Q8_0")
    found = (await inspected(api, "Qwen3-8B-GGUF"))["tokenizer_suggestions"]
    assert found == [{"label": "Qwen3", "repos": ["Qwen/Qwen3-8B", "Qwen/Qwen3-30B-A3B"]}]


async def test_the_hub_tells_the_numbers_of_a_repo(make_api: MakeApi, shared: Path) -> None:
    with HubServer() as hub:
        weights = shared / "demo-model" / "hf"
        files = {path.name: path.read_bytes() for path in weights.iterdir()}
        hub.add_repo("org/demo", files)
        hub.add_repo("org/config", {"config.json": json.dumps(CONFIG).encode(), "model.bin": b"x"})
        hub.add_repo("org/nothing", {"README.md": b"x"})
        api = await make_api(offline=False, hf_endpoint=hub.endpoint)
        path = "//admin/models/hf-config"
        body = (await api.get(path, repo_id="org/demo")).json()
        assert body == {
            "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "params_b": 0.002,
        }  # fmt: skip
        plain = (await api.get(path, repo_id="org/config")).json()
        assert (plain["hidden_size"], plain["params_b"]) == (64, None)
        envelope(await api.get(path), 400, "repo_id_required")
        for repo in ("org/nothing", "org/absent"):
            envelope(await api.get(path, repo_id=repo), 404, "config_not_found")
        assert (await api.get(path, repo_id="../x")).status_code == 422


async def test_nothing_is_asked_offline(api: Api) -> None:
    answer = await api.get("//admin/models/hf-config", repo_id="org/demo")
    assert answer.status_code == 503 and "offline" in answer.json()["error"]["detail_text"]

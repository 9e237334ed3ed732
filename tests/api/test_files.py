"""Files and roots over HTTP."""

from __future__ import annotations

import shutil
from pathlib import Path

from ostler.core.principals import Role
from tests.api.conftest import Api, problem
from tests.library.gguf_files import write_projector, write_safetensors, write_shards


async def test_a_file_is_listed_shown_and_names_its_models(api: Api, model_file: Path) -> None:
    await api.model(model_file, "tiny")
    page = (await api.get("/files", search="tiny")).json()
    assert page["total"] == 1
    item = page["items"][0]
    assert (item["path"], item["format"], item["used_by"]) == (str(model_file), "gguf", ["tiny"])
    assert item["facts"]["quantization"] == "Q8_0" and item["files"][0]["size_bytes"] == item["size_bytes"]
    assert (await api.get(f"/files/{item['id']}")).json() == item
    problem(await api.get("/files/none"), 404, "file_set_not_found")
    problem(await api.get("/files", sort="secret"), 422)


async def test_a_file_of_the_models_folder_is_never_deleted(api: Api, model_file: Path) -> None:
    item = (await api.get("/files")).json()["items"][0]
    problem(await api("DELETE", f"/files/{item['id']}"), 403, "deletion_not_allowed")
    assert model_file.exists()


async def test_a_file_is_inspected_by_its_path(api: Api, model_file: Path, tmp_path: Path) -> None:
    seen = (await api.post("/files/inspect", {"path": str(model_file)})).json()
    assert seen["facts"]["quantization"] == "Q8_0"
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF\x03\x00\x00\x00" + b"\xff" * 64)
    problem(await api.post("/files/inspect", {"path": str(broken)}), 422)
    problem(await api.post("/files/inspect", {"path": str(tmp_path / "none.gguf")}), 404, "path_not_found")
    for path in ("", "relative.gguf", "../x", f"{tmp_path}/../x", "a\\b"):
        problem(await api.post("/files/inspect", {"path": path}), 422)


async def test_only_an_administrator_looks_outside_the_library(
    api: Api, model_file: Path, tmp_path: Path
) -> None:
    outside = Path(shutil.copy(model_file, tmp_path / "outside.gguf"))
    power_user = await api.as_role(Role.POWER_USER)
    inside = await api("POST", "/files/inspect", {"path": str(model_file)}, headers=power_user)
    assert inside.status_code == 200
    for path in (outside, "/etc/passwd", tmp_path / "none"):
        answer = await api("POST", "/files/inspect", {"path": str(path)}, headers=power_user)
        problem(answer, 403, "outside_roots")
    link = model_file.parent / "link.gguf"
    link.symlink_to(outside)
    problem(await api("POST", "/files/inspect", {"path": str(link)}, headers=power_user), 403)


async def test_folders_are_added_and_removed_and_their_files_stay(api: Api, demo_model: Path) -> None:
    folder = api.data_dir.parent / "more"
    folder.mkdir()
    shutil.copy(demo_model, folder / "extra.gguf")
    made = await api.post("/roots", {"path": str(folder)})
    assert made.status_code == 201 and made.json()["filled_by_ostler"] is False
    assert (await api.get("/roots")).json()["total"] == 4
    assert (await api.get("/files", search="extra")).json()["total"] == 1
    problem(await api.post("/roots", {"path": str(folder)}), 409, "root_exists")
    assert (await api("DELETE", f"/roots/{made.json()['id']}")).status_code == 204
    assert (folder / "extra.gguf").exists()
    problem(await api("DELETE", "/roots/999"), 404, "root_not_found")
    problem(await api("DELETE", "/roots/x"), 422)
    for path in ("relative", "", "/no/such/folder"):
        assert (await api.post("/roots", {"path": path})).status_code in (404, 422)
    problem(await api.post("/roots", {"path": str(folder), "layout": "cloud"}), 422)


async def test_folders_of_the_library_are_browsed_from_the_roots_down(api: Api, model_file: Path) -> None:
    (model_file.parent / "org" / "name").mkdir(parents=True)
    roots = (await api.get("/files/folders")).json()["items"]
    assert str(model_file.parent) in [root["path"] for root in roots]
    below = (await api.get(f"/files/folders?path={model_file.parent}")).json()
    assert below["items"] == [{"name": "org", "path": str(model_file.parent / "org")}]
    problem(await api.get("/files/folders?path=/etc"), 403, "outside_roots")
    problem(await api.get(f"/files/folders?path={model_file.parent}/none"), 404, "path_not_found")
    problem(await api.get("/files/folders?path=relative"), 422)


async def test_each_file_set_says_which_engine_serves_it_and_why(api: Api, model_file: Path) -> None:
    write_projector(model_file.parent / "alone" / "mmproj-F16.gguf")
    write_shards(model_file.parent / "part", "part-F16", 2)[1].unlink()
    write_safetensors(model_file.parent / "hf" / "model.safetensors", {"a": ("BF16", (8, 8))})
    (model_file.parent / "hf" / "config.json").write_text("{}")
    items = (await api.get("/files")).json()["items"]
    said = {item["name"]: item["recommendation"] for item in items}
    assert said["tiny-Q8_0"]["engine"] == "llamacpp" and "GGUF" in said["tiny-Q8_0"]["reason"]
    assert said["hf"]["engine"] == "vllm"
    assert said["part-F16"]["engine"] is None and "00002" in said["part-F16"]["reason"]
    assert said["mmproj-F16"] == {
        "engine": None,
        "reason": "It is a projector: it is loaded beside its model, not alone.",
    }

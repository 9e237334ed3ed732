"""Which host files a container gets to see, and under which names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ostler.core.launch import Mount
from ostler.engines.base import LaunchRequest
from ostler.engines.container_paths import ContainerPaths
from ostler.engines.llamacpp import LlamaCpp
from ostler.engines.vllm import Vllm


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_a_file_is_shown_alone(tmp_path: Path) -> None:
    file = touch(tmp_path / "models" / "a.gguf")
    touch(tmp_path / "models" / "secret.gguf")
    paths = ContainerPaths()
    assert paths.add(file) == "/models/models/a.gguf"
    assert paths.mounts == (Mount(str(file), "/models/models/a.gguf"),)


def test_with_a_shard_come_its_sisters(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        touch(tmp_path / "m" / f"big-0000{n}-of-00003.gguf")
    touch(tmp_path / "m" / "big-00001-of-00002.gguf")
    paths = ContainerPaths()
    assert paths.add(tmp_path / "m" / "big-00001-of-00003.gguf") == "/models/m/big-00001-of-00003.gguf"
    assert [m.target[-19:] for m in paths.mounts] == [f"0000{n}-of-00003.gguf" for n in (1, 2, 3)]


def test_a_link_is_followed_and_keeps_its_name(tmp_path: Path) -> None:
    blob = touch(tmp_path / "blobs" / "abc")
    link = tmp_path / "snapshots" / "rev" / "a.gguf"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../blobs/abc")
    paths = ContainerPaths()
    assert paths.add(link) == "/models/rev/a.gguf"
    assert paths.mounts == (Mount(str(blob), "/models/rev/a.gguf"),)


def test_a_folder_without_links_is_one_mount(tmp_path: Path) -> None:
    touch(tmp_path / "qwen" / "config.json")
    touch(tmp_path / "qwen" / "sub" / "model.safetensors")
    paths = ContainerPaths()
    assert paths.add(tmp_path / "qwen") == "/models/qwen"
    assert paths.mounts == (Mount(str(tmp_path / "qwen"), "/models/qwen"),)


def test_a_folder_of_links_is_mounted_file_by_file(tmp_path: Path) -> None:
    blob = touch(tmp_path / "blobs" / "abc")
    folder = tmp_path / "snapshots" / "rev"
    config = touch(folder / "config.json")
    (folder / "model.safetensors").symlink_to("../../blobs/abc")
    (folder / "broken").symlink_to("../../blobs/gone")
    paths = ContainerPaths()
    assert paths.add(folder) == "/models/rev"
    assert paths.mounts == (
        Mount(str(config), "/models/rev/config.json"),
        Mount(str(blob), "/models/rev/model.safetensors"),
    )


def test_folders_of_one_name_do_not_meet(tmp_path: Path) -> None:
    paths = ContainerPaths()
    assert paths.add(touch(tmp_path / "a" / "m" / "x.gguf")) == "/models/m/x.gguf"
    assert paths.add(touch(tmp_path / "b" / "m" / "x.gguf")) == "/models/m-2/x.gguf"


@pytest.fixture
def request_(tmp_path: Path) -> LaunchRequest:
    return LaunchRequest(
        model_id=7,
        model_name="qwen",
        model_path=touch(tmp_path / "m" / "q.gguf"),
        mmproj_path=touch(tmp_path / "m" / "mmproj.gguf"),
        options={
            "draft_model": str(touch(tmp_path / "drafts" / "small.gguf")),
            "lora": [str(touch(tmp_path / "loras" / "a.gguf"))],
            "lora_scaled": [f"{touch(tmp_path / 'loras' / 'b.gguf')}:0.5"],
            "log_file": "/tmp/inside.log",
        },
        runtime="docker",
    )


def test_llama_cpp_in_a_container_is_told_the_paths_inside(request_: LaunchRequest) -> None:
    spec = LlamaCpp(image="llama:1").launch_spec(request_)
    text = " ".join(spec.args)
    assert "--model /models/m/q.gguf" in text
    assert "--mmproj /models/m/mmproj.gguf" in text
    assert "--spec-draft-model /models/drafts/small.gguf" in text
    assert "--lora /models/loras/a.gguf" in text
    assert "--lora-scaled /models/loras/b.gguf:0.5" in text
    assert "--log-file /tmp/inside.log" in text
    assert str(request_.model_path.parent) not in text
    assert len(spec.mounts) == 5
    assert all(mount.read_only for mount in spec.mounts)
    assert (spec.image, spec.command) == ("llama:1", ())


def test_the_models_own_image_wins_over_the_setting(request_: LaunchRequest) -> None:
    wishes = replace(request_, runtime_options={"image": "mine:2", "memory": "1GiB"})
    spec = LlamaCpp(image="llama:1").launch_spec(wishes)
    assert spec.image == "mine:2"
    assert spec.runtime_options == {"shm_size": 8 * 2**30, "memory": "1GiB"}
    assert spec.digest() != LlamaCpp(image="llama:1").launch_spec(request_).digest()


def test_no_layers_on_a_gpu_means_no_gpu_in_the_container(request_: LaunchRequest) -> None:
    on_cpu = replace(request_, options={"gpu_layers": 0})
    assert LlamaCpp(image="llama:1").launch_spec(on_cpu).devices == ("cpu",)
    assert LlamaCpp(image="llama:1").launch_spec(request_).devices == ()


def test_vllm_in_a_container_is_told_the_folder_inside(tmp_path: Path) -> None:
    folder = touch(tmp_path / "qwen" / "config.json").parent
    asked = LaunchRequest(7, "qwen", folder, runtime="docker", devices=("cuda:1",))
    spec = Vllm(image="vllm:1").launch_spec(asked)
    assert (spec.image, spec.command, spec.args[:2]) == ("vllm:1", (), ("--model", "/models/qwen"))
    assert spec.mounts == (Mount(str(folder), "/models/qwen"),)
    assert spec.runtime_options["shm_size"] == 2 * 2**30
    assert "CUDA_VISIBLE_DEVICES" not in spec.env  # a container is handed the device, as its first

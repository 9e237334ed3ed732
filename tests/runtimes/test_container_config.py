"""From a launch spec to the body of a create call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ostler.core.errors import InvalidField
from ostler.core.launch import HOST_SLOT, PORT_SLOT, LaunchSpec, Mount
from ostler.runtimes.container_config import Daemon, House, create_body
from ostler.runtimes.docker_answers import observed
from ostler.runtimes.docker_client import daemon_of, find_host

HOUSE = House("server-1", hub_cache=Path("/cache/hub"), log_bytes=1000)
SPEC = LaunchSpec(
    model_id=7,
    model_name="qwen",
    engine="llamacpp",
    runtime="docker",
    image="llama:1",
    args=("--host", HOST_SLOT, "--port", PORT_SLOT, "--model", "/models/q.gguf"),
    env={"A": "b"},
    secret_env=("LLAMA_API_KEY",),
    mounts=(Mount("/data/q.gguf", "/models/q.gguf"),),
)


def body(spec: LaunchSpec = SPEC, daemon: Daemon | None = None, house: House = HOUSE, **options: Any) -> Any:
    spec = replace(spec, runtime_options=options)
    secrets = {"LLAMA_API_KEY": "s3cret"}
    return create_body(
        spec, house, daemon or Daemon(), instance_id=3, user="1000:1000", secrets=secrets, host_port=20_001
    )


def test_the_name_is_the_models_with_the_engine_before_it() -> None:
    assert HOUSE.container_name(SPEC) == "llamacpp-model-7"
    assert HOUSE.container_name(replace(SPEC, engine="vllm", model_id=12)) == "vllm-model-12"
    assert replace(HOUSE, name_prefix="lab-").container_name(SPEC) == "lab-llamacpp-model-7"


def test_an_engine_listens_inside_and_is_published_on_loopback_at_a_port_of_the_daemons_choice() -> None:
    made = body()
    assert made["Cmd"] == ["--host", "0.0.0.0", "--port", "8000", "--model", "/models/q.gguf"]
    assert made["HostConfig"]["PortBindings"] == {"8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
    assert "Entrypoint" not in made


def test_on_the_hosts_network_it_listens_on_loopback_alone() -> None:
    made = body(house=replace(HOUSE, network="host"))
    assert made["Cmd"][:4] == ["--host", "127.0.0.1", "--port", "20001"]
    assert "PortBindings" not in made["HostConfig"]
    assert made["Labels"]["ostler.port"] == "20001"


def test_labels_tell_whose_it_is_and_what_it_runs() -> None:
    assert body()["Labels"] == {
        "ostler.server": "server-1",
        "ostler.model": "7",
        "ostler.instance": "3",
        "ostler.digest": SPEC.digest(),
    }


def test_a_secret_is_in_the_environment_and_nowhere_else() -> None:
    made = body()
    assert "LLAMA_API_KEY=s3cret" in made.pop("Env")
    assert "s3cret" not in repr(made)


def test_model_files_are_read_only_and_so_is_all_else_but_tmp() -> None:
    host = body()["HostConfig"]
    assert host["Mounts"] == [
        {"Type": "bind", "Source": "/data/q.gguf", "Target": "/models/q.gguf", "ReadOnly": True}
    ]
    assert (host["ReadonlyRootfs"], list(host["Tmpfs"])) == (True, ["/tmp"])
    assert (host["CapDrop"], host["SecurityOpt"]) == (["ALL"], ["no-new-privileges"])
    assert body()["User"] == "1000:1000"


def test_the_hugging_face_cache_is_there_where_it_is_asked_for() -> None:
    made = body(hf_cache="ro")
    cache = {"Type": "bind", "Source": "/cache/hub", "Target": "/hf/hub", "ReadOnly": True}
    assert cache in made["HostConfig"]["Mounts"]
    assert "HF_HUB_CACHE=/hf/hub" in made["Env"]
    assert {**cache, "ReadOnly": False} in body(hf_cache="rw")["HostConfig"]["Mounts"]


def test_wishes_become_limits() -> None:
    host = body(shm_size="2GiB", cpus=1.5, memory="1GiB", pids=99, mounts=["/a:/b", "/c:/d:rw"])["HostConfig"]
    assert (host["ShmSize"], host["NanoCpus"], host["PidsLimit"]) == (2 * 2**30, 1_500_000_000, 99)
    assert host["Memory"] == host["MemorySwap"] == 2**30
    assert [(m["Target"], m["ReadOnly"]) for m in host["Mounts"][1:]] == [("/b", True), ("/d", False)]


@pytest.mark.parametrize(
    ("devices", "gpus", "wanted"),
    [
        ((), "none", None),
        ((), "nvidia", {"Count": -1}),
        (("cuda:0", "cuda:2"), "nvidia", {"DeviceIDs": ["0", "2"]}),
        (("cuda:1",), "none", {"DeviceIDs": ["1"]}),  # asked for: the daemon says why it cannot
        (("cpu",), "nvidia", None),
    ],
)
def test_nvidia_gpus_are_requested_by_the_ids_of_the_placement(
    devices: tuple[str, ...], gpus: Any, wanted: dict[str, Any] | None
) -> None:
    host = body(replace(SPEC, devices=devices), Daemon(gpus=gpus))["HostConfig"]
    if wanted is None:
        assert "DeviceRequests" not in host
    else:
        (request,) = host["DeviceRequests"]
        assert wanted.items() <= request.items()


def test_amd_gpus_are_devices_of_the_host() -> None:
    made = body(replace(SPEC, devices=("rocm:1",)))
    assert [d["PathOnHost"] for d in made["HostConfig"]["Devices"]] == ["/dev/kfd", "/dev/dri"]
    assert "HIP_VISIBLE_DEVICES=1" in made["Env"]
    assert "Devices" not in body(replace(SPEC, devices=("cpu",)), Daemon(gpus="rocm"))["HostConfig"]


def test_where_selinux_labels_files_they_are_read_without_being_labelled_anew() -> None:
    assert "label=disable" in body(daemon=Daemon(selinux=True))["HostConfig"]["SecurityOpt"]


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"shm": "1GiB"}, "runtime_options.shm"),
        ({"shm_size": "much"}, "runtime_options.shm_size"),
        ({"shm_size": True}, "runtime_options.shm_size"),
        ({"memory": "1MiB"}, "runtime_options.memory"),
        ({"cpus": 0}, "runtime_options.cpus"),
        ({"cpus": "two"}, "runtime_options.cpus"),
        ({"pids": 1.5}, "runtime_options.pids"),
        ({"ipc": "open"}, "runtime_options.ipc"),
        ({"image": "-rm"}, "runtime_options.image"),
        ({"image": ""}, "runtime_options.image"),
        ({"mounts": ["/a"]}, "runtime_options.mounts"),
        ({"mounts": ["/a/../etc:/b"]}, "runtime_options.mounts"),
        ({"mounts": ["a:/b"]}, "runtime_options.mounts"),
        ({"user": "root;x"}, "runtime_options.user"),
        ({"network": "a b"}, "runtime_options.network"),
        ({"read_only_root": "no"}, "runtime_options.read_only_root"),
    ],
)
def test_a_wish_that_cannot_be_is_refused_by_name(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        body(**options)
    assert caught.value.facts["field"] == field


def test_a_near_name_is_named() -> None:
    with pytest.raises(InvalidField) as caught:
        body(shmsize="1GiB")
    assert caught.value.hint == "Did you mean runtime_options.shm_size?"


@pytest.mark.parametrize(
    ("state", "seen"),
    [
        ({"Status": "running", "Running": True}, ("alive", None, False)),
        ({"Status": "paused", "Running": True}, ("alive", None, False)),
        ({"Status": "exited", "ExitCode": 3}, ("exited", 3, False)),
        ({"Status": "exited", "ExitCode": 137, "OOMKilled": True}, ("exited", -9, True)),
        ({"Status": "exited", "ExitCode": 139}, ("exited", -11, False)),
        ({"Status": "exited", "ExitCode": 255}, ("exited", 255, False)),
        ({"Status": "created", "ExitCode": 0}, ("gone", None, False)),
        ({"Status": "created", "ExitCode": 127}, ("exited", 127, False)),
        ({"Status": "removing", "ExitCode": 0}, ("gone", None, False)),
    ],
)
def test_what_a_containers_state_means(state: dict[str, Any], seen: tuple[str, int | None, bool]) -> None:
    found = observed({"Id": "c0ffee", "State": state})
    assert (found.state, found.exit_code, found.oom_killed) == seen


def test_what_a_daemon_is_by_its_own_account() -> None:
    options = ["name=seccomp,profile=default", "name=rootless", "name=selinux"]
    found = daemon_of({"SecurityOptions": options, "Runtimes": {"runc": {}, "nvidia": {}}})
    assert found == Daemon(rootless=True, selinux=True, gpus="nvidia")
    assert not daemon_of({"SecurityOptions": None, "Runtimes": None}).rootless


def test_the_daemon_is_where_the_setting_says() -> None:
    assert find_host("tcp://10.0.0.1:2375", {}) == "tcp://10.0.0.1:2375"
    assert find_host(None, {"XDG_RUNTIME_DIR": "/nowhere"}).startswith("unix://")

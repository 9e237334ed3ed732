"""Models in containers of a real Docker Engine with the real llama-server inside, as a user sees them."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.real.docker_engine import LLAMA_IMAGE, DockerEngine, llama_server, with_libraries
from tests.real.docker_house import DockerHouse
from tests.real.image_registry import Registry, serving
from tests.real.test_docker_contract import PYTHON

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

NAME = "llamacpp-model-1"
Make = Callable[..., DockerHouse]


@pytest.fixture
def make(docker_engine: DockerEngine, tmp_path: Path, demo_model: Path) -> Iterator[Make]:
    """Makes Ostlers on one daemon; at the end no model file may have changed in any way."""
    if llama_server() is None:
        pytest.skip("llama-server is missing: run tests/real/install.sh")
    made: list[tuple[DockerHouse, object]] = []

    def build(name: str = "one", **environment: str) -> DockerHouse:
        house = DockerHouse(docker_engine, tmp_path / name, demo_model, **environment)
        made.append((house, house.fingerprints()))
        return house

    yield build
    for house, before in made:
        house.server.end_everything()
        assert house.fingerprints() == before


@pytest.fixture
def house(make: Make) -> DockerHouse:
    return make()


def test_a_model_starts_answers_streams_and_stops_in_a_container(house: DockerHouse) -> None:
    house.add()
    assert house.start()["state"] == "running"
    assert house.engine.containers() == [NAME]
    assert house.chat()
    assert house.chat(stream=True).rstrip().endswith("data: [DONE]")
    assert house.instance()["memory_bytes"] > 1_000_000
    assert house.stop()["state"] == "stopped"
    assert house.engine.containers() == []
    assert house.states() == ["starting", "loading", "running", "stopping", "stopped"]


def test_a_container_may_do_no_more_than_serve(house: DockerHouse) -> None:
    house.add(runtime_options={"cpus": 1.5, "memory": "512MiB", "pids": 200})
    house.start()
    told = house.engine.inspect(NAME)
    config, host = told["Config"], told["HostConfig"]
    assert config["User"] not in ("", "0", "root", "0:0")
    assert (host["CapDrop"], host["ReadonlyRootfs"]) == (["ALL"], True)
    assert "no-new-privileges" in host["SecurityOpt"]
    assert [(m["Destination"], m["RW"]) for m in told["Mounts"] if m["Type"] == "bind"] == [
        ("/models/models/demo.gguf", False)
    ]
    (binding,) = told["NetworkSettings"]["Ports"]["8000/tcp"]
    assert binding["HostIp"] == "127.0.0.1"
    assert binding["HostPort"] != "0"
    assert list(told["NetworkSettings"]["Networks"]) == ["ostler"]
    assert (host["RestartPolicy"]["Name"], host["DeviceRequests"]) == ("no", None)
    limits = (host["NanoCpus"], host["Memory"], host["PidsLimit"], host["ShmSize"])
    assert limits == (1_500_000_000, 512 * 2**20, 200, 8 * 2**30)
    assert config["Labels"]["ostler.model"] == "1"
    assert config["Labels"]["ostler.digest"] == house.instance()["spec_digest"]


def test_its_log_stays_after_the_container_is_gone(house: DockerHouse) -> None:
    house.add()
    house.start()
    alive = house.log(query="?tail=3")
    house.stop()
    after = house.log()
    assert len(alive) == 3
    assert set(alive) <= set(after)
    assert any("listening" in line for line in after)


def test_links_of_a_hub_cache_lead_to_their_files_inside(house: DockerHouse) -> None:
    repo = house.server.data_dir / "hub" / "models--org--demo"
    snapshot = repo / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    shutil.copy(house.models_dir / "demo.gguf", repo / "blobs" / ("b" * 64))
    (snapshot / "demo-Q8_0.gguf").symlink_to("../../blobs/" + "b" * 64)
    house.add(source={"path": str(snapshot / "demo-Q8_0.gguf")})
    assert house.start()["state"] == "running"
    assert house.chat()
    (mount,) = (m for m in house.engine.inspect(NAME)["Mounts"] if m["Type"] == "bind")
    assert (mount["Source"], mount["RW"]) == (str(repo / "blobs" / ("b" * 64)), False)


def test_a_killed_engine_is_started_again(house: DockerHouse) -> None:
    house.add()
    first = house.start()["id"]
    house.engine.docker("kill", NAME)
    again = house.until(lambda found: found["state"] == "running" and found["id"] != first)
    assert again["restarts"] == 1
    assert house.states()[2:] == ["running", "failed", "restarting", "starting", "loading", "running"]
    assert house.engine.containers() == [NAME]


def test_a_container_that_was_removed_by_hand_is_noticed_and_made_anew(house: DockerHouse) -> None:
    house.add()
    first = house.start()["id"]
    house.engine.docker("rm", "--force", NAME)
    house.until(lambda found: found["state"] == "running" and found["id"] != first)
    assert house.chat()


def test_an_engine_that_ends_at_once_failed_with_its_code_and_its_last_lines(house: DockerHouse) -> None:
    house.add(extra_args=["--no-such-flag"])
    refused = house.start()
    failed = house.instance()
    assert failed["state"] == "failed"
    assert failed["failure"]["exit_code"] == 1
    assert any("--no-such-flag" in line for line in failed["failure"]["log_tail"])
    assert "exit code 1" in refused["detail"]
    assert any("--no-such-flag" in line for line in house.log())
    assert house.engine.containers() == []


def test_an_engine_that_outgrows_its_memory_limit_is_said_to_be_killed_for_it(house: DockerHouse) -> None:
    house.add(runtime_options={"memory": "8MiB"})
    house.start()
    failed = house.instance()
    assert failed["state"] == "failed"
    assert failed["failure"]["oom_killed"] is True
    assert "memory" in failed["reason"]


def test_an_image_that_is_missing_offline_is_named_with_the_way_to_load_it(house: DockerHouse) -> None:
    house.add(runtime_options={"image": "ghcr.io/nobody/nothing:1"})
    refused = house.start()
    assert (refused["status"], refused["code"]) == (502, "image_missing")
    assert "ghcr.io/nobody/nothing:1" in refused["detail"]
    assert "docker load" in refused["hint"]
    assert house.engine.containers() == []


def test_an_image_that_is_not_here_is_pulled_with_its_progress_shown(make: Make) -> None:
    house = make(OSTLER_OFFLINE="0")
    server = llama_server()
    assert server is not None
    with serving(Registry(with_libraries(server), ["/llama-server"])) as registry:
        house.add(runtime_options={"image": registry.image})
        assert any("pulled first" in warning for warning in house.dry_run()["warnings"])
        registry.gate.clear()
        house.start(wait=False)
        house.until(lambda found: (found["reason"] or "").startswith(f"pulling the image {registry.image}"))
        assert house.stop()["state"] == "stopped"
        registry.gate.set()
        assert house.start()["state"] == "running"
    house.engine.docker("rm", "--force", NAME)
    house.server.end()
    house.engine.docker("rmi", "--force", registry.image)


def test_an_image_that_the_registry_does_not_have_is_named(make: Make) -> None:
    house = make(OSTLER_OFFLINE="0")
    house.add(runtime_options={"image": "127.0.0.1:9/nothing:1"})
    refused = house.start()
    assert refused["code"] == "image_missing"
    assert "127.0.0.1:9/nothing:1" in refused["detail"]


def test_an_image_without_the_engine_is_said_to_be_the_wrong_one(house: DockerHouse) -> None:
    house.add(engine_command="/no/such/server")
    house.start()
    failed = house.instance()["failure"]
    assert failed["exit_code"] == 127
    assert any("/no/such/server" in line for line in failed["log_tail"])
    assert house.engine.containers() == []


def test_a_file_that_the_daemon_does_not_see_is_said(house: DockerHouse) -> None:
    house.add(runtime_options={"mounts": ["/no/such/folder:/extra"]})
    refused = house.start()
    assert "/no/such/folder" in refused["detail"]
    assert "under the same path" in house.instance()["hint"]
    assert house.engine.containers() == []


def slow(house: DockerHouse, *manners: str, **recipe: Any) -> None:
    """A model whose engine is the stand-in, which never says ready with `--load-s -1`."""
    python = f"/py/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
    house.add(
        engine_command=" ".join([python, "-S", "-E", "/stand_in.py", *manners]),
        env={"LD_LIBRARY_PATH": "/py/lib"},
        runtime_options=PYTHON,
        **recipe,
    )


def test_a_stop_ends_an_engine_that_still_loads(house: DockerHouse) -> None:
    slow(house, "--load-s", "-1")
    house.start(wait=False)
    house.until_state("loading")
    assert house.stop()["state"] == "stopped"
    assert house.states() == ["starting", "loading", "stopping", "stopped"]
    assert house.engine.containers() == []


def test_an_engine_that_is_never_ready_failed_and_its_container_is_gone(house: DockerHouse) -> None:
    slow(house, "--load-s", "-1", policy={"start_timeout_s": 2})
    house.start()
    failed = house.instance()
    assert failed["state"] == "failed"
    assert "was not ready within 2 s" in failed["reason"]
    assert house.engine.containers() == []
    assert house.stop()["state"] == "stopped"
    assert house.states() == ["starting", "loading", "failed", "stopped"]


def test_a_stop_that_hangs_ends_in_a_kill(make: Make) -> None:
    house = make(OSTLER_STOP_GRACE_S="0.5")
    slow(house, "--ignore-term")
    house.start()
    assert house.stop()["state"] == "stopped"
    assert house.engine.containers() == []
    assert "bye" not in house.log()


def test_two_starts_at_once_make_one_container(house: DockerHouse) -> None:
    house.add()
    views = [house.start(wait=False), house.start(wait=True)]
    assert views[1]["state"] == "running"
    assert house.states().count("starting") == 1
    assert house.engine.containers() == [NAME]


def test_a_container_of_somebody_else_with_that_name_is_left_alone(house: DockerHouse) -> None:
    house.engine.docker("create", "--name", NAME, LLAMA_IMAGE)
    house.add()
    refused = house.start()
    assert NAME in refused["detail"]
    assert "somebody else" in refused["detail"]
    assert f"docker rm -f {NAME}" in house.instance()["hint"]
    assert house.engine.containers() == [NAME]
    house.engine.docker("rm", NAME)
    assert house.start()["state"] == "running"


def test_a_restarted_server_takes_its_containers_on(house: DockerHouse) -> None:
    house.add()
    first = house.start()
    container = house.engine.inspect(NAME)["Id"]
    house.server.kill()
    house.server.start()
    assert house.instance()["state"] == "running"
    assert house.instance()["id"] == first["id"]
    assert house.engine.inspect(NAME)["Id"] == container
    assert house.states()[-1] == "adopted"
    assert house.chat()
    assert house.stop()["state"] == "stopped"
    assert house.engine.containers() == []


def test_what_ended_while_the_server_was_away_is_marked_and_started_again(house: DockerHouse) -> None:
    house.add()
    first = house.start()
    house.server.kill()
    house.engine.docker("kill", NAME)
    house.server.start()
    again = house.until_state("running")
    assert again["id"] != first["id"]
    assert "failed" in house.states()


def test_a_container_that_no_launch_knows_is_ended(house: DockerHouse) -> None:
    house.add()
    house.start()
    house.server.kill()
    for file in house.server.data_dir.glob("ostler.db*"):
        file.unlink()
    house.server.start()
    assert house.engine.containers() == []


def test_two_ostlers_on_one_daemon_leave_each_others_containers_alone(make: Make) -> None:
    one, two = make("one"), make("two")
    one.add()
    two.add()
    one.start()
    refused = two.start()
    assert "another Ostler" in refused["detail"]
    assert "OSTLER_DOCKER_NAME_PREFIX" in two.instance()["hint"]
    two.server.end()
    three = make("three", OSTLER_DOCKER_NAME_PREFIX="lab-")
    three.add()
    assert three.start()["state"] == "running"
    three.server.kill()
    three.server.start()
    assert one.engine.containers() == ["lab-" + NAME, NAME]
    assert three.stop()["state"] == "stopped"
    assert one.instance()["state"] == "running"
    assert one.chat()


def test_while_the_daemon_is_down_a_start_is_refused_and_succeeds_afterwards(house: DockerHouse) -> None:
    house.add()
    house.engine.stop()
    try:
        refused = house.start()
        assert (refused["status"], refused["code"]) == (503, "runtime_away")
        assert "does not answer since" in refused["detail"]
        assert house.instance()["state"] == "stopped"
    finally:
        house.engine.start()
    assert house.start()["state"] == "running"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_daemon_that_goes_away_takes_no_model_for_gone_and_it_runs_again(
    house: DockerHouse, number: int
) -> None:
    house.add()
    first = house.start()
    house.engine.stop(number)
    try:
        away = house.until(lambda found: "does not answer since" in (found["reason"] or ""))
        assert away["state"] in ("running", "failed")
    finally:
        house.engine.start()
    again = house.until(lambda found: found["state"] == "running" and found["id"] != first["id"])
    assert again["reason"] is None
    assert house.chat()
    assert house.engine.containers() == [NAME]


def test_a_stop_while_the_daemon_is_down_is_finished_when_it_is_back(house: DockerHouse) -> None:
    house.add()
    house.start()
    house.engine.stop(signal.SIGKILL)
    try:
        refused = house.stop()
        assert "does not answer since" in refused["detail"]
        assert house.instance()["state"] in ("stopping", "stopped", "failed")
    finally:
        house.engine.start()
    house.until_state("stopped")
    assert house.engine.containers() == []


def test_a_server_that_starts_while_the_daemon_is_down_goes_on_when_it_is_back(house: DockerHouse) -> None:
    house.add()
    house.start()
    house.server.kill()
    house.engine.stop()
    try:
        house.server.start()
        unseen = house.instance()
        assert unseen["state"] == "loading"
        assert "does not answer since" in unseen["reason"]
    finally:
        house.engine.start()
    house.until_state("running")
    assert house.chat()
    assert house.engine.containers() == [NAME]

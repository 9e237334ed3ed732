"""A Docker Engine of our own: a real `dockerd` in a folder, that a test may stop and start.

It touches neither the host's firewall nor another Docker on this machine: no iptables, no default
bridge. Published ports work all the same, by Docker's userland proxy. Images are imported from a few
files, as no registry can be reached.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

LLAMA_IMAGE = "ostler-test/llama.cpp:cpu"
EMPTY_IMAGE = "ostler-test/empty:1"
START_S = 60.0
CHECKOUT = Path(__file__).parents[2]


class DockerEngine:
    """`host` is its address. Commands go through the real `docker` client, not through ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.host = f"unix://{folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        """The daemon's command line."""
        command = ["dockerd", "--data-root", f"{self.folder}/data", "--exec-root", f"{self.folder}/exec"]
        command += ["--pidfile", f"{self.folder}/pid", "-H", self.host, "--bridge=none", "--iptables=false"]
        return [
            *command,
            "--ip6tables=false",
            "--ip-forward=false",
            "--ip-masq=false",
            "--shutdown-timeout=5",
        ]

    def start(self) -> None:
        """Start it and wait until it answers."""
        for stale in ("pid", "exec/containerd/containerd.pid"):  # left by one that was killed
            (self.folder / stale).unlink(missing_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self.docker("version", check=False).returncode == 0:
                return
            time.sleep(0.1)
        raise AssertionError(f"dockerd did not start: {(self.folder / 'log').read_text()[-3000:]}")

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it; with SIGTERM it ends its containers first, as at a shutdown of the machine."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(60)

    def docker(self, *arguments: str, check: bool = True, stdin: bytes | None = None) -> Any:
        """Run `docker` against it; gives the finished process."""
        command = ["docker", "-H", self.host, *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, check=check, timeout=120)

    def inspect(self, container: str) -> dict[str, Any]:
        """What it says of a container."""
        found: dict[str, Any] = json.loads(self.docker("inspect", container).stdout)[0]
        return found

    def containers(self, *more: str) -> list[str]:
        """The names of all containers, running or not."""
        names: str = self.docker("ps", "--all", "--format", "{{.Names}}", *more).stdout.decode()
        return sorted(names.split())

    @contextmanager
    def refusing_to_remove(self, container: str) -> Iterator[None]:
        """Meanwhile a file lies in the container's folder that the daemon cannot delete, and it says so."""
        stone = Path(f"{self.folder}/data/containers/{self.inspect(container)['Id']}/stone")
        stone.touch()
        if subprocess.run(["chattr", "+i", str(stone)], check=False).returncode != 0:
            pytest.skip(f"the file system of {self.folder} knows no files that cannot be deleted (chattr +i)")
        try:
            yield
        finally:
            subprocess.run(["chattr", "-i", str(stone)], check=True)

    def import_image(self, name: str, files: dict[str, Path], *changes: str) -> None:
        """Make an image of these files: path inside to path here."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for folder in ("tmp", "models", "py", "lib", "lib64", "usr"):
                entry = tarfile.TarInfo(folder)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
                tar.addfile(entry)
            for inside, here in files.items():
                tar.add(here.resolve(), inside.lstrip("/"))
        options = [part for change in changes for part in ("--change", change)]
        self.docker("import", *options, "-", name, stdin=buffer.getvalue())

    def clean(self) -> None:
        """Take away every container and network."""
        if names := self.containers():
            self.docker("rm", "--force", "--volumes", *names)
        self.docker("network", "prune", "--force")

    def end(self) -> None:
        """Take away all that it made on this machine."""
        if self._process is not None and self._process.poll() is None:
            self.clean()
            self.stop()
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            place = line.split()[1]  # the daemon mounts its own folders onto themselves and leaves them so
            if Path(place).is_relative_to(self.folder):
                subprocess.run(["umount", "--lazy", place], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


class PodmanService(DockerEngine):
    """Podman's service that speaks Docker's API, in place of a Docker Engine."""

    def command(self) -> list[str]:
        """The service's command line."""
        # Podman's own limits may be above those that this machine allows.
        limits = '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
        (self.folder / "containers.conf").write_text(limits)
        own = ["--root", f"{self.folder}/root", "--runroot", f"{self.folder}/run"]
        set_file = ["env", f"CONTAINERS_CONF={self.folder}/containers.conf"]
        return [*set_file, "podman", *own, "system", "service", "--time=0", self.host]


def make_images(engine: DockerEngine) -> None:
    """An empty image, and one of the real llama-server with the libraries that it needs."""
    engine.import_image(EMPTY_IMAGE, {})
    server = llama_server()
    if server is None:
        return
    engine.import_image(LLAMA_IMAGE, with_libraries(server), 'ENTRYPOINT ["/llama-server"]')


def with_libraries(server: Path) -> dict[str, Path]:
    """The files of an image of this llama-server: path inside to path here."""
    return {"/llama-server": server, **{path: Path(path) for path in libraries(server)}}


def llama_server() -> Path | None:
    """The real llama-server of this machine, as `tests/real/install.sh` leaves it."""
    found = CHECKOUT / ".venv-llama" / "bin" / "llama-server"
    return found if found.exists() else None


def libraries(program: Path) -> Sequence[str]:
    """The shared libraries of a program, by `ldd`."""
    lines = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=True).stdout
    words = [word for line in lines.splitlines() for word in line.split()]
    return sorted({word for word in words if word.startswith("/")})


def require(program: str) -> None:
    """Name the missing part where there is no such daemon to start."""
    for part in (program, "docker"):
        if shutil.which(part) is None:
            pytest.skip(f"a program to run containers is missing ({part}): run tests/real/install.sh")
    if os.getuid() != 0:
        pytest.skip(f"{program} needs root to start")

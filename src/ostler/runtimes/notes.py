"""Notes: one small JSON file per engine, by which a later server finds it again.

A note is written before the process is made and completed right after, so at no moment is there an
engine without one. It holds no secret.
"""

from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from ostler.core.launch import Handle
from ostler.runtimes.pids import ProcessId
from ostler.runtimes.ports import HOST

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Note:
    """What is known of one launch. `pid` and `began` are None until the process exists.

    `oom_kills` is the kernel's count at launch; `ended`, `exit_code` and `oom_killed` are set once
    the end was seen.
    """

    instance_id: int
    model_id: int
    spec_digest: str
    port: int
    log: str
    pid: int | None = None
    began: str | None = None
    oom_kills: int | None = None
    ended: bool = False
    exit_code: int | None = None
    oom_killed: bool = False

    @property
    def process(self) -> ProcessId | None:
        """The process, once it exists."""
        return None if self.pid is None or self.began is None else ProcessId(self.pid, self.began)

    def handle(self) -> Handle:
        """The handle that is stored and given back to us."""
        data = {
            "instance_id": self.instance_id,
            "pid": self.pid,
            "began": self.began,
            "port": self.port,
            "log": self.log,
        }
        return Handle(runtime="process", url=f"http://{HOST}:{self.port}", data=data)


class Notes:
    """The folder of notes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, note: Note) -> None:
        """Store in one step (written aside, then renamed), readable by the owner only."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self._folder / f".{note.instance_id}.new"
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(fd, "w") as file:
            json.dump(asdict(note), file)
        draft.replace(self._path(note.instance_id))

    def read(self, instance_id: int) -> Note | None:
        """The note of one instance; None where there is none that can be read."""
        return _parse(self._path(instance_id))

    def all(self) -> list[Note]:
        """Every note that can be read; others are named in the log and left alone."""
        found = (_parse(path) for path in sorted(self._folder.glob("[0-9]*.json")))
        return [note for note in found if note is not None]

    def remove(self, instance_id: int) -> None:
        """Forget one instance."""
        self._path(instance_id).unlink(missing_ok=True)

    def _path(self, instance_id: int) -> Path:
        return self._folder / f"{instance_id}.json"


def _parse(path: Path) -> Note | None:
    try:
        return Note(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        log.warning("the note %s about an engine cannot be read: %s", path, error)
        return None

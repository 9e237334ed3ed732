"""Starting a model while saying each state as it becomes true."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from ostler.cli import human
from ostler.cli.client import API, Client, Json, model_path
from ostler.cli.failures import CommandFailed

START_TIMEOUT_S = 3600.0
"""The server ends a start that takes too long by its own setting; this only guards against silence."""
LAST_EVENT_S = 1.0
"""How long the last state may come later on the event stream than the answer to the start."""

WORDS = {
    "instance.starting": "starting the engine",
    "instance.loading": "loading the model",
    "instance.running": "ready",
    "instance.failed": "failed",
    "instance.stopping": "stopping",
    "instance.stopped": "stopped",
}
_LAST = ("instance.running", "instance.failed")


def start_and_watch(
    client: Client,
    name: str,
    *,
    say: Callable[[str], None],
    keep: bool = True,
    ignore: Sequence[str] = (),
) -> Json:
    """Start a model, wait until it is running and hand each state to `say`; the instance is returned.

    The states come from the event stream, which is opened before the start so that none is missed.
    One that runs already is returned at once. Without `keep` it stops again when idle;
    `ignore` are codes of errors in its dry run that do not matter. Raises CommandFailed with the reason.
    """
    path, order = model_path(name, "start"), {"wait": True, "keep": keep, "ignore": list(ignore)}
    if client.get(model_path(name)).get("state") == "running":
        return client.post(path, order, timeout_s=START_TIMEOUT_S)
    watch = _Watch(client, name, say)
    try:
        return client.post(path, order, timeout_s=START_TIMEOUT_S)
    finally:
        watch.over.wait(LAST_EVENT_S)
        watch.say = _nothing


def _nothing(_: str) -> None:
    """For what is still heard when nobody listens any more."""


class _Watch:
    """A thread that says the states of one model until it is running or has failed."""

    def __init__(self, client: Client, name: str, say: Callable[[str], None]) -> None:
        self.say = say
        self.over = threading.Event()
        self._client, self._name = client, name
        self._listening = threading.Event()
        # A daemon: it may sit in a read of the stream when the command ends.
        threading.Thread(target=self._listen, name="states", daemon=True).start()
        self._listening.wait(LAST_EVENT_S)

    def _listen(self) -> None:
        try:
            with self._client.events(f"{API}/events") as events:
                self._listening.set()
                for event in events:
                    if isinstance(event.data, dict) and event.data.get("subject_name") == self._name:
                        self._tell(event.kind, event.data.get("data") or {})
                    if self.over.is_set():
                        return
        except CommandFailed as failure:
            self.say(f"the states cannot be followed: {failure.message}")
        finally:
            self._listening.set()
            self.over.set()

    def _tell(self, kind: str, facts: Json) -> None:
        if word := WORDS.get(kind):
            seconds = facts.get("load_seconds")
            self.say(f"{word} ({human.duration(seconds)})" if kind == _LAST[0] and seconds else word)
        if kind in _LAST:
            self.over.set()

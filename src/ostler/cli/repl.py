"""The conversation at the terminal: lines in, answers out, and the slash commands.

Ctrl-C ends an answer, never the program; Ctrl-D and /bye leave.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ostler.cli.chat import Conversation
from ostler.cli.failures import CommandFailed, print_failure
from ostler.cli.output import clean, paint, print_facts

HELP = """\
  /set system TEXT          set the system message (empty: none)
  /set parameter NAME VALUE set a request parameter, e.g. temperature 0.2
  /set verbose on|off       print timings after each answer
  /show                     show the model and these settings
  /clear                    forget the conversation
  /bye                      leave (also Ctrl-D)
  /?                        this help
  \"\"\"                       begin and end a message of several lines
Ctrl-C ends an answer and clears a line."""

MULTI = '"""'


class Repl:
    """Reads a person's lines and runs one conversation until they leave."""

    def __init__(
        self,
        conversation: Conversation,
        *,
        show_model: Callable[[], None],
        history: Path | None,
        verbose: bool = False,
    ) -> None:
        self._conversation = conversation
        self._show_model = show_model
        self._verbose = verbose
        self._history = history

    def run(self) -> None:
        """Until /bye or Ctrl-D."""
        read = self._reader()
        while True:
            try:
                text = _read_message(read)
            except KeyboardInterrupt:
                continue
            except EOFError:
                return
            if text.startswith("/"):
                if not self._obey(text):
                    return
            elif text.strip():
                self._answer(text)

    def _reader(self) -> Callable[[str], str]:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.history import FileHistory, InMemoryHistory

        kept = InMemoryHistory() if self._history is None else FileHistory(str(self._history))
        session: PromptSession[str] = PromptSession(history=kept)
        return lambda prompt: session.prompt(prompt)

    def _answer(self, text: str) -> None:
        try:
            print_answer(self._conversation, text)
        except KeyboardInterrupt:
            print(paint("(stopped)", "dim"))
        except CommandFailed as failure:
            print_failure(failure)
        if self._verbose:
            print_timing(self._conversation)
        print()

    def _obey(self, line: str) -> bool:
        """Carry out a slash command; False means leave."""
        word, _, rest = line.strip().partition(" ")
        if word in ("/bye", "/exit", "/quit"):
            return False
        if word in ("/?", "/help"):
            print(HELP)
        elif word == "/clear":
            self._conversation.clear()
            print("Forgotten.")
        elif word == "/show":
            self._show()
        elif word == "/set":
            self._set(rest.strip())
        else:
            print(f"Unknown command {word}. /? lists them.")
        return True

    def _show(self) -> None:
        self._show_model()
        shown = {**self._conversation.parameters}
        if self._conversation.system:
            shown["system"] = self._conversation.system
        print_facts("Conversation", [(name, str(value)) for name, value in shown.items()])

    def _set(self, rest: str) -> None:
        what, _, value = rest.partition(" ")
        if what == "system":
            self._conversation.system = value.strip().strip('"') or None
            print("System message set." if self._conversation.system else "No system message.")
        elif what == "parameter" and value.strip():
            name, _, text = value.strip().partition(" ")
            self._conversation.parameters[name] = parameter_value(text.strip())
            print(f"{name} set to {text.strip()}.")
        elif what == "verbose" and value.strip() in ("on", "off", ""):
            self._verbose = value.strip() != "off"
            print(f"Timings are {'on' if self._verbose else 'off'}.")
        else:
            print("Use: /set system TEXT, /set parameter NAME VALUE or /set verbose on|off")


def _read_message(read: Callable[[str], str]) -> str:
    line = read(">>> ")
    if not line.lstrip().startswith(MULTI):
        return line
    first = line.lstrip().removeprefix(MULTI)
    if first.endswith(MULTI):
        return first.removesuffix(MULTI)
    lines = [first]
    while True:
        line = read("... ")
        if line.rstrip().endswith(MULTI):
            lines.append(line.rstrip().removesuffix(MULTI))
            return "\n".join(lines).strip("\n")
        lines.append(line)


def parameter_value(text: str) -> Any:
    """`0.2`, `true` or `["a"]` as JSON; anything else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def print_answer(conversation: Conversation, text: str) -> None:
    """Print an answer as it comes. Raises KeyboardInterrupt at Ctrl-C; the rest is not fetched then."""
    thinking = False
    answer = conversation.ask(text)
    try:
        for piece in answer:
            if piece.thought != thinking:
                thinking = piece.thought
                print("" if thinking else "\n")
            shown = "\n".join(clean(line) for line in piece.text.split("\n"))
            print(paint(shown, "dim") if thinking else shown, end="", flush=True)
    finally:
        answer.close()
        print(flush=True)


def print_timing(conversation: Conversation) -> None:
    """The numbers of the last answer, on stderr."""
    if conversation.timing is not None:
        print_facts("Timings", conversation.timing.lines(), sys.stderr)

"""`ostler run`: from a name, a path or a repo to an answer."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ostler.cli.chat import Conversation
from ostler.cli.client import Client, Json, model_path
from ostler.cli.connection import Server, data_dir
from ostler.cli.options import Target, with_server
from ostler.cli.output import is_terminal, note, paint
from ostler.cli.starting import START_TIMEOUT_S, start_and_watch
from ostler.cli.targets import resolve_model


@with_server
def run(
    server: Server,
    model: Target,
    prompt: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PROMPT]...", help="A question; without one: a conversation."),
    ] = None,
    system: Annotated[str | None, typer.Option("--system", help="The system message.")] = None,
    ctx_tokens: Annotated[
        int | None,
        typer.Option("--ctx", metavar="TOKENS", min=1, help="Context length; the recipe keeps it."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="Print timings after each answer.")] = False,
) -> None:
    """Chat with a model; where it is missing it is pulled first.

    Without a prompt a conversation begins: /? lists its commands, /bye leaves. The model stops again
    when nobody has used it for a while; to keep it running: ostler start.
    Example: ostler run org/repo:Q4_K_M "Why is the sky blue?"
    """
    client = server.client()
    found = resolve_model(client, model)
    name = str(found["name"])
    if ctx_tokens:
        _set_context(client, found, ctx_tokens)
    _start(client, name)
    conversation = Conversation(client, name, system)
    question = _question(prompt)
    if question is None:
        _converse(conversation, client, name, verbose)
    elif question.strip():
        from ostler.cli.repl import print_answer, print_timing

        print_answer(conversation, question)
        if verbose:
            print_timing(conversation)


def _set_context(client: Client, model: Json, tokens: int) -> None:
    """Make the context length part of the recipe; one that runs with another is restarted."""
    if (model.get("options") or {}).get("context_length") == tokens:
        return
    name = str(model["name"])
    before = (model.get("options") or {}).get("context_length") or "the model's own"
    client.patch(model_path(name), {"options": {"context_length": tokens}})
    note(f"{name} keeps a context length of {tokens} tokens from now on (before: {before})")
    if model.get("state") == "running":
        client.post(model_path(name, "apply"), timeout_s=START_TIMEOUT_S)


def _start(client: Client, name: str) -> None:
    """Start it; on a terminal the states appear on stderr while it loads."""
    say = (
        (lambda text: note(paint(f"{name}: {text}", "dim", sys.stderr)))
        if is_terminal(sys.stderr)
        else _silent
    )
    start_and_watch(client, name, say=say, keep=False)


def _silent(_: str) -> None:
    """Pipes get the answer only."""


def _question(prompt: list[str] | None) -> str | None:
    """The prompt and what is piped in; None means that a person sits there to talk."""
    words = " ".join(prompt) if prompt else None
    if is_terminal(sys.stdin):
        return words
    piped = sys.stdin.read()
    return "\n\n".join(part for part in (words, piped) if part) if words or piped else ""


def _converse(conversation: Conversation, client: Client, name: str, verbose: bool) -> None:
    from ostler.cli.commands.models import print_model
    from ostler.cli.repl import Repl

    folder = data_dir()
    history = folder / "chat-history" if folder.is_dir() else None
    print(f"Chatting with {name}. /? for help, /bye to leave.")
    Repl(
        conversation,
        show_model=lambda: print_model(client.get(model_path(name))),
        history=history,
        verbose=verbose,
    ).run()

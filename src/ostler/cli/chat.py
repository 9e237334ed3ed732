"""One conversation over the OpenAI API, streamed."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any

from ostler.cli import human
from ostler.cli.client import Client, Json
from ostler.cli.failures import CommandFailed

CHAT_PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of an answer; `thought` marks the model's reasoning."""

    text: str
    thought: bool = False


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one answer took. Seconds; tokens as the engine counted them, None where it did not."""

    total_s: float
    first_token_s: float | None
    prompt_tokens: int | None
    answer_tokens: int | None
    prompt_per_s: float | None
    answer_per_s: float | None

    def lines(self) -> list[tuple[str, str]]:
        """Name and value of each number, the known ones only."""
        told = [
            ("total duration", human.duration(self.total_s)),
            ("time to first token", human.duration(self.first_token_s)),
            ("prompt tokens", _number(self.prompt_tokens)),
            ("prompt rate", _per_second(self.prompt_per_s)),
            ("answer tokens", _number(self.answer_tokens)),
            ("answer rate", _per_second(self.answer_per_s)),
        ]
        return [(name, value) for name, value in told if value]


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _per_second(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} tokens/s"


@dataclass(slots=True)
class Conversation:
    """The messages so far and the parameters of the next request."""

    client: Client
    model: str
    system: str | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    messages: list[Json] = field(default_factory=list)
    timing: Timing | None = None

    def clear(self) -> None:
        """Forget what was said; the system message stays."""
        self.messages.clear()

    def ask(self, text: str) -> Generator[Piece]:
        """Send one message and give the answer piece by piece.

        The exchange enters the conversation when the generator ends, also early: what was said so
        far counts as the answer. A question without any answer is forgotten.
        """
        question = {"role": "user", "content": text}
        answer: list[str] = []
        try:
            for piece in self._stream([*self.messages, question]):
                if not piece.thought:
                    answer.append(piece.text)
                yield piece
        finally:
            if answer:
                self.messages += [question, {"role": "assistant", "content": "".join(answer)}]

    def _stream(self, messages: list[Json]) -> Generator[Piece]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        body = {
            "model": self.model,
            "messages": [*system, *messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **self.parameters,
        }
        started, first = time.monotonic(), None
        usage: Json = {}
        timings: Json = {}
        with self.client.events(CHAT_PATH, body) as events:
            for event in events:
                if not isinstance(event.data, dict):
                    continue
                if event.kind == "error" or "error" in event.data:
                    raise CommandFailed.from_problem(502, event.data)
                usage = event.data.get("usage") or usage
                timings = event.data.get("timings") or timings
                for piece in _pieces(event.data):
                    first = first or time.monotonic()
                    yield piece
        self.timing = _timing(started, first, usage, timings)


def _pieces(chunk: Json) -> Generator[Piece]:
    for choice in chunk.get("choices") or ():
        delta = choice.get("delta") or {}
        if thought := delta.get("reasoning_content") or delta.get("reasoning"):
            yield Piece(thought, thought=True)
        if text := delta.get("content"):
            yield Piece(text)


def _timing(started: float, first: float | None, usage: Json, timings: Json) -> Timing:
    """From the engine's own `timings` (llama.cpp) where there are some, else from the clock here."""
    now = time.monotonic()
    answer_tokens = usage.get("completion_tokens", timings.get("predicted_n"))
    measured = answer_tokens / (now - first) if first and answer_tokens and now > first else None
    return Timing(
        total_s=now - started,
        first_token_s=first - started if first else None,
        prompt_tokens=usage.get("prompt_tokens", timings.get("prompt_n")),
        answer_tokens=answer_tokens,
        prompt_per_s=timings.get("prompt_per_second"),
        answer_per_s=timings.get("predicted_per_second") or measured,
    )

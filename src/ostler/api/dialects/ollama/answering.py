"""What an engine answers, as Ollama tells it (https://docs.ollama.com/api/chat, /api/generate).

Counts are the engine's. Durations are nanoseconds: the engine's own where it measures (llama.cpp), else what
was measured here between its pieces; what nobody measured is left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from ostler.core.errors import EngineError, Invalid, OstlerError

NANO = 1_000_000_000
NDJSON, JSON, SSE = b"application/x-ndjson", b"application/json; charset=utf-8", b"text/event-stream"


class EngineSaidNo(EngineError):
    """The engine told of an error after its answer had begun."""


class AnswerNotUnderstood(EngineError):
    """The engine's answer is not what it should be."""


def now_text() -> str:
    """This moment as Ollama writes it: with nine digits and a Z."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"


def moment(at: datetime) -> str:
    """A moment as Ollama writes it."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%f}000Z"


class Framing:
    """How messages go to the client: one a line, as server-sent events, or one alone."""

    def __init__(self, *, wants_stream: bool, accept: str) -> None:
        self._is_sse = wants_stream and "text/event-stream" in accept
        self.media_type = SSE if self._is_sse else NDJSON if wants_stream else JSON

    def framed(self, message: bytes) -> bytes:
        """A message as a piece of the answer."""
        if self._is_sse:
            return b"data: " + message + b"\n\n"
        return message + b"\n" if self.media_type == NDJSON else message

    def of(self, message: Mapping[str, Any]) -> bytes:
        """A message, made into JSON."""
        return self.framed(json.dumps(message, separators=(",", ":")).encode())


class Clocked:
    """How long an answer takes. Times are monotonic seconds: `began` is when the request came."""

    def __init__(self, began: float, now: Callable[[], float]) -> None:
        self._began = began
        self._now = now
        self._asked_at: float | None = None
        self._first_at: float | None = None
        self._last_at: float | None = None

    def asked(self) -> None:
        """The engine is ready, and is asked now."""
        self._asked_at = self._now()

    def heard(self) -> None:
        """It sent some of its answer."""
        self._last_at = self._now()
        self._first_at = self._first_at or self._last_at

    def durations(self, timings: Mapping[str, Any]) -> dict[str, int]:
        """What is known, in nanoseconds: of `timings` what llama.cpp measured, in milliseconds."""
        told = {"total_duration": self._now() - self._began}
        if self._asked_at is not None:
            told["load_duration"] = self._asked_at - self._began
            prompt, answer = _seconds(timings, "prompt_ms"), _seconds(timings, "predicted_ms")
            if prompt is None and self._first_at is not None and self._last_at is not None:
                prompt, answer = self._first_at - self._asked_at, self._last_at - self._first_at
            if prompt is not None:
                told["prompt_eval_duration"] = prompt
            if answer is not None:
                told["eval_duration"] = answer
        return {name: round(seconds * NANO) for name, seconds in told.items()}


class Telling:
    """One answer of chat or generate on its way: eats the events of the engine, gives messages of Ollama's.

    `is_chat`: the text stands in a message, else in `response`. `model` is the name that was asked for,
    `top` how many other tokens are told beside each one.
    """

    def __init__(self, model: str, clock: Clocked, *, is_chat: bool, top: int = 0) -> None:
        self._top = top
        self._model = model
        self._clock = clock
        self._is_chat = is_chat
        self._said: dict[str, list[str]] = {"content": [], "thinking": []}
        self._logprobs: list[Any] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._reason: str | None = None
        self._usage: Mapping[str, Any] = {}
        self._timings: Mapping[str, Any] = {}

    def event(self, data: bytes) -> list[dict[str, Any]]:
        """The messages that one event makes. Raises EngineSaidNo, AnswerNotUnderstood."""
        if data == b"[DONE]" or not data:
            return []
        event = _object(data)
        if event.get("error"):
            raise _told(event["error"])
        self._usage = _mapping(event.get("usage")) or self._usage
        self._timings = _mapping(event.get("timings")) or self._timings
        told = _choice(event, self._top)
        if told is None:
            return []
        self._reason = told.reason or self._reason
        self._take_calls(told.calls)
        if not (told.content or told.thinking or told.logprobs):
            return []
        self._clock.heard()
        self._said["content"].append(told.content)
        self._said["thinking"].append(told.thinking)
        self._logprobs += told.logprobs
        return [self._message(told.content, told.thinking, told.logprobs)]

    def calls(self) -> list[dict[str, Any]]:
        """The calls of tools as a message; none where there are none. Raises AnswerNotUnderstood."""
        if not self._calls:
            return []
        return [self._message("", "", [], self._whole_calls())]

    def last(self, *, whole: bool) -> dict[str, Any]:
        """The message that ends the answer, with all of it where `whole`. Raises AnswerNotUnderstood."""
        if self._reason is None:
            raise AnswerNotUnderstood("the engine ended before its answer was whole")
        content, thinking = ("".join(self._said[name]) if whole else "" for name in ("content", "thinking"))
        logprobs = self._logprobs if whole else []
        calls = self._whole_calls() if whole and self._calls else []
        message = self._message(content, thinking, logprobs, calls)
        reason = "length" if self._reason == "length" else "stop"
        return {**message, "done": True, "done_reason": reason, **self._counts()}

    def idle(self, reason: str) -> dict[str, Any]:
        """The whole answer where nothing was asked of the engine: `load` or `unload`."""
        return {**self._message("", "", []), "done": True, "done_reason": reason}

    def _message(
        self, content: str, thinking: str, logprobs: list[Any], calls: list[dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        said: dict[str, Any] = {"content" if self._is_chat else "response": content}
        if thinking:
            said["thinking"] = thinking
        if calls:
            said["tool_calls"] = calls
        if self._is_chat:
            said = {"message": {"role": "assistant", **said}}
        if logprobs:
            said["logprobs"] = logprobs
        return {"model": self._model, "created_at": now_text(), **said, "done": False}

    def _counts(self) -> dict[str, int]:
        prompt = _number(self._usage, "prompt_tokens")
        answer = _number(self._usage, "completion_tokens")
        if prompt is None and (fresh := _number(self._timings, "prompt_n")) is not None:
            prompt = fresh + (_number(self._timings, "cache_n") or 0)
        if answer is None:
            answer = _number(self._timings, "predicted_n")
        durations = self._clock.durations(self._timings)
        counts = {"prompt_eval_count": prompt, "eval_count": answer}
        return durations | {name: count for name, count in counts.items() if count is not None}

    def _take_calls(self, pieces: list[Any]) -> None:
        for number, piece in enumerate(pieces):
            if not isinstance(piece, dict):
                continue
            index = piece.get("index")
            call = self._calls.setdefault(
                index if isinstance(index, int) else number, {"id": "", "name": "", "arguments": ""}
            )
            function = _mapping(piece.get("function"))
            call["id"] += _text(piece.get("id"))
            call["name"] += _text(function.get("name"))
            call["arguments"] += _text(function.get("arguments"))

    def _whole_calls(self) -> list[dict[str, Any]]:
        whole = []
        for index, call in sorted(self._calls.items()):
            try:
                arguments = json.loads(call["arguments"] or "{}")
            except (ValueError, RecursionError):
                arguments = None
            if not isinstance(arguments, dict):
                raise AnswerNotUnderstood(
                    f"the model called {call['name'][:100]!r} with arguments that are no JSON object",
                    hint="Ask again, or ask a model that is better with tools.",
                )
            function = {"index": index, "name": call["name"], "arguments": arguments}
            whole.append({**({"id": call["id"]} if call["id"] else {}), "function": function})
        return whole


class _Choice:
    """What one event says."""

    __slots__ = ("calls", "content", "logprobs", "reason", "thinking")

    def __init__(
        self, content: Any, thinking: Any, calls: Any, logprobs: list[dict[str, Any]], reason: str | None
    ) -> None:
        self.content = _text(content)
        self.thinking = _text(thinking)
        self.calls = calls if isinstance(calls, list) else []
        self.logprobs = logprobs
        self.reason = reason


def _choice(event: Mapping[str, Any], top: int) -> _Choice | None:
    """The first choice of a chat or a completion, or llama.cpp's own event of `/infill`."""
    choices = event.get("choices")
    if not isinstance(choices, list):
        if "content" not in event:
            return None
        stopped = "length" if event.get("stop_type") == "limit" else "stop"
        found = _logprobs({"content": event.get("completion_probabilities")}, top)
        return _Choice(event["content"], "", None, found, stopped if event.get("stop") is True else None)
    if not choices or not isinstance(choices[0], dict):
        return None
    choice = choices[0]
    delta = _mapping(choice.get("delta")) or {"content": choice.get("text")}
    thinking = delta.get("reasoning_content") or delta.get("reasoning")
    reason = choice.get("finish_reason")
    return _Choice(
        delta.get("content"),
        thinking,
        delta.get("tool_calls"),
        _logprobs(_mapping(choice.get("logprobs")), top),
        reason if isinstance(reason, str) else None,
    )


def _logprobs(said: Mapping[str, Any], top: int) -> list[dict[str, Any]]:
    """Tokens with their probabilities: OpenAI's newer shape, or the older one of completions."""
    content = said.get("content")
    if isinstance(content, list):
        return [_one(entry, _entries(entry)[:top]) for entry in content if isinstance(entry, dict)]
    tokens, values = said.get("tokens"), said.get("token_logprobs")
    if not isinstance(tokens, list) or not isinstance(values, list):
        return []
    tops = said.get("top_logprobs")
    tops = tops if isinstance(tops, list) else [None] * len(tokens)
    found = []
    for token, value, near in zip(tokens, values, tops, strict=False):
        others = [{"token": other, "logprob": p} for other, p in _mapping(near).items()]
        found.append(_one({"token": token, "logprob": value}, others[:top]))
    return found


def _entries(entry: Mapping[str, Any]) -> list[Any]:
    top = entry.get("top_logprobs")
    return top if isinstance(top, list) else []


def _one(entry: Mapping[str, Any], top: list[Any]) -> dict[str, Any]:
    told: dict[str, Any] = {"token": _text(entry.get("token")), "logprob": entry.get("logprob")}
    if isinstance(entry.get("bytes"), list):
        told["bytes"] = entry["bytes"]
    others = [_one(other, []) for other in top if isinstance(other, dict)]
    return {**told, "top_logprobs": others} if others else told


def _told(error: Any) -> OstlerError:
    said = _mapping(error)
    message = _text(said.get("message")) or str(error)[:500]
    code = said.get("code")
    if isinstance(code, int) and 400 <= code < 500:
        return Invalid(message)
    return EngineSaidNo(message)


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise AnswerNotUnderstood("the engine sent an event that is no JSON object")
    return value


def answer_of(body: bytes) -> dict[str, Any]:
    """The JSON object that an engine answered. Raises AnswerNotUnderstood."""
    return _object(body)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(values: Mapping[str, Any], name: str) -> int | None:
    value = values.get(name)
    return value if type(value) is int and 0 <= value < 2**53 else None


def _seconds(timings: Mapping[str, Any], name: str) -> float | None:
    value = timings.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value / 1000 if 0 <= value < 1e12 else None

"""The paths that engines answer: chat, generate, embed and embeddings, as the gateway asks for them.

These are the gateway's `Translator` and `Translation` (`gateway/ports.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ostler.api.dialects.ollama import options
from ostler.api.dialects.ollama.answering import AnswerNotUnderstood, Clocked, Framing, Telling, answer_of
from ostler.api.dialects.ollama.asking import (
    CHAT,
    COMPLETIONS,
    INFILL,
    AskIn,
    ChatIn,
    EmbeddingsIn,
    EmbedIn,
    GenerateIn,
    MessageIn,
    content_of,
    formatted,
    generate_path,
    logprobs,
    messages_of,
    read,
    response_format,
    thinking,
)
from ostler.api.dialects.ollama.names import served_name
from ostler.api.dialects.ollama.residence import unload
from ostler.api.services import Services
from ostler.core.errors import InvalidField
from ostler.core.principals import Principal
from ostler.instances.keep_alive import KeepAlive
from ostler.models.records import Model
from ostler.upstreams.pools import ExternalModel

EMBEDDINGS = "/v1/embeddings"
Served = Model | ExternalModel
Call = tuple[str, dict[str, Any]]


class Translated:
    """One request. `model` is the name that the gateway finds it by, `shown` the one that was sent."""

    def __init__(
        self, rooms: Services, model: str, shown: str, keep_alive: Any, clock: Clocked, framing: Framing
    ) -> None:
        self.model = model
        self.keep_alive = keep_alive
        self.wants_stream = framing.media_type != b"application/json; charset=utf-8"
        self.media_type = framing.media_type
        self._rooms = rooms
        self._shown = shown
        self._clock = clock
        self._framing = framing

    async def without_engine(self, model: Served, principal: Principal) -> bytes | None:
        """Most requests are for an engine."""
        return None

    def framed(self, message: bytes) -> bytes:
        """A message as a piece of this answer."""
        return self._framing.framed(message)


class Talk(Translated):
    """One request of chat or generate; with nothing to say it only loads or unloads the model."""

    def __init__(
        self, rooms: Services, asked: ChatIn | GenerateIn, model: str, clock: Clocked, framing: Framing
    ) -> None:
        self._asked = asked
        self._options = options.check(asked.options)
        response_format(asked.format)  # so that what is wrong is said before an engine starts for it
        thinking(asked.think, options.LLAMACPP)
        logprobs(asked, CHAT)
        shown = asked.model or asked.name or ""
        super().__init__(rooms, model, shown, asked.keep_alive, clock, framing)
        self._telling = Telling(shown, clock, is_chat=isinstance(asked, ChatIn), top=asked.top_logprobs or 0)
        self._reason: str | None = None
        self._is_idle = not asked.messages if isinstance(asked, ChatIn) else not asked.prompt
        if isinstance(asked, GenerateIn):
            self._is_idle = self._is_idle and not asked.suffix
            generate_path(asked, options.LLAMACPP)
        elif asked.messages:
            messages_of(asked.messages, options.LLAMACPP)

    async def without_engine(self, model: Served, principal: Principal) -> bytes | None:
        """Unload it, where that is what is asked: nothing to say, and a keep_alive of 0."""
        if not self._is_idle or self.keep_alive is None:
            return None
        if KeepAlive.asked(self.keep_alive, principal).seconds > 0:
            return None
        await unload(self._rooms, model, principal)
        return self._framing.of(self._telling.idle("unload"))

    def call(self, model: Served, engine: str, context_length: int | None) -> Call | None:
        """The engine's path and body. Raises InvalidField, NotHere."""
        self._clock.asked()
        options.check_context(self._options, context_length, model.name)
        if self._is_idle:
            self._reason = "load"
            return None
        asked = self._asked
        path, body = self._talk_of(asked, model, engine)
        body |= {
            **options.sampling(self._options, engine),
            **formatted(asked.format, path, engine),
            **logprobs(asked, path),
            "stream": True,
        }
        if path != INFILL:
            body |= {"model": model.name, "stream_options": {"include_usage": True}}
        return path, body

    def event(self, data: bytes) -> list[bytes]:
        """The pieces that one event makes."""
        return [self._framing.of(message) for message in self._telling.event(data)]

    def end(self, body: bytes = b"") -> bytes:
        """The last message; for one that wants no stream the whole answer."""
        if self._reason is not None:
            return self._framing.of(self._telling.idle(self._reason))
        if body:
            raise AnswerNotUnderstood("the engine sent no stream")
        if not self.wants_stream:
            return self._framing.of(self._telling.last(whole=True))
        calls = self._telling.calls()
        return b"".join(self._framing.of(m) for m in (*calls, self._telling.last(whole=False)))

    def _talk_of(self, asked: ChatIn | GenerateIn, model: Served, engine: str) -> Call:
        if isinstance(asked, ChatIn):
            messages = [*_examples(model), *(asked.messages or ())]
            body: dict[str, Any] = {"messages": messages_of(messages, engine)}
            if asked.tools:
                body["tools"] = asked.tools
            return CHAT, {**body, **thinking(asked.think, engine)}
        path = generate_path(asked, engine)
        if path == COMPLETIONS:
            return path, {"prompt": asked.prompt}
        if path == INFILL:
            return path, {"input_prefix": asked.prompt or "", "input_suffix": asked.suffix}
        system = [{"role": "system", "content": asked.system}] if asked.system else []
        content = content_of(asked.prompt or "", asked.images, "generate")
        said = [*system, *messages_of(_examples(model), engine), {"role": "user", "content": content}]
        return path, {"messages": said, **thinking(asked.think, engine)}


class Embedding(Translated):
    """One request for embeddings; `is_old` answers as /api/embeddings does, with one alone."""

    def __init__(
        self,
        rooms: Services,
        asked: EmbedIn | EmbeddingsIn,
        model: str,
        clock: Clocked,
        framing: Framing,
    ) -> None:
        shown = asked.model or asked.name or ""
        super().__init__(rooms, model, shown, asked.keep_alive, clock, framing)
        self._is_old = isinstance(asked, EmbeddingsIn)
        self._options = options.check(asked.options)
        self._dimensions: int | None = None
        self._cuts = False
        if isinstance(asked, EmbeddingsIn):
            self._input = [asked.prompt] if asked.prompt else []
        else:
            if asked.input is None:
                raise InvalidField("input", "input is required: a text or a list of texts")
            texts = [asked.input] if isinstance(asked.input, str) else asked.input
            self._input = texts if texts != [""] else []
            if asked.dimensions is not None and asked.dimensions < 1:
                raise InvalidField("dimensions", "dimensions must be a number from 1 on")
            self._dimensions = asked.dimensions
            self._cuts = asked.truncate is not False

    def call(self, model: Served, engine: str, context_length: int | None) -> Call | None:
        """The engine's path and body. Raises InvalidField."""
        self._clock.asked()
        options.check_context(self._options, context_length, model.name)
        if not self._input:
            return None
        body: dict[str, Any] = {"model": model.name, "input": self._input, "encoding_format": "float"}
        if self._cuts and engine != options.LLAMACPP:  # llama.cpp knows no such wish, and refuses
            body["truncate_prompt_tokens"] = -1
        return EMBEDDINGS, body

    def event(self, data: bytes) -> list[bytes]:
        """Embeddings come whole."""
        raise AnswerNotUnderstood("the engine answered a question for embeddings with a stream")

    def end(self, body: bytes = b"") -> bytes:
        """The whole answer."""
        answer = answer_of(body) if body else {"data": []}
        vectors = [_shortened(vector, self._dimensions) for vector in _vectors(answer)]
        if len(vectors) != (len(self._input) if body else 0):
            raise AnswerNotUnderstood("the engine sent another number of embeddings than was asked for")
        if self._is_old:
            return self._framing.of({"embedding": vectors[0] if vectors else []})
        told: dict[str, Any] = {"model": self._shown, "embeddings": vectors, **self._clock.durations({})}
        usage = answer.get("usage")
        if isinstance(usage, dict) and isinstance(usage.get("prompt_tokens"), int):
            told["prompt_eval_count"] = usage["prompt_tokens"]
        return self._framing.of(told)


Asked = TypeVar("Asked", ChatIn, GenerateIn, EmbedIn, EmbeddingsIn)


class Path:
    """One of the paths: which kind of inference it is, the shape of its body, what is made of one."""

    def __init__(
        self,
        rooms: Services,
        scope: str,
        shape: type[Asked],
        make: Callable[[Services, Asked, str, Clocked, Framing], Translated],
    ) -> None:
        self.scope = scope
        self._rooms = rooms
        self._shape: type[ChatIn | GenerateIn | EmbedIn | EmbeddingsIn] = shape
        self._make: Callable[..., Any] = make

    async def read(self, body: Mapping[str, Any], accept: str, principal: Principal, began: float) -> Any:
        """Understand a request. Raises InvalidField, NotHere, ModelMissing."""
        asked = read(self._shape, body)
        streams = isinstance(asked, AskIn) and asked.stream is not False
        clock = Clocked(began, self._rooms.clock.monotonic)
        framing = Framing(wants_stream=streams, accept=accept)
        name = await served_name(self._rooms, asked.model or asked.name or "", principal)
        return self._make(self._rooms, asked, name, clock, framing)


def translators(rooms: Services) -> dict[str, Path]:
    """What the gateway asks for each of the paths that engines answer."""
    return {
        "/api/chat": Path(rooms, "chat", ChatIn, Talk),
        "/api/generate": Path(rooms, "completions", GenerateIn, Talk),
        "/api/embed": Path(rooms, "embeddings", EmbedIn, Embedding),
        "/api/embeddings": Path(rooms, "embeddings", EmbeddingsIn, Embedding),
    }


def _examples(model: Served) -> list[MessageIn]:
    """The messages that a model was made with, before every conversation."""
    if isinstance(model, ExternalModel):
        return []
    kept = model.dialect_data.get("ollama") or {}
    return [read(MessageIn, message) for message in kept.get("messages") or ()]


def _vectors(answer: Mapping[str, Any]) -> list[list[float]]:
    data = answer.get("data")
    if not isinstance(data, list):
        raise AnswerNotUnderstood("the engine sent no embeddings")
    ordered = sorted((row for row in data if isinstance(row, dict)), key=_place)
    vectors = [row.get("embedding") for row in ordered]
    if not all(isinstance(vector, list) and vector for vector in vectors):
        raise AnswerNotUnderstood("the engine sent what is no embedding")
    return [vector for vector in vectors if vector is not None]


def _place(row: Mapping[str, Any]) -> int:
    index = row.get("index")
    return index if isinstance(index, int) else 0


def _shortened(vector: list[float], dimensions: int | None) -> list[float]:
    """The first `dimensions` numbers, brought to the length 1 again."""
    if dimensions is None or dimensions >= len(vector):
        return vector
    kept = vector[:dimensions]
    length = math.sqrt(sum(number * number for number in kept))
    return [number / length for number in kept] if length else kept

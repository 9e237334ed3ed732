"""What a request of Ollama's asks, in the words of OpenAI's API as llama.cpp and vLLM speak it."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from pydantic import ValidationError

from ostler.api.dialects.ollama.door import OllamaBody
from ostler.api.dialects.ollama.options import LLAMACPP
from ostler.core.errors import InvalidField, Unsupported

CHAT, COMPLETIONS, INFILL = "/v1/chat/completions", "/v1/completions", "/infill"
_ROLES = {"system": "system", "developer": "system", "assistant": "assistant", "tool": "tool"}
_EFFORTS = ("low", "medium", "high", "max")
_IMAGES = {
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF8": "image/gif",
    b"RIFF": "image/webp",
    b"BM": "image/bmp",
}
Body = TypeVar("Body", bound=OllamaBody)


class NotHere(Unsupported):
    """Something that Ollama does and Ostler does not."""


class FunctionIn(OllamaBody):
    """A called function, its arguments as an object."""

    name: str
    arguments: dict[str, Any] = {}


class ToolCallIn(OllamaBody):
    """A call that the model made before."""

    function: FunctionIn
    id: str | None = None


class MessageIn(OllamaBody):
    """One message of a conversation. Images are base64."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCallIn] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class AskIn(OllamaBody):
    """What chat and generate have in common."""

    model: str | None = None
    name: str | None = None
    stream: bool | None = None
    format: Any = None
    options: dict[str, Any] | None = None
    keep_alive: Any = None
    think: bool | str | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None


class ChatIn(AskIn):
    """The body of /api/chat."""

    messages: list[MessageIn] | None = None
    tools: list[dict[str, Any]] | None = None


class GenerateIn(AskIn):
    """The body of /api/generate."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None


class EmbedIn(OllamaBody):
    """The body of /api/embed."""

    model: str | None = None
    name: str | None = None
    input: str | list[str] | None = None
    truncate: bool | None = None
    dimensions: int | None = None
    options: dict[str, Any] | None = None
    keep_alive: Any = None


class EmbeddingsIn(OllamaBody):
    """The body of /api/embeddings."""

    model: str | None = None
    name: str | None = None
    prompt: str | None = None
    options: dict[str, Any] | None = None
    keep_alive: Any = None


def read(shape: type[Body], body: Mapping[str, Any]) -> Body:
    """The body in its shape. Raises InvalidField with the first field that is wrong."""
    try:
        return shape.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"][:6])
        raise InvalidField(field, f"{field}: {first['msg']}") from None


def messages_of(messages: Sequence[MessageIn], engine: str) -> list[dict[str, Any]]:
    """A conversation. Calls of tools get the ids that OpenAI's API wants, their answers the same.

    Raises InvalidField.
    """
    calls: list[tuple[str, str]] = []
    return [_message(message, number, engine, calls) for number, message in enumerate(messages)]


def _message(
    message: MessageIn, number: int, engine: str, open_calls: list[tuple[str, str]]
) -> dict[str, Any]:
    where = f"messages.{number}"
    told: dict[str, Any] = {"role": _ROLES.get(message.role, "user")}
    told["content"] = content_of(message.content or "", message.images, where)
    if message.thinking:
        told["reasoning_content" if engine == LLAMACPP else "reasoning"] = message.thinking
    if message.tool_calls:
        told["tool_calls"] = []
        for index, call in enumerate(message.tool_calls):
            call_id = call.id or f"call_{number}_{index}"
            open_calls.append((call.function.name, call_id))
            function = {"name": call.function.name, "arguments": json.dumps(call.function.arguments)}
            told["tool_calls"].append({"id": call_id, "type": "function", "function": function})
    if told["role"] == "tool":
        told["tool_call_id"] = message.tool_call_id or _answered(message.tool_name, number, open_calls)
        if message.tool_name:
            told["name"] = message.tool_name
    return told


def _answered(name: str | None, number: int, open_calls: list[tuple[str, str]]) -> str:
    """The id of the oldest call of this tool that has no answer yet."""
    at = next((i for i, (called, _) in enumerate(open_calls) if name is None or called == name), None)
    return f"call_{number}" if at is None else open_calls.pop(at)[1]


def content_of(text: str, images: Sequence[str] | None, where: str) -> str | list[dict[str, Any]]:
    """A message's content, its images as data addresses. Raises InvalidField for what is no image."""
    if not images:
        return text
    parts: list[dict[str, Any]] = [{"type": "text", "text": text}] if text else []
    for number, image in enumerate(images):
        url = _data_address(image, f"{where}.images.{number}")
        parts.append({"type": "image_url", "image_url": {"url": url}})
    return parts


def _data_address(image: str, field: str) -> str:
    encoded = image.partition(",")[2] if image.startswith("data:") else image
    try:
        begin = base64.b64decode(encoded[:64], validate=True)
    except (binascii.Error, ValueError):
        raise InvalidField(field, f"{field} is not base64") from None
    kind = next((kind for mark, kind in _IMAGES.items() if begin.startswith(mark)), None)
    if kind is None:
        raise InvalidField(field, f"{field} is no image", hint="PNG, JPEG, GIF, WebP and BMP are.")
    return f"data:{kind};base64,{encoded}"


def response_format(given: Any) -> dict[str, Any] | None:
    """`json`, or a JSON schema, as OpenAI's `response_format`. Raises InvalidField."""
    if given is None or given == "":
        return None
    if given in ("json", "json_object"):
        return {"type": "json_object"}
    if isinstance(given, dict):
        return {"type": "json_schema", "json_schema": {"name": "answer", "schema": given, "strict": True}}
    raise InvalidField("format", 'format must be "json" or a JSON schema')


def formatted(given: Any, path: str, engine: str) -> dict[str, Any]:
    """The fields that ask for a format: llama.cpp knows only a schema where there is no chat."""
    wanted = response_format(given)
    if wanted is None:
        return {}
    if engine == LLAMACPP and path != CHAT:
        return {"json_schema": given if isinstance(given, dict) else {"type": "object"}}
    return {"response_format": wanted}


def thinking(think: bool | str | None, engine: str) -> dict[str, Any]:
    """The fields that let a model think or not. Raises InvalidField for a word that is none."""
    if think is None:
        return {}
    if isinstance(think, bool):
        return {"chat_template_kwargs": {"enable_thinking": think, "thinking": think}}
    if think not in _EFFORTS:
        raise InvalidField("think", f"think must be true, false or one of: {', '.join(_EFFORTS)}")
    asked: dict[str, Any] = {
        "chat_template_kwargs": {"enable_thinking": True, "thinking": True, "reasoning_effort": think}
    }
    if engine != LLAMACPP and think != "max":
        asked["reasoning_effort"] = think
    return asked


def logprobs(asked: AskIn, path: str) -> dict[str, Any]:
    """The fields that ask for the probabilities of tokens. Raises InvalidField."""
    top = asked.top_logprobs or 0
    if not 0 <= top <= 20:
        raise InvalidField("top_logprobs", "top_logprobs must be from 0 to 20")
    if not asked.logprobs:
        return {}
    if path == CHAT:
        return {"logprobs": True, "top_logprobs": max(1, top)}  # llama.cpp streams none for 0
    return {"logprobs": max(1, top)} if path == COMPLETIONS else {"n_probs": max(1, top)}


def generate_path(asked: GenerateIn, engine: str) -> str:
    """Which path of the engine answers this. Raises NotHere and InvalidField for what none can."""
    if asked.template:
        raise NotHere(
            "a template in a request is not understood here",
            hint="The model's own chat template is used. Send raw=true with the whole prompt, or give the "
            "model the option chat_template.",
        )
    if asked.context:
        raise NotHere(
            "a context of token numbers is not understood here",
            hint="Send the conversation to /api/chat as messages.",
        )
    if asked.suffix:
        if engine != LLAMACPP:
            raise NotHere(f"{engine} cannot fill in between a prompt and a suffix")
        return INFILL
    if asked.raw:
        if asked.images:
            raise InvalidField("images", "a raw prompt takes no images")
        return COMPLETIONS
    return CHAT

"""Request bodies: read within their limit, and asked which model is meant.

The bytes that came in are the bytes that go on, unless a request default has to be added.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from ostler.gateway.errors import BadBody, BodyTooLarge, ClientGone, MissingModel
from ostler.gateway.headers import Incoming
from ostler.gateway.multipart import field_of_form, with_field_of_form
from ostler.gateway.ports import Receive

MAX_NAME = 512


class Asked(NamedTuple):
    """Which model a request means. `json` is the parsed body where it is a JSON object."""

    model: str
    json: dict[str, Any] | None


async def read_body(receive: Receive, limit_bytes: int, declared: int | None) -> bytes:
    """The whole body. Raises BodyTooLarge as soon as that is known, ClientGone.

    There is no timeout in here: `patience.py` looks after clients that say nothing.
    """
    if declared is not None and declared > limit_bytes:
        raise _too_large(limit_bytes)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            raise _too_large(limit_bytes)
        if not message.get("more_body", False):
            return b"".join((*parts, part)) if parts else part
        parts.append(part)


def _too_large(limit_bytes: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request's body is larger than {limit_bytes} bytes", limit_bytes=limit_bytes)


def read_asked(body: bytes, incoming: Incoming, query: bytes) -> Asked:
    """Find the model in a JSON body, a form, the header x-ostler-model or the query.

    Raises BadBody for what is not JSON, MissingModel where no model is named or its name is no text.
    """
    _refuse_packed(incoming)
    kind = incoming.content_type
    if kind[:10].lower() == b"multipart/":
        return Asked(_name(field_of_form(body, kind, b"model"), incoming, query), None)
    if not body:
        if incoming.model is None and b"model=" not in query:
            raise BadBody("the request's body is empty", hint="Send a JSON object with a model.")
        return Asked(_name(None, incoming, query), None)
    if kind[:6].lower() in (b"audio/", b"image/") or kind[:24].lower() == b"application/octet-stream":
        return Asked(_name(None, incoming, query), None)
    parsed = _parse(body)
    model = parsed.get("model")
    if type(model) is not str or not 0 < len(model) <= MAX_NAME:
        model = _name(model, incoming, query)
    return Asked(model, parsed)


def parse_object(body: bytes, incoming: Incoming) -> dict[str, Any]:
    """The JSON object that a body is, whatever it is said to be. Raises BadBody."""
    _refuse_packed(incoming)
    if not body:
        raise BadBody("the request's body is empty", hint="Send a JSON object.")
    return _parse(body)


def _refuse_packed(incoming: Incoming) -> None:
    if incoming.content_encoding not in (b"", b"identity"):
        raise BadBody("compressed request bodies are not understood", hint="Send the body as it is.")


def _name(given: Any, incoming: Incoming, query: bytes) -> str:
    if given is None:
        if incoming.model is not None:
            given = incoming.model.decode("utf-8", "replace")
        elif query:
            given = next(iter(parse_qs(query.decode("latin-1")).get("model", [])), None)
    if given is None:
        raise MissingModel("model", "the request does not say which model is meant", hint=_HOW)
    if not isinstance(given, str):
        raise MissingModel("model", f"model must be a text, not {_kind(given)}", hint=_HOW)
    if not given or len(given) > MAX_NAME:
        raise MissingModel("model", f"model must have from 1 to {MAX_NAME} characters", hint=_HOW)
    return given


_HOW = 'Name it in the body, for example "model": "qwen3-8b". See what there is: GET /v1/models'


SYSTEM_PROMPT = "system_prompt"
"""A request default that no engine knows: the system message of conversations that have none."""


LENGTHS = frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict"})
"""Names under which a request says how long its answer may be: who says one of them has said all."""


def with_defaults(body: bytes, parsed: Mapping[str, Any], defaults: Mapping[str, Any]) -> bytes:
    """The body with every default that the request leaves out or sets to null.

    Where nothing is missing these are the very same bytes. Missing fields are put in front of the
    others, so that the rest stays as it came; only a null that has to give way makes a new text.
    """
    missing = {name: value for name, value in defaults.items() if parsed.get(name) is None}
    missing = {name: value for name, value in missing.items() if value is not None}
    if not LENGTHS.isdisjoint(missing) and any(parsed.get(name) is not None for name in LENGTHS):
        missing = {name: value for name, value in missing.items() if name not in LENGTHS}
    if prompt := missing.pop(SYSTEM_PROMPT, None):
        missing.update(_with_prompt(parsed.get("messages"), prompt))
    if not missing:
        return body
    if any(name in parsed for name in missing):
        try:
            return json.dumps({**parsed, **missing}, allow_nan=False, separators=(",", ":")).encode()
        except ValueError as error:
            raise BadBody(f"the request's body has a number that JSON does not have: {error}") from error
    begin = body.index(b"{") + 1
    added = json.dumps(missing, separators=(",", ":")).encode()
    return body[:begin] + added[1:-1] + (b"," if parsed else b"") + body[begin:]


def with_model(body: bytes, asked: Asked, name: str, content_type: bytes) -> bytes:
    """The body with this as its model, in the JSON object too; every other byte stays as it came."""
    if asked.json is None:
        is_form = content_type[:10].lower() == b"multipart/"
        return with_field_of_form(body, content_type, b"model", name.encode()) if is_form else body
    asked.json["model"] = name
    text, parts, at = body.decode(), [], 0
    for begin, end in _values_of(text, "model"):
        parts += [text[at:begin], json.dumps(name)]
        at = end
    return "".join((*parts, text[at:])).encode()


def _values_of(text: str, key: str) -> Iterator[tuple[int, int]]:
    """Where the values of a key stand in the text of a JSON object that has been read before."""
    at = _after_space(text, 0) + 1
    while text[at := _after_space(text, at)] != "}":
        if text[at] == ",":
            at = _after_space(text, at + 1)
        name, at = _raw_decode(text, at)
        begin = _after_space(text, _after_space(text, at) + 1)
        _, at = _raw_decode(text, begin)
        if name == key:
            yield begin, at


_SPACE = re.compile(r"[ \t\n\r]*")
_raw_decode = json.JSONDecoder().raw_decode


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _with_prompt(messages: Any, prompt: Any) -> dict[str, Any]:
    """The messages with this as their system message, where they have none; nothing else is touched."""
    if not isinstance(messages, list) or not messages:
        return {}
    roles = {message.get("role") for message in messages if isinstance(message, dict)}
    if roles & {"system", "developer"}:
        return {}
    return {"messages": [{"role": "system", "content": prompt}, *messages]}


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


def _parse(body: bytes) -> dict[str, Any]:
    try:
        parsed = _decode(body.decode())
    except UnicodeDecodeError:
        raise BadBody("the request's body is not UTF-8 text") from None
    except RecursionError:
        raise BadBody("the request's body is nested too deeply") from None
    except ValueError as error:
        raise BadBody(f"the request's body is not valid JSON: {error}") from None
    if type(parsed) is not dict:
        raise BadBody(f"the request's body must be a JSON object, not {_kind(parsed)}")
    return parsed


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")

"""Engines' error answers in the words that clients of OpenAI know.

Each rule names what an engine really says: llama-server (tools/server, b11434: "Loading model" and
"no slot available" with 503, `exceed_context_size_error` with 400, "Context size has been exceeded." with
500, for embeddings "input (700 tokens) is too large to process" with 500) and vLLM ("maximum context
length" with 400, Transformers' words on chat templates).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from ostler.gateway.errors import Dialect, envelope, normalised, parsed, true_status


@dataclass(frozen=True, slots=True)
class Rule:
    """An answer with one of these statuses, that holds this text, is told as `status`, `type` and `code`.

    `retry_after_s` is when to ask again, `advice` a sentence put behind the engine's own.
    """

    statuses: tuple[int, ...]
    says: str
    status: int
    type: str
    code: str
    retry_after_s: int | None = None
    advice: str = ""


RULES = (
    Rule((503,), "loading model", 503, "service_unavailable", "model_loading", 30),
    Rule((503,), "no slot available", 429, "rate_limit_error", "slot_unavailable", 5),
    Rule((400,), "exceed_context_size_error", 400, "invalid_request_error", "context_length_exceeded"),
    Rule((500,), "context size has been exceeded", 400, "invalid_request_error", "context_length_exceeded"),
    Rule((500,), "is too large to process", 400, "invalid_request_error", "context_length_exceeded"),
    Rule((400,), "maximum context length", 400, "invalid_request_error", "context_length_exceeded"),
    Rule(
        (400,),
        "default chat template is no longer allowed",
        400,
        "invalid_request_error",
        "chat_template_missing",
        advice="Give the model the option chat_template, or ask /v1/completions, which needs none.",
    ),
)


@dataclass(frozen=True, slots=True)
class Retold:
    """What the client gets: `body` None leaves the engine's own as it is."""

    status: int
    body: bytes | None
    retry_after_s: int | None = None


def retell(dialect: Dialect, status: int, body: bytes) -> Retold:
    """An engine's error for a client of this dialect."""
    if dialect is Dialect.OLLAMA:
        return _in_one_sentence(retell(Dialect.OPENAI, status, body), body)
    if dialect is not Dialect.ANTHROPIC and (rule := _rule(status, body)) is not None:
        return Retold(rule.status, _by_rule(rule, body), rule.retry_after_s)
    status = true_status(dialect, status, body)
    return Retold(status, normalised(dialect, status, body))


def _in_one_sentence(retold: Retold, body: bytes) -> Retold:
    message = parsed(retold.body or body)["error"]["message"]
    return replace(retold, body=envelope(Dialect.OLLAMA, retold.status, message))


def _rule(status: int, body: bytes) -> Rule | None:
    text = body[:4096].decode("utf-8", "replace").lower()
    return next((rule for rule in RULES if status in rule.statuses and rule.says in text), None)


def _by_rule(rule: Rule, body: bytes) -> bytes:
    """The engine's members (how many tokens, of how many) stay beside ours."""
    said = parsed(body)
    error: Any = said.get("error")
    members: dict[str, Any] = dict(error) if isinstance(error, dict) else {}
    message = members.get("message") or (error if isinstance(error, str) else said.get("message"))
    text = message if isinstance(message, str) and message else rule.code.replace("_", " ")
    if rule.advice:
        text = f"{text.rstrip('.')}. {rule.advice}"
    members |= {"message": text, "type": rule.type, "code": rule.code, "param": members.get("param")}
    if rule.retry_after_s is not None:
        members["retry_after"] = rule.retry_after_s
    return json.dumps({"error": members}).encode()

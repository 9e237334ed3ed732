"""The door of Ollama's routes: as ours, but bodies are JSON whatever they are said to be."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from ostler.api.door import Door


class OllamaDoor(Door):
    """A key or a session, as everywhere.

    `curl -d` says that a body is a form, and Ollama's documentation calls it so: what a body is said to be
    is passed over.
    """

    asks_content_type = False


def router(tag: str) -> APIRouter:
    """A router of such doors; `tag` names the noun."""
    return APIRouter(tags=[f"ollama: {tag}"], route_class=OllamaDoor)


class OllamaBody(BaseModel):
    """A request's body: fields that are not known are passed over, types are as Ollama's."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


class NamedBody(OllamaBody):
    """A body that names a model; older clients call the field `name`."""

    model: str | None = None
    name: str | None = None

    @property
    def its_name(self) -> str:
        """The model's name, empty where none was sent."""
        return self.model or self.name or ""


Answer = dict[str, Any]

"""Which container images the recipes need, and which of them are on this host."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ostler.engines.registry import Engines
from ostler.models.records import Model
from ostler.runtimes.base import LaunchFailed, LocalImage, Runtime, RuntimeAway


@dataclass(frozen=True, slots=True)
class NeededImage:
    """An image by its name; `models` run in it, `is_default` where models of `engine` that name none do."""

    image: str
    engine: str
    is_default: bool
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImageView:
    """A needed image and what is here of it; `trouble` is why that is not known."""

    needed: NeededImage
    local: LocalImage | None
    trouble: str | None = None


def images_needed(models: Iterable[Model], engines: Engines) -> list[NeededImage]:
    """The default image of each engine, then those that models name, by name. Archived models count not."""
    users: dict[tuple[str, str], set[str]] = {}
    defaults = [(engine.name, engine.image) for engine in engines if engine.image]
    by_engine = dict(defaults)
    for model in models:
        image = model.runtime_options.get("image") or by_engine.get(model.engine)
        if model.runtime == "docker" and not model.archived and image:
            users.setdefault((model.engine, str(image)), set()).add(model.name)
    named = sorted(key for key in users if key not in defaults)
    return [
        NeededImage(image, engine, (engine, image) in defaults, tuple(sorted(users.get((engine, image), ()))))
        for engine, image in [*defaults, *named]
    ]


async def look_for(needed: Iterable[NeededImage], runtime: Runtime | None) -> list[ImageView]:
    """What `runtime` has of them. A runtime that does not answer is a trouble of each, never an error."""
    views = []
    for item in needed:
        trouble, local = None, None
        try:
            local = await runtime.image(item.image) if runtime is not None else None
        except (RuntimeAway, LaunchFailed) as error:
            trouble = error.message
        views.append(ImageView(item, local, trouble))
    return views


def ready_offline(views: Iterable[ImageView]) -> bool:
    """True where every image that models run in is here; without such models, every default one."""
    views = list(views)
    used = [view for view in views if view.needed.models] or views
    return bool(used) and all(view.local is not None for view in used)

"""Whether the engines' container images are here, for machines without a network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ostler.api.dialects.cortex.door import router
from ostler.api.dialects.cortex.words import MIB
from ostler.api.door import needs
from ostler.api.services import Rooms, Who
from ostler.core.principals import Role
from ostler.models.images import ImageView, images_needed, look_for, ready_offline

routes = router("system")


@routes.get("/admin/system/docker-images", **needs(Role.ADMIN))
async def show_docker_images(rooms: Rooms, who: Who) -> dict[str, Any]:
    """The image of each engine and those that models name themselves. Ready means: all are really here."""
    views = await look_for(images_needed(rooms.models.all(), rooms.engines), rooms.runtimes.get("docker"))
    is_offline = rooms.settings.current.offline
    here = [view for view in views if view.local is not None]
    return {
        "offline_mode": is_offline,
        "offline_ready": ready_offline(views),
        "engines": {view.needed.engine: _out(view) for view in views if view.needed.is_default},
        "model_images": [
            {**_out(view), "engine": view.needed.engine} for view in views if not view.needed.is_default
        ],
        "infrastructure": [],  # Ostler itself needs no containers beside those of the engines
        "summary": {
            "total": len(views),
            "cached": len(here),
            "missing": [view.needed.image for view in views if view.local is None],
        },
        "recommendations": _advice(views, is_offline=is_offline),
    }


def _out(view: ImageView) -> dict[str, Any]:
    local = view.local
    return {
        "image": view.needed.image,
        "cached": local is not None,
        "size_mb": round(local.size_bytes / MIB, 1) if local else None,
        "created": local.created_at.isoformat() if local and local.created_at else None,
        "tags": list(local.tags) if local else [],
        "models": list(view.needed.models),
        "error": view.trouble,
    }


def _advice(views: Sequence[ImageView], *, is_offline: bool) -> list[str]:
    if trouble := next((view.trouble for view in views if view.trouble), None):
        return [f"It is not known what is here: {trouble}"]
    missing = [view.needed.image for view in views if view.local is None]
    if is_offline:
        return [
            f"Bring {image} here: on a machine with a network docker pull {image} && "
            f"docker save -o image.tar {image}; here docker load -i image.tar"
            for image in missing
        ]
    return [f"Before you go offline: docker pull {image}" for image in missing]

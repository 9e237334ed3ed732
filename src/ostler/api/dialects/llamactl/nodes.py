"""What `?node=` means: this server is the only node there is."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Query

from ostler.api.services import Rooms
from ostler.core.errors import NotFound

LOCAL = "main"
"""The name that llamactl gives a node whose configuration does not name it."""


class NodeNotFound(NotFound):
    """There is no node of that name."""

    hint = "Leave out ?node=, or give the name of this one: see GET /api/v1/nodes"


async def _local_node(rooms: Rooms, node: Annotated[str, Query(max_length=255)] = "") -> str:
    """The local node's name. Raises NodeNotFound for another's."""
    if node not in ("", LOCAL, rooms.node):
        raise NodeNotFound(f"node {node!r} not found", node=node)
    return LOCAL


LocalNode = Annotated[str, Depends(_local_node)]
"""A route's parameter: takes `?node=` and gives this node's name."""

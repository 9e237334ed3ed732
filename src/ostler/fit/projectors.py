"""What the kinds of projectors (mmproj) differ in, as rows: facts of tools/mtmd/clip.cpp, build 11434.

`load_hparams` there says how large an image the engine reserves for at the start, the graphs in
tools/mtmd/models/*.cpp which steps come before and after the layers. What else there is to know is in the
tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Start = Literal["plain", "pairs"]
End = Literal["mlp", "pool", "shuffle", "merge", "unfold"]


@dataclass(frozen=True, slots=True)
class Projector:
    """One kind, as `clip.projector_type` names it.

    `reserved_tokens`: the image that memory is reserved for has so many tokens; None: it is as large as
    `image_size`. So many `merge` x `merge` patches become a token (`merge_key` may say otherwise).
    `turns`: how often queries and keys are turned by their position. `start`: how pixels become patches.
    `end`: how patches become tokens.
    """

    name: str
    reserved_tokens: int | None = None
    merge: int = 1
    merge_key: str = "vision.projector.scale_factor"
    turns: int = 0
    start: Start = "plain"
    end: End = "mlp"


_SPATIAL = "vision.spatial_merge_size"

PROJECTORS: Mapping[str, Projector] = {
    row.name: row
    for row in (
        Projector("mlp"),
        Projector("gemma3", merge=4, end="pool"),
        Projector("idefics3", merge=1, end="shuffle"),
        Projector("lfm2", 256, merge=1, end="shuffle"),
        Projector("internvl", merge=1, end="shuffle"),
        Projector("pixtral", 256, merge_key=_SPATIAL, turns=2, end="unfold"),
        Projector("qwen2vl_merger", 46 * 46, 2, _SPATIAL, turns=1, start="pairs", end="merge"),
        Projector("qwen2.5vl_merger", 46 * 46, 2, _SPATIAL, turns=1, start="pairs", end="merge"),
        Projector("qwen3vl_merger", 46 * 46, 2, _SPATIAL, turns=1, start="pairs", end="merge"),
    )
}
"""The kinds whose graph is counted; others are counted as if they were `mlp`, and the answer says so."""


def projector(name: str | None) -> Projector | None:
    """The row of a kind of projector; None if it is not known here."""
    return PROJECTORS.get(name or "")

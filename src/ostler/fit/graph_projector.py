"""The compute buffer of a projector (mmproj): the steps of its graph for the image that is reserved for.

The engine reserves it when it loads the projector (`clip_model_loader::warmup` in tools/mtmd/clip.cpp).
A larger image than that makes it grow later. Steps: `build_inp`, `build_vit`, `build_attn` and `build_ffn`
there, and the ends in tools/mtmd/models/*.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

from ostler.fit.graph_feed_forward import norm
from ostler.fit.graph_memory import Graph, Piece
from ostler.fit.model_shape import GPU_ALIGNMENT_BYTES
from ostler.fit.projectors import PROJECTORS, Projector, projector
from ostler.library.ggml_types import TensorInfo
from ostler.library.gguf_header import GgufHeader

F32_BYTES, F16_BYTES = 4, 2
MAX_SIDE = 8_192
"""The largest side of an image that the engine accepts, in pixels."""
_LAYERS = 3
"""So many layers are played: the memory of equal ones is the same."""


def projector_kind(header: GgufHeader) -> str | None:
    """What the header says the kind is; of images where it is for images and sound."""
    return header.text("clip.projector_type") or header.text("clip.vision.projector_type")


def projector_compute_bytes(header: GgufHeader, options: Mapping[str, Any]) -> int:
    """Bytes reserved for one image; 0 where the engine reserves none or the header does not say enough."""
    if options.get("warmup") is False:
        return 0
    image = _Image.of(header, projector(projector_kind(header)) or PROJECTORS["mlp"], options)
    return _Steps(image, options.get("flash_attention") != "off").bytes() if image else 0


@dataclass(frozen=True, slots=True)
class _Image:
    """The sizes of the graph: a square of `side` x `side` patches of `patch` pixels."""

    kind: Projector
    tensors: Mapping[str, TensorInfo]
    side: int
    patch: int
    merge: int
    n_embd: int
    n_heads: int
    layers: int
    window_period: int

    @classmethod
    def of(cls, header: GgufHeader, kind: Projector, options: Mapping[str, Any]) -> _Image | None:
        def number(key: str) -> int:
            return header.count(f"clip.{key}") or 0

        patch, pixels, n_embd = number("vision.patch_size"), number("vision.image_size"), 0
        n_embd, layers = number("vision.embedding_length"), number("vision.block_count")
        merge = number(kind.merge_key) or kind.merge
        if kind.reserved_tokens is not None:
            most = options.get("image_max_tokens")
            tokens = min(kind.reserved_tokens, most) if isinstance(most, int) and most > 0 else 0
            pixels = isqrt(tokens or kind.reserved_tokens) * patch * merge
        if not (patch and n_embd and layers and patch <= pixels <= MAX_SIDE):
            return None
        tensors = {tensor.name: tensor for tensor in header.tensors}
        heads = number("vision.attention.head_count") or 1
        period = number("vision.n_wa_pattern")
        return cls(kind, tensors, pixels // patch, patch, merge, n_embd, heads, layers, period)

    @property
    def patches(self) -> int:
        return self.side * self.side

    def has(self, name: str) -> bool:
        return name in self.tensors

    def rows(self, name: str) -> int:
        """Outputs of the matrix of that name; 0 without it."""
        tensor = self.tensors.get(f"{name}.weight")
        return tensor.shape[1] if tensor and len(tensor.shape) > 1 else 0

    def columns(self, name: str) -> int:
        """Inputs of the matrix of that name; 0 without it."""
        tensor = self.tensors.get(f"{name}.weight")
        return tensor.shape[0] if tensor else 0

    def bytes_of(self, name: str) -> int:
        """Size of the matrix of that name."""
        tensor = self.tensors.get(f"{name}.weight")
        return tensor.n_bytes if tensor else 0


class _Steps:
    """Plays the graph of one image."""

    def __init__(self, image: _Image, flash_attention: bool) -> None:
        self._image, self._flash = image, flash_attention
        self._graph = Graph(GPU_ALIGNMENT_BYTES)
        self._tokens = image.patches
        self._mask: Piece | None = None
        self._mask_halves: Piece | None = None
        self._positions: Piece | None = None
        self._turned = Piece(0)

    def bytes(self) -> int:
        """The size of the buffer."""
        stream = self._start()
        if self._image.has("v.pre_ln.weight"):
            stream = self._norm("v.pre_ln", stream)
        for index in range(min(self._image.layers, _LAYERS)):
            last = index == min(self._image.layers, _LAYERS) - 1
            period = self._image.window_period
            windowed = period > 0 and (index + 1) % period > 0
            stream = self._layer(f"v.blk.{index}", stream, windowed=windowed, last=last)
        if self._image.has("v.post_ln.weight"):
            stream = self._norm("v.post_ln", stream)
        self._end(stream).kept = True
        return self._graph.peak_bytes()

    def _size(self, width: int, tokens: int | None = None) -> int:
        return (self._tokens if tokens is None else tokens) * width * F32_BYTES

    def _norm(self, name: str, piece: Piece) -> Piece:
        return norm(self._graph, piece, bias=self._image.has(f"{name}.bias") or self._layer_norms)

    @property
    def _layer_norms(self) -> bool:
        """Qwen 2.5 VL and Pixtral have RMS norms, the others layer norms."""
        return self._image.kind.name not in ("qwen2.5vl_merger", "pixtral")

    def _start(self) -> Piece:
        """Pixels to patches, with their learned positions."""
        image, graph = self._image, self._graph
        raw = graph.input(3 * (image.side * image.patch) ** 2 * F32_BYTES)
        if image.kind.start == "pairs":
            stream = graph.change(self._patches(raw), self._patches(raw))
            stream = graph.op(stream.n_bytes, graph.op(stream.n_bytes, stream))
        else:
            stream = graph.op(self._size(image.n_embd), self._patches(raw))
        if image.has("v.class_embd"):
            self._tokens += 1
            repeated = [graph.op(image.n_embd * F32_BYTES)] if image.kind.end == "shuffle" else []
            stream = graph.op(self._size(image.n_embd), stream, *repeated)
        return self._placed(stream)

    def _patches(self, raw: Piece) -> Piece:
        """`ggml_conv_2d`: columns of pixels as halves, a product, a copy in the other order."""
        image = self._image
        columns = self._graph.op(image.patches * 3 * image.patch**2 * F16_BYTES, raw)
        return self._graph.op(self._size(image.n_embd), self._graph.op(self._size(image.n_embd), columns))

    def _placed(self, stream: Piece) -> Piece:
        image, graph = self._image, self._graph
        if image.kind.start == "pairs" and image.has("v.position_embd.weight"):
            resized = graph.op(stream.n_bytes)
            for _ in range(3):
                resized = graph.op(stream.n_bytes, resized)
            stream = graph.change(stream, resized)
        elif image.kind.name == "mlp":
            stream = graph.change(stream, graph.op(stream.n_bytes, graph.input(self._tokens * 4)))
        if image.kind.turns:
            self._positions = graph.input(self._tokens * 4 * (4 if image.kind.start == "pairs" else 2))
        if image.window_period:
            chosen = graph.input(self._tokens)
            self._mask = graph.input(self._tokens**2 * F32_BYTES)
            stream = graph.op(stream.n_bytes, stream, chosen)
        return stream

    def _layer(self, block: str, stream: Piece, *, windowed: bool, last: bool) -> Piece:
        graph, size = self._graph, self._size(self._image.n_embd)
        mixed = self._mixed(block, self._norm(f"{block}.ln1", stream), windowed=windowed, last=last)
        residual = graph.change(graph.op(size, mixed), stream)
        out = self._feed_forward(block, self._norm(f"{block}.ln2", residual), self._tokens)
        return graph.change(residual, out)

    def _mixed(self, block: str, normed: Piece, *, windowed: bool, last: bool) -> Piece:
        """Attention of every patch to every other, or to those in its window."""
        graph, image, size = self._graph, self._image, self._size(self._image.n_embd)
        rows = image.rows(f"{block}.attn_qkv")
        fused = graph.op(self._size(rows), normed) if rows else None

        def part(turns: int) -> Piece:
            piece = graph.view(fused if fused is not None else graph.op(size, normed))
            for _ in range(turns):
                assert self._positions is not None
                piece = graph.op(size, piece, self._positions, in_place=True)
            return piece

        q, k, v = part(image.kind.turns), part(image.kind.turns), part(0)
        if last and image.kind.end == "pool":
            self._turned = graph.op(
                image.bytes_of("mm.input_projection")
            )  # the engine's order: before the rest
        if self._flash:
            halves = [graph.op(size // 2, piece) for piece in (k, v)]
            return graph.op(size, q, *halves, *(self._half_mask() if windowed else ()))
        mask = (self._mask,) if windowed and self._mask is not None else ()
        turned = graph.op(size, v)
        scores = graph.change(graph.op(self._size(self._tokens * image.n_heads), k, q), *mask)
        return graph.op(size, graph.op(size, turned, scores))

    def _half_mask(self) -> tuple[Piece, ...]:
        """The mask of windows in halves: made where it is first needed, and cast once more each time."""
        if self._mask is None:
            return ()
        n_bytes = self._tokens**2 * F16_BYTES
        if self._mask_halves is None:
            self._mask_halves = self._graph.op(n_bytes, self._mask)
        return (self._graph.op(n_bytes, self._mask_halves),)

    def _feed_forward(self, block: str, entry: Piece, tokens: int) -> Piece:
        graph, image = self._graph, self._image
        inner = self._size(max(image.rows(f"{block}.ffn_up"), image.rows(f"{block}.ffn_down")), tokens)
        up = graph.op(inner, entry)
        if image.rows(f"{block}.ffn_gate"):
            up = graph.op(inner, graph.op(inner, entry), up)
        else:
            up = graph.change(up)
        return graph.op(self._size(image.n_embd, tokens), up)

    def _end(self, stream: Piece) -> Piece:
        image, graph = self._image, self._graph
        tokens = image.patches // image.merge**2
        size = self._size(image.n_embd, image.patches)
        if image.kind.end == "pool":
            pooled = graph.op(self._size(image.n_embd, tokens), graph.op(size, stream))
            pooled = norm(graph, graph.op(pooled.n_bytes, pooled))
            columns = image.columns("mm.input_projection")
            return graph.op(self._size(columns, tokens), self._turned, pooled)
        if image.kind.end == "shuffle":
            stream = graph.op(size, graph.op(size, stream))
        elif image.kind.end == "unfold" and image.has("mm.patch_merger.weight"):
            stream = norm(graph, stream)
            stream = graph.op(size, graph.op(size, stream))
            stream = graph.op(self._size(image.rows("mm.patch_merger"), tokens), stream)
        elif image.kind.end == "mlp":
            stream = graph.op(size, stream, graph.input(image.patches * 4))
        return self._projected(stream, tokens)

    def _projected(self, stream: Piece, tokens: int) -> Piece:
        """The last matrices, whatever they are called, with an activation between two."""
        image, graph = self._image, self._graph
        names = [name for name in _LAST if image.rows(name)]
        for name in names:
            stream = graph.op(self._size(image.rows(name), tokens), stream)
            if name != names[-1]:
                stream = graph.change(stream)
        return stream


_LAST = ("mm.model.fc", "mm.0", "mm.1", "mm.2", "mm.3")

"""Steps of RWKV, versions 6 and 7, as models/rwkv6.cpp and models/rwkv7.cpp build them.

A layer mixes in time and then in channels, each with the token before. The engine gathers a layer's
states before the layer above has mixed its channels, so the layers are told in one go.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ostler.fit.graph_delta import gathered
from ostler.fit.graph_feed_forward import norm
from ostler.fit.graph_memory import Graph, Piece
from ostler.fit.llamacpp_settings import Settings
from ostler.fit.model_shape import Layer, ModelShape

F32_BYTES = 4


def is_rwkv(layer: Layer) -> bool:
    """True for a layer that mixes in time."""
    return layer.has("time_mix_output.weight")


def rwkv(
    graph: Graph,
    shape: ModelShape,
    settings: Settings,
    layers: Sequence[Layer],
    stream: Piece,
    wanted: Piece,
) -> Piece:
    """All layers of a part; in the model's last one only wanted tokens mix their channels."""
    steps = _Steps(graph, shape, settings)
    states = steps.states() if layers else None
    for index, layer in enumerate(layers):
        assert states is not None
        normed = norm(graph, stream, bias=True)
        residual = steps.time_mix(layer, stream, normed, states)
        entry = norm(graph, residual, bias=True)
        saved = graph.op(settings.slots * shape.conv_elements * F32_BYTES, normed, entry)
        graph.consume(saved)
        shift, states = states.shift, steps.states() if index + 1 < len(layers) else states
        cut = wanted if layer is shape.layers[-1] else None
        stream = steps.channel_mix(layer, residual, entry, shift, cut)
    return stream


@dataclass(frozen=True, slots=True)
class _States:
    """Of one layer: the tokens before, and the matrix that is carried on."""

    shift: Piece
    state: Piece


class _Steps:
    def __init__(self, graph: Graph, shape: ModelShape, settings: Settings) -> None:
        self._graph, self._shape, self._settings = graph, shape, settings
        self._row = settings.batch_tokens * shape.n_embd * F32_BYTES
        self._first_values: Piece | None = None

    def states(self) -> _States:
        """Gather both states of a layer."""
        shift = gathered(self._graph, self._shape.conv_elements, self._settings)
        return _States(shift, gathered(self._graph, self._shape.state_elements, self._settings))

    def time_mix(self, layer: Layer, stream: Piece, normed: Piece, states: _States) -> Piece:
        """From the stream to its sum with what was mixed."""
        graph, row = self._graph, self._row
        before = graph.change(graph.op(row, states.shift, normed), normed)
        if layer.has("time_mix_first.weight"):
            out = self._version_6(layer, normed, before, states.state)
        else:
            out = self._version_7(layer, normed, before, states.state)
        return graph.op(row, graph.op(row, out), stream)

    def _low(self, layer: Layer, name: str) -> int:
        return self._settings.batch_tokens * layer.rows(f"time_mix_{name}") * F32_BYTES

    def _through(self, layer: Layer, source: Piece, first: str, *, act: bool = True) -> Piece:
        """A product of low rank: down, perhaps an activation, and up; then steps in place."""
        down = self._graph.op(self._low(layer, first), source)
        up = self._graph.op(self._row, self._graph.change(down) if act else down)
        return self._graph.change(up)

    def _scanned(self, *sources: Piece) -> Piece:
        """What the recurrence gives, normed; the new states lie behind it."""
        graph, row = self._graph, self._row
        states = self._settings.slots * self._shape.state_elements * F32_BYTES
        scanned = graph.op(row + states, *sources)
        graph.consume(scanned)
        return graph.change(graph.op(row, graph.op(row, scanned)))

    def _version_6(self, layer: Layer, normed: Piece, before: Piece, state: Piece) -> Piece:
        graph, row = self._graph, self._row
        mixed = graph.change(graph.op(row, graph.view(before)), normed)
        low = graph.change(graph.op(self._low(layer, "w1"), mixed))
        wide = graph.op(5 * row, graph.op(low.n_bytes, low))
        wide = graph.change(graph.change(wide, before), normed)
        keys, values, receptance = (graph.op(row, wide) for _ in range(3))
        decay = self._through(layer, wide, "decay_w1")
        out = self._scanned(keys, values, receptance, decay, state)
        return graph.change(out, graph.change(graph.op(row, wide)))

    def _version_7(self, layer: Layer, normed: Piece, before: Piece, state: Piece) -> Piece:
        graph, row = self._graph, self._row
        wide = graph.change(graph.change(graph.op(6 * row, before)), normed)
        receptance = graph.op(row, wide)
        decay = self._through(layer, wide, "w1")
        keys = graph.op(row, wide)
        rate = self._through(layer, wide, "a1", act=False)
        weighted = graph.op(row, keys)
        changed = graph.change(graph.op(row, rate, weighted), weighted)
        changed = graph.op(row, keys, changed, in_place=True)
        values = self._values(layer, wide)
        direction = graph.op(row, graph.view(graph.change(keys)))
        against = graph.op(row, direction)
        along = graph.change(direction, rate)
        out = self._scanned(receptance, decay, changed, values, against, along, state)
        bonus = graph.op(row, changed, receptance)
        heads = self._settings.batch_tokens * max(1, self._shape.n_embd // 64) * F32_BYTES
        out = graph.change(out, graph.op(row, values, graph.op(heads, graph.change(bonus))))
        return graph.change(out, self._through(layer, wide, "g1"))

    def _values(self, layer: Layer, wide: Piece) -> Piece:
        """The first layer's values are mixed into those of all others."""
        graph, row = self._graph, self._row
        values = graph.op(row, wide)
        if self._first_values is None:
            self._first_values = graph.view(values)
            return self._first_values
        difference = graph.op(row, self._first_values, values)
        difference = graph.change(difference, self._through(layer, wide, "v1", act=False))
        return graph.change(values, difference)

    def channel_mix(
        self, layer: Layer, residual: Piece, entry: Piece, shift: Piece, wanted: Piece | None
    ) -> Piece:
        """From the normed stream to the sum with what goes around."""
        graph, tokens, row = self._graph, self._settings.batch_tokens, self._row
        before = graph.op(row, shift, entry)
        if wanted is not None:
            tokens = self._settings.outputs
            row = tokens * self._shape.n_embd * F32_BYTES
            before, entry = graph.op(row, before, wanted), graph.op(row, entry, wanted)
            before = graph.change(before, entry)
        else:
            before = graph.op(row, graph.view(before), entry)
        gate = None
        if layer.has("channel_mix_receptance.weight"):
            gate = graph.op(row, graph.change(graph.op(row, before), entry))
        inner = graph.op(tokens * layer.rows("channel_mix_key") * F32_BYTES, graph.change(before, entry))
        out = graph.op(row, graph.change(inner))
        out = out if gate is None else graph.change(gate, out)
        residual = residual if wanted is None else graph.op(row, residual, wanted)
        return graph.change(out, residual)

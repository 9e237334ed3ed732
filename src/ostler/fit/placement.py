"""Which device holds which part of a model: the rules of `load_tensors` in llama.cpp's llama-model.cpp.

The embedding of the input stays on the host. The layers and, counted as one layer more, the output are
put on the GPUs from the end: with `gpu_layers` 1 the output alone is offloaded. Over several GPUs they
are dealt out in the order of the layers, in the proportions of `tensor_split`, which are by default
those of the free memory.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_lowercase
from typing import Any

from ostler.engines.listed_devices import KINDS
from ostler.fit.devices import Device
from ostler.fit.errors import ImpossibleOption
from ostler.fit.model_shape import Layer, ModelShape, aligned_bytes
from ostler.fit.splitting import Mode, cache_is_whole, ends_of, fractions, mode_of, shares_of
from ostler.library.ggml_types import TensorInfo

HOST = -1
"""The place of what is on no GPU; others are numbers of the GPUs used, from 0."""
_INPUT_TENSORS = ("token_embd", "position_embd", "token_types", "per_layer_token_embd")
_EXPERTS = re.compile(r"ffn_(up|down|gate|gate_up)_(ch|)exps")
_FEED_FORWARD = re.compile(r"ffn_(up|down|gate|gate_up)\.")
_LAYER = re.compile(r"blk\.(\d{1,6})\.(.+)")


@dataclass(frozen=True, slots=True)
class Moves:
    """Which tensors leave the place of their layer: patterns, and experts or feed-forward parts."""

    rules: tuple[tuple[re.Pattern[str], int], ...]
    cpu_moe: bool
    n_cpu_moe: int
    n_cpu_ffn: int

    @classmethod
    def of(cls, options: Mapping[str, Any], n_gpus: int) -> Moves:
        """Read the options. Raises ImpossibleOption."""
        return cls(
            rules=tuple(_overrides(options, n_gpus)),
            cpu_moe=bool(options.get("cpu_moe")),
            n_cpu_moe=options.get("n_cpu_moe") or 0,
            n_cpu_ffn=options.get("n_cpu_ffn") or 0,
        )

    @property
    def any(self) -> bool:
        """True if a tensor may move."""
        return bool(self.rules) or self.cpu_moe or self.n_cpu_moe > 0 or self.n_cpu_ffn > 0

    def overridden(self, name: str, home: int) -> int:
        """The place of a tensor by the patterns; `home` where none fits."""
        return next((where for pattern, where in self.rules if pattern.search(name)), home)

    def of_layer(self, index: int, name: str, home: int) -> int:
        """The place of a layer's tensor; `name` is without the `blk.N.` in front."""
        where = self.overridden(f"blk.{index}.{name}", home)
        if where != home or home == HOST:
            return where
        is_expert, is_plain = _EXPERTS.match(name), _FEED_FORWARD.match(name)
        on_host = (is_expert and (self.cpu_moe or index < self.n_cpu_moe)) or (
            is_plain and index < self.n_cpu_ffn
        )
        return HOST if on_host else home


@dataclass(frozen=True, slots=True)
class Placement:
    """A place for each layer and for the output. `weights_bytes` is by place, HOST last.

    `staged_bytes` is the largest weight that a GPU fetches from the host for a large batch. In the mode
    "tensor" all GPUs together are the place 0, each with its part of `shares`.
    """

    gpus: tuple[Device, ...]
    gpu_layers: int
    layers: tuple[int, ...]
    output: int
    weights_bytes: tuple[int, ...]
    staged_bytes: int
    moves: Moves
    mode: Mode
    shares: tuple[float, ...]

    def computes(self, index: int, where: int) -> bool:
        """True if the layer is worked on there."""
        home = self.layers[index]
        return home == where or (self.mode == "tensor" and HOST not in (home, where))

    def is_output(self, where: int) -> bool:
        """True if the output is computed there."""
        return self.output == where or (self.mode == "tensor" and HOST not in (self.output, where))

    def cache_share(self, shape: ModelShape, layer: Layer, where: int) -> float:
        """How much of what a layer caches lies there."""
        home = self.layers[layer.index]
        if self.mode != "tensor" or HOST in (home, where):
            return float(home == where)
        whole = cache_is_whole(shape.architecture.name, recurrent=layer.recurrent)
        return 1.0 if whole else self.shares[where]

    def place_of(self, name: str) -> int:
        """The place of a tensor, by its whole name."""
        layer = _LAYER.match(name)
        if layer is not None and int(layer[1]) < len(self.layers):
            return self.moves.of_layer(int(layer[1]), layer[2], self.layers[int(layer[1])])
        return self.moves.overridden(name, HOST if name.startswith(_INPUT_TENSORS) else self.output)


def usable_gpus(options: Mapping[str, Any], devices: Sequence[Device]) -> tuple[Device, ...]:
    """The GPUs that the engine will use, in its order. Raises ImpossibleOption for one that is not there."""
    gpus = [device for device in devices if device.kind != "cpu"]
    names = options.get("devices")
    if isinstance(names, str):
        names = names.split(",")
    if names:
        if [str(name).lower() for name in names] == ["none"]:
            return ()
        gpus = [_by_name(str(name), gpus) for name in names]
    else:
        gpus = _driven(gpus)
    if options.get("split_mode") == "none" and gpus:
        main = options.get("main_gpu") or 0
        if not isinstance(main, int) or not 0 <= main < len(gpus):
            raise ImpossibleOption("main_gpu", f"there is no GPU {main}, there are {len(gpus)}")
        gpus = [gpus[main]]
    return tuple(gpus)


def projector_place(options: Mapping[str, Any], gpus: Sequence[Device]) -> int:
    """Where a projector (mmproj) is loaded: on the first GPU unless told otherwise (clip.cpp)."""
    wanted = str(options.get("mmproj_device") or "").lower().replace(":", "")
    if not gpus or options.get("mmproj_offload") is False or wanted == "none":
        return HOST
    ids = [gpu.id.lower().replace(":", "") for gpu in gpus]
    return ids.index(wanted) if wanted in ids else 0


def place(
    shape: ModelShape, options: Mapping[str, Any], gpus: tuple[Device, ...], gpu_layers: int
) -> Placement:
    """Deal the model out. `gpu_layers` counts the output as one. Raises ImpossibleOption."""
    n_all = len(shape.layers) + len(shape.extra_layers)
    n_gpu = min(gpu_layers, n_all + 1) if gpus else 0
    mode = mode_of(options, gpus)
    shares = shares_of(options, gpus, mode)
    ends = [1.0] if mode == "tensor" else ends_of(shares)
    start = n_all + 1 - n_gpu

    def at(index: int) -> int:
        return HOST if index < start else min(bisect_right(ends, (index - start) / n_gpu), len(ends) - 1)

    places = tuple(at(index) for index in range(n_all + 1))
    placed = Placement(
        gpus, n_gpu, places[:-1], places[-1], (), 0, Moves.of(options, len(gpus)), mode, shares
    )
    fetches = bool(gpus) and options.get("op_offload") is not False
    sums, staged = _weights(shape, placed)
    return replace(placed, weights_bytes=sums, staged_bytes=staged if fetches else 0)


def _weights(shape: ModelShape, placed: Placement) -> tuple[tuple[int, ...], int]:
    """Bytes by place, and the largest weight of a layer on the host."""
    sums, staged = [0] * (len(placed.gpus) + 1), 0

    def add(name: str, tensor: TensorInfo, where: int) -> None:
        if where == HOST or placed.mode == "layer":
            sums[where] += aligned_bytes(tensor, gpu=where != HOST)
            return
        for index, part in enumerate(fractions(placed.mode, placed.shares, where, name, tensor)):
            sums[index] += int(aligned_bytes(tensor, gpu=True) * part)

    for layer in (*shape.layers, *shape.extra_layers):
        home = placed.layers[layer.index]
        if not placed.moves.any and (home == HOST or placed.mode == "layer"):
            sums[home] += layer.bytes_by_alignment[home != HOST]
            staged = max(staged, layer.largest_bytes) if home == HOST else staged
            continue
        for name, tensor in layer.tensors.items():
            where = placed.moves.of_layer(layer.index, name, home)
            add(f"blk.{layer.index}.{name}", tensor, where)
            staged = max(staged, tensor.n_bytes) if where == HOST else staged
    for name, tensor in shape.loose.items():
        add(name, tensor, placed.place_of(name))
    embedding = shape.loose.get("token_embd.weight")
    if shape.tied and placed.output != HOST and embedding is not None:
        add("output.weight", embedding, placed.output)
    return tuple(sums), staged


def _driven(gpus: Sequence[Device]) -> list[Device]:
    """What one process drives of these where it is not told: the GPUs of one maker, one part of divided ones.

    Those without memory of their own count only where there are no others (`llama_prepare_model_devices`);
    CUDA shows a process a single MIG instance (NVIDIA's MIG user guide, "CUDA device enumeration").
    """
    own = [gpu for gpu in gpus if gpu.pool is None] or list(gpus)
    sizes: dict[str, int] = {}
    for gpu in own:
        sizes[gpu.kind] = sizes.get(gpu.kind, 0) + gpu.total_bytes
    chosen = [gpu for gpu in own if gpu.kind == max(sizes, key=sizes.__getitem__)]
    parts = [gpu for gpu in chosen if gpu.id.startswith("cuda:MIG-")]
    return [gpu for gpu in chosen if gpu not in parts] or parts[:1]


def _by_name(name: str, gpus: Sequence[Device]) -> Device:
    """`cuda:2`, as we name it, or `CUDA1`, as the engine does, which counts those that are there."""
    wanted = name.strip().lower()
    for gpu in gpus:
        if gpu.id.lower() == wanted:
            return gpu
    backend, number = wanted.rstrip("0123456789"), wanted.lstrip(ascii_lowercase)
    same = [gpu for gpu in gpus if gpu.kind == KINDS.get(backend)]
    if number.isdecimal() and int(number) < len(same):
        return same[int(number)]
    raise ImpossibleOption("devices", f"there is no device '{name}'", known=[gpu.id for gpu in gpus])


def _overrides(options: Mapping[str, Any], n_gpus: int) -> list[tuple[re.Pattern[str], int]]:
    """`override_tensor`: patterns of tensor names, each with the buffer type to use."""
    stated = options.get("override_tensor") or []
    rules = []
    for rule in [stated] if isinstance(stated, str) else stated:
        for part in str(rule).split(","):
            pattern, _, buffer = part.rpartition("=")
            number = re.search(r"(\d+)$", buffer)
            where = int(number[1]) if number and int(number[1]) < n_gpus else HOST
            try:
                rules.append((re.compile(pattern), where))
            except re.error as error:
                raise ImpossibleOption("override_tensor", f"'{pattern}' is no pattern: {error}") from error
    return rules

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
from dataclasses import dataclass
from itertools import accumulate
from string import ascii_lowercase
from typing import Any

from ostler.engines.listed_devices import KINDS
from ostler.fit.devices import Device
from ostler.fit.errors import ImpossibleOption
from ostler.fit.model_shape import Layer, ModelShape, aligned_bytes

HOST = -1
"""The place of what is on no GPU; others are numbers of the GPUs used, from 0."""
_MOVERS = ("cpu_moe", "n_cpu_moe", "n_cpu_ffn")
_INPUT_TENSORS = ("token_embd", "position_embd", "token_types", "per_layer_token_embd")
_EXPERTS = re.compile(r"ffn_(up|down|gate|gate_up)_(ch|)exps")
_FEED_FORWARD = re.compile(r"ffn_(up|down|gate|gate_up)\.")


@dataclass(frozen=True, slots=True)
class Placement:
    """A place for each layer and for the output. `weights_bytes` is by place, HOST last.

    `staged_bytes` is the largest weight that a GPU fetches from the host for a large batch.
    """

    gpus: tuple[Device, ...]
    gpu_layers: int
    layers: tuple[int, ...]
    output: int
    weights_bytes: tuple[int, ...]
    staged_bytes: int
    overridden: bool

    def layers_at(self, place: int) -> tuple[int, ...]:
        """Indices of the layers at a place."""
        return tuple(index for index, at in enumerate(self.layers) if at == place)


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


def place(
    shape: ModelShape, options: Mapping[str, Any], gpus: tuple[Device, ...], gpu_layers: int
) -> Placement:
    """Deal the model out. `gpu_layers` counts the output as one."""
    n_all = len(shape.layers) + len(shape.extra_layers)
    n_gpu = min(gpu_layers, n_all + 1) if gpus else 0
    ends = _split_ends(options, gpus)
    start = n_all + 1 - n_gpu

    def at(index: int) -> int:
        return HOST if index < start else min(bisect_right(ends, (index - start) / n_gpu), len(gpus) - 1)

    places = tuple(at(index) for index in range(n_all))
    rules = _overrides(options, len(gpus))
    sums, staged = [0] * (len(gpus) + 1), 0
    moved = bool(rules) or any(options.get(name) for name in _MOVERS)
    fetches = bool(gpus) and options.get("op_offload") is not False
    for layer in (*shape.layers, *shape.extra_layers):
        if not moved:
            home = places[layer.index]
            sums[home] += layer.bytes_by_alignment[home != HOST]
            staged = max(staged, layer.largest_bytes) if fetches and home == HOST else staged
            continue
        for name, tensor in layer.tensors.items():
            where = _tensor_place(options, rules, layer, name, places[layer.index])
            sums[where] += aligned_bytes(tensor, gpu=where != HOST)
            if where == HOST and fetches:
                staged = max(staged, tensor.n_bytes)
    for name, tensor in shape.loose.items():
        where = HOST if name.startswith(_INPUT_TENSORS) else at(n_all)
        where = _overridden(rules, name, where)
        sums[where] += aligned_bytes(tensor, gpu=where != HOST)
    embedding = shape.loose.get("token_embd.weight")
    if shape.tied and at(n_all) != HOST and embedding is not None:
        sums[at(n_all)] += aligned_bytes(embedding, gpu=True)
    return Placement(gpus, n_gpu, places, at(n_all), tuple(sums), staged, bool(rules))


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


def _split_ends(options: Mapping[str, Any], gpus: Sequence[Device]) -> list[float]:
    """Where each GPU's share ends, between 0 and 1."""
    shares = options.get("tensor_split") or []
    if isinstance(shares, str):
        shares = [float(part) for part in re.split(r"[,/]", shares) if part]
    if len(shares) > len(gpus) and gpus:
        raise ImpossibleOption("tensor_split", f"{len(shares)} shares for {len(gpus)} GPUs")
    shares = [float(share) for share in shares] + [0.0] * (len(gpus) - len(shares))
    if sum(shares) == 0:
        shares = [float(gpu.free_bytes) for gpu in gpus]
    whole = sum(shares) or 1.0
    return [end / whole for end in accumulate(shares)]


def _tensor_place(
    options: Mapping[str, Any],
    rules: Sequence[tuple[re.Pattern[str], int]],
    layer: Layer,
    name: str,
    home: int,
) -> int:
    where = _overridden(rules, f"blk.{layer.index}.{name}", home)
    if where != home or home == HOST:
        return where
    on_host = (
        (bool(options.get("cpu_moe")) and _EXPERTS.match(name))
        or (layer.index < (options.get("n_cpu_moe") or 0) and _EXPERTS.match(name))
        or (layer.index < (options.get("n_cpu_ffn") or 0) and _FEED_FORWARD.match(name))
    )
    return HOST if on_host else home


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


def _overridden(rules: Sequence[tuple[re.Pattern[str], int]], name: str, home: int) -> int:
    return next((where for pattern, where in rules if pattern.search(name)), home)

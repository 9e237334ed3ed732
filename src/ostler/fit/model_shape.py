"""A model's shape: its layers, tensor by tensor, as the headers of a file set say.

Read it once with `ModelShape.of`; every estimate for the same files starts from the same shape. Key
names are those of https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, defaults those of
`load_hparams` in llama.cpp's llama-model.cpp.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from ostler.fit.architectures import ORDINARY, Architecture, architecture
from ostler.fit.errors import ImpossibleHeader, IncompleteHeader, NotEstimable
from ostler.library.ggml_types import TensorInfo
from ostler.library.gguf_header import GgufHeader

MAX_LAYERS = 4_096
MAX_HEADS = 1 << 16
HOST_ALIGNMENT_BYTES, GPU_ALIGNMENT_BYTES = 32, 128
"""`TENSOR_ALIGNMENT` in ggml-impl.h and the alignment of the CUDA buffer type in ggml-cuda.cu."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One repeating layer. `tensors` are by name without the `blk.N.` in front.

    `kv` says that it keeps keys and values of its own, `sliding` that it attends to a window only,
    `recurrent` that it keeps a state of fixed size instead. Head widths are in elements. `kind` is equal
    for layers that compute alike: everything but the place, the contents and the types counts.
    `bytes_by_alignment` is the size of all tensors on the host and on a GPU, `largest_bytes` of one.
    """

    index: int
    n_heads: int
    n_kv_heads: int
    head_k: int
    head_v: int
    kv: bool
    sliding: bool
    recurrent: bool
    kind: int
    bytes_by_alignment: tuple[int, int]
    largest_bytes: int
    tensors: Mapping[str, TensorInfo] = field(compare=False, repr=False)

    @property
    def k_elements(self) -> int:
        """Elements of one token's keys."""
        return self.n_kv_heads * self.head_k

    @property
    def v_elements(self) -> int:
        """Elements of one token's values."""
        return self.n_kv_heads * self.head_v

    def rows(self, name: str) -> int:
        """How many outputs the matrix `name` has; 0 if the layer has no such matrix."""
        tensor = self.tensors.get(f"{name}.weight")
        return tensor.shape[1] if tensor and len(tensor.shape) > 1 else 0

    def has(self, name: str) -> bool:
        """True if the layer has the tensor `name`."""
        return name in self.tensors


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What the estimate needs of a model. `window_tokens` is 0 without a sliding window.

    `mla`: the cache holds one compressed vector for each token and layer, and no values.
    `conv_elements` and `state_elements` are one sequence's recurrent state in one layer, in elements.
    `experts_used` is for one token, `widest_values` the elements of one token's values in the widest layer,
    `kinds` the layers without repetitions (see `typical`). `adapted`: adapters (LoRA) change the matrices.
    """

    architecture: Architecture
    known: bool
    trained_context: int
    n_embd: int
    n_vocab: int
    window_tokens: int
    mla: bool
    causal: bool
    experts_used: int
    conv_kernel: int
    conv_elements: int
    state_elements: int
    rope_dims: int
    layers: tuple[Layer, ...]
    extra_layers: tuple[Layer, ...]
    loose: Mapping[str, TensorInfo] = field(repr=False)
    kinds: tuple[Layer, ...] = field(repr=False, default=())
    widest_values: int = 0
    adapted: bool = False

    @classmethod
    def of(cls, headers: Sequence[GgufHeader]) -> ModelShape:
        """Read the shape from the headers of all files of one model, the first file's first.

        Raises NotEstimable, IncompleteHeader and ImpossibleHeader.
        """
        return _Reader(headers).read()

    @property
    def tied(self) -> bool:
        """True where the output matrix is the token embedding once more."""
        return "output.weight" not in self.loose and self.n_vocab > 0 and self.architecture.memory != "none"

    @property
    def tensors(self) -> Iterable[TensorInfo]:
        """Every tensor of the model, once."""
        for layer in (*self.layers, *self.extra_layers):
            yield from layer.tensors.values()
        yield from self.loose.values()


class _Reader:
    def __init__(self, headers: Sequence[GgufHeader]) -> None:
        if not headers:
            raise NotEstimable("there is no file to estimate")
        self._header = headers[0]
        if self._header.kind != "model":
            raise NotEstimable(f"a file of the kind '{self._header.kind}' is no model on its own")
        self._name = self._header.architecture
        if self._name is None:
            raise IncompleteHeader(
                "the header has no general.architecture (in a split model, only the first file has it)",
                key="general.architecture",
            )
        row = architecture(self._name)
        self._known = row is not None
        self._row = row or replace(ORDINARY, name=self._name)
        self._by_layer: dict[int, dict[str, TensorInfo]] = {}
        self._loose: dict[str, TensorInfo] = {}
        for header in headers:
            self._sort_in(header.tensors)

    def _sort_in(self, tensors: Iterable[TensorInfo]) -> None:
        for tensor in tensors:
            parts = tensor.name.split(".", 2)
            if len(parts) == 3 and parts[0] == "blk" and parts[1].isdigit():
                self._by_layer.setdefault(int(parts[1]), {})[parts[2]] = tensor
            else:
                self._loose[tensor.name] = tensor

    def read(self) -> ModelShape:
        n_all = self._needed("block_count")
        if n_all > MAX_LAYERS:
            raise ImpossibleHeader(f"a model with {n_all} layers cannot be right", layers=n_all)
        n_layers = max(0, n_all - (self._number("nextn_predict_layers") or 0)) or n_all
        window = self._window()
        layers = [self._layer(index, window > 0) for index in range(n_all)]
        state = self._state()
        n_embd = self._needed("embedding_length")
        return ModelShape(
            architecture=self._row,
            known=self._known,
            trained_context=self._needed("context_length"),
            n_embd=n_embd,
            n_vocab=self._vocab(),
            window_tokens=window,
            mla=self._known and self._number("attention.key_length_mla") is not None,
            causal=self._row.memory != "none" and self._flag("attention.causal", default=True),
            experts_used=self._number("expert_used_count") or 0,
            conv_kernel=self._number("ssm.conv_kernel") or 0,
            conv_elements=state[0],
            state_elements=state[1],
            rope_dims=self._number("rope.dimension_count") or layers[0].head_k,
            layers=tuple(layers[:n_layers]),
            extra_layers=tuple(layers[n_layers:]),
            loose=self._loose,
            kinds=tuple(typical(layers[:n_layers])),
            widest_values=max(layer.v_elements for layer in layers),
        )

    def _layer(self, index: int, windowed: bool) -> Layer:
        recurrent = self._recurrent(index)
        sliding = windowed and self._sliding(index)
        n_heads = self._at("attention.head_count", index)
        n_kv_heads = self._at("attention.head_count_kv", index)
        n_kv_heads = n_heads if n_kv_heads is None else n_kv_heads
        if not recurrent and self._row.memory != "recurrent":
            if n_heads is None:
                raise IncompleteHeader(
                    f"the header has no {self._row.name}.attention.head_count", key="attention.head_count"
                )
            self._check_heads(index, n_heads, n_kv_heads or 0)
        swa = "_swa" if sliding else ""
        shared = self._number("attention.shared_kv_layers") or 0
        tensors = self._by_layer.get(index, {})
        own_kv = self._row.memory in ("kv", "hybrid") and not recurrent and bool(n_kv_heads)
        own_kv = own_kv and index < self._needed("block_count") - shared
        alike = (n_heads, n_kv_heads, own_kv, sliding, recurrent)
        return Layer(
            index=index,
            n_heads=n_heads or 0,
            n_kv_heads=n_kv_heads or 0,
            head_k=self._head("key", swa, n_heads),
            head_v=self._head("value", swa, n_heads),
            kv=own_kv,
            sliding=sliding,
            recurrent=recurrent,
            kind=hash((alike, *sorted((name, tensor.shape) for name, tensor in tensors.items()))),
            bytes_by_alignment=(
                sum(aligned_bytes(tensor, gpu=False) for tensor in tensors.values()),
                sum(aligned_bytes(tensor, gpu=True) for tensor in tensors.values()),
            ),
            largest_bytes=max((tensor.n_bytes for tensor in tensors.values()), default=0),
            tensors=tensors,
        )

    def _check_heads(self, index: int, n_heads: int, n_kv_heads: int) -> None:
        attends = "attn_q.weight" in self._by_layer.get(index, {})
        if attends and (n_heads == 0 or n_kv_heads == 0):
            raise ImpossibleHeader(f"layer {index} attends with no heads", layer=index)
        if max(n_heads, n_kv_heads) > MAX_HEADS:
            raise ImpossibleHeader(f"layer {index} has {n_heads} heads, which cannot be right", layer=index)

    def _head(self, which: str, swa: str, n_heads: int | None) -> int:
        stated = self._number(f"attention.{which}_length{swa}") or self._number(f"attention.{which}_length")
        if stated:
            return stated
        return self._needed("embedding_length") // n_heads if n_heads else 0

    def _recurrent(self, index: int) -> bool:
        if self._row.memory == "recurrent":
            return True
        if self._row.memory != "hybrid":
            return False
        tensors = self._by_layer.get(index, {})
        return any(name.startswith(("ssm_", "shortconv.")) for name in tensors)

    def _window(self) -> int:
        only = self._row.window_layers
        if self._row.window_period is None or only not in (None, self._number("block_count")):
            return 0
        stated = self._number("attention.sliding_window", zero=True)
        return (self._row.window_tokens or 0) if stated is None else stated

    def _sliding(self, index: int) -> bool:
        """`set_swa_pattern` in llama-hparams.cpp; a pattern in the header goes before the row's."""
        stated = self._header.metadata.get(f"{self._row.name}.attention.sliding_window_pattern")
        if isinstance(stated, tuple):
            return bool(stated[index]) if index < len(stated) else False
        period = stated if isinstance(stated, int) else self._row.window_period or 0
        if period == 0:
            return True
        return index % period != 0 if self._row.full_first else index % period < period - 1

    def _state(self) -> tuple[int, int]:
        """Elements of the convolution's and of the scan's state: `n_embd_r` and `n_embd_s`."""
        short = self._number("shortconv.l_cache")
        if short:
            return self._needed("embedding_length") * (short - 1), 0
        head = self._number("wkv.head_size")
        if head:
            n_embd = self._needed("embedding_length")
            return (self._number("token_shift_count") or 2) * n_embd, n_embd * head
        delta = self._number("kda.head_dim")
        if delta:
            heads, kernel = self._at("attention.head_count", 0) or 0, self._number("ssm.conv_kernel") or 4
            return 3 * (kernel - 1) * heads * delta, heads * delta * delta
        kernel, inner = self._number("ssm.conv_kernel") or 0, self._number("ssm.inner_size") or 0
        state, groups = self._number("ssm.state_size") or 0, self._number("ssm.group_count") or 0
        return max(0, kernel - 1) * (inner + 2 * groups * state), state * inner

    def _vocab(self) -> int:
        embedding = self._loose.get("token_embd.weight")
        stated = self._header.vocab_size
        if embedding is not None and len(embedding.shape) > 1:
            return embedding.shape[1]
        return stated or 0

    def _key(self, key: str) -> str:
        return f"{self._row.name}.{key}"

    def _number(self, key: str, *, zero: bool = False) -> int | None:
        return self._header.count(self._key(key), zero=zero)

    def _needed(self, key: str) -> int:
        value = self._number(key)
        if value is None:
            raise IncompleteHeader(f"the header has no usable {self._key(key)}", key=self._key(key))
        return value

    def _at(self, key: str, index: int) -> int | None:
        """A number that may differ from layer to layer."""
        value = self._header.metadata.get(self._key(key))
        if isinstance(value, tuple):
            value = value[index] if index < len(value) else None
        return value if isinstance(value, int) and value >= 0 else None

    def _flag(self, key: str, *, default: bool) -> bool:
        value = self._header.metadata.get(self._key(key))
        return value if isinstance(value, bool) else default


def aligned_bytes(tensor: TensorInfo, *, gpu: bool) -> int:
    """What a tensor takes in a buffer of the host or of a GPU."""
    step = GPU_ALIGNMENT_BYTES if gpu else HOST_ALIGNMENT_BYTES
    return -(-tensor.n_bytes // step) * step


def typical(layers: Sequence[Layer]) -> list[Layer]:
    """The layers without repetitions: what follows the same kind as before, a third time, is left out.

    Memory is taken and given back alike in equal layers, so the peak is the same and a model with a
    hundred layers is as quick to estimate as one with six. The last layer always stays.
    """
    seen: dict[tuple[int | None, int], int] = {}
    chosen, previous = [], None
    for layer in layers:
        turn = (previous, layer.kind)
        seen[turn] = seen.get(turn, 0) + 1
        if seen[turn] <= 2 or layer is layers[-1]:
            chosen.append(layer)
        previous = layer.kind
    return chosen

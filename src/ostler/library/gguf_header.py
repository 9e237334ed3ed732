"""What a GGUF header says, as a value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ostler.library.ggml_types import TensorInfo
from ostler.library.quantization import TypeCounts

MAX_COUNT = 1 << 31
"""Numbers like a context length are taken as absent from here on: no model has them."""

Scalar = int | float | bool | str
SmallArray = tuple[Scalar, ...]


@dataclass(frozen=True, slots=True)
class ArraySummary:
    """An array that was stepped over: what its elements are and how many there are."""

    element_type: str
    length: int


Value = Scalar | SmallArray | ArraySummary


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """One file's header. For a split model each file has its own; only the first has metadata.

    Keys and their meaning: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
    """

    version: int
    byte_order: str
    metadata: Mapping[str, Value]
    tensors: tuple[TensorInfo, ...]
    data_offset: int
    size_bytes: int

    @property
    def architecture(self) -> str | None:
        """`llama`, `qwen3`, `clip`, ..."""
        return self.text("general.architecture")

    @property
    def name(self) -> str | None:
        """The name that the author gave."""
        return self.text("general.name")

    @property
    def type(self) -> str | None:
        """`model`, `adapter`, `mmproj`, `imatrix`; old files do not say."""
        return self.text("general.type")

    @property
    def parameters(self) -> int:
        """Elements of all tensors of this file."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def weights_bytes(self) -> int:
        """Bytes of tensor data, without padding."""
        return sum(tensor.n_bytes for tensor in self.tensors)

    @property
    def quantization(self) -> str | None:
        """Read from the tensors of this file: `Q4_K_M`, `Q8_0`, `F16`. None without weights."""
        return TypeCounts.of(self.tensors).label(self.count("general.file_type", zero=True))

    @property
    def context_length(self) -> int | None:
        """Tokens it was trained for."""
        return self.model_count("context_length")

    @property
    def block_count(self) -> int | None:
        """Layers."""
        return self.model_count("block_count")

    @property
    def embedding_length(self) -> int | None:
        """Width of the hidden state."""
        return self.model_count("embedding_length")

    @property
    def n_heads(self) -> int | None:
        """Attention heads; the largest where layers differ."""
        return self.model_count("attention.head_count")

    @property
    def n_kv_heads(self) -> int | None:
        """Heads of the KV cache; the largest where layers differ."""
        return self.model_count("attention.head_count_kv") or self.n_heads

    @property
    def head_dim_k(self) -> int | None:
        """Elements of one key head."""
        return self.model_count("attention.key_length") or self._even_head()

    @property
    def head_dim_v(self) -> int | None:
        """Elements of one value head."""
        return self.model_count("attention.value_length") or self._even_head()

    @property
    def vocab_size(self) -> int | None:
        """Tokens in the vocabulary."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, ArraySummary):
            return tokens.length
        if isinstance(tokens, tuple):
            return len(tokens)
        return self.model_count("vocab_size")

    @property
    def chat_template(self) -> str | None:
        """The Jinja template of a chat."""
        return self.text("tokenizer.chat_template")

    @property
    def split_no(self) -> int | None:
        """Which part of a split model this is, from 0."""
        return self.count("split.no", zero=True)

    @property
    def split_count(self) -> int | None:
        """How many parts the model has."""
        return self.count("split.count")

    @property
    def split_tensors(self) -> int | None:
        """Tensors over all parts."""
        return self.count("split.tensors.count", zero=True)

    @property
    def is_mmproj(self) -> bool:
        """True for a projector of images or sound, which goes beside a model."""
        return self.type == "mmproj" or self.architecture == "clip"

    @property
    def is_lora(self) -> bool:
        """True for an adapter."""
        return self.type == "adapter" or self.text("adapter.type") is not None

    @property
    def kind(self) -> str:
        """`model`, `mmproj`, `lora`, `vocab` (no tensors) or `other`."""
        if self.is_mmproj:
            return "mmproj"
        if self.is_lora:
            return "lora"
        if self.type not in (None, "model", "vocab"):
            return "other"
        if self.split_count is None and (self.type == "vocab" or not self.tensors):
            return "vocab"
        return "model"

    def text(self, key: str) -> str | None:
        """A string, without NUL characters (some databases refuse them); None if absent or empty."""
        value = self.metadata.get(key)
        return value.replace("\0", "") or None if isinstance(value, str) else None

    def count(self, key: str, *, zero: bool = False) -> int | None:
        """A sensible whole number; of an array of them the largest. None if absent or absurd."""
        value = self.metadata.get(key)
        if value is None:
            return None
        candidates = value if isinstance(value, tuple) else (value,)
        found = [
            number
            for number in candidates
            if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < MAX_COUNT
        ]
        largest = max(found, default=None)
        return None if largest == 0 and not zero else largest

    def model_count(self, key: str) -> int | None:
        """A number under the architecture's prefix: for llama `context_length` is `llama.context_length`."""
        return self.count(f"{self.architecture}.{key}")

    def _even_head(self) -> int | None:
        if self.embedding_length and self.n_heads:
            return self.embedding_length // self.n_heads
        return None

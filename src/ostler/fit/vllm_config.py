"""Reading a `config.json`: values by the names that they go by, looked for where vLLM looks for them.

Models for images or sound keep the language part in a nested object; `get_hf_text_config` in vLLM's
transformers_utils/config.py takes it. A value of the wrong kind counts as missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ostler.fit.errors import IncompleteHeader
from ostler.library.gguf_header import MAX_COUNT
from ostler.library.hf_config import language_part


class Config:
    """A parsed configuration. `defaults` are values of missing keys."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._whole = config
        self._text = language_part(config)
        self.defaults: Mapping[str, int | bool] = {}

    @property
    def model_type(self) -> str:
        """The language part's type."""
        return str(self._text.get("model_type") or self.outer_type)

    @property
    def outer_type(self) -> str:
        """The whole model's type."""
        return str(self._whole.get("model_type") or "unknown")

    def count(self, *names: str, zero: bool = False) -> int | None:
        """The first of these keys that holds a number above 0 (with `zero`, or 0 itself), or its default."""
        for name in names:
            value = self._value(name)
            if type(value) is int and (0 if zero else 1) <= value < MAX_COUNT:
                return value
        return None

    def needed(self, *names: str) -> int:
        """The same; raises IncompleteHeader where there is none."""
        value = self.count(*names)
        if value is None:
            raise IncompleteHeader(f"config.json has no usable {names[0]}", key=names[0])
        return value

    def flag(self, name: str) -> bool:
        """True if the key, or its default, says so."""
        return self._value(name) is True

    def share(self, *names: str) -> float:
        """The first of these keys that holds a part of one; 1 where none does."""
        values = (place.get(name) for place in (self._text, self._rope()) for name in names)
        return next((float(v) for v in values if isinstance(v, int | float) and 0 < v <= 1), 1.0)

    def text_of(self, *names: str) -> str | None:
        """The first of these keys that holds a text."""
        return next((value for name in names if isinstance(value := self._value(name), str) and value), None)

    def words(self, *names: str) -> list[str]:
        """The first of these keys that holds a list of texts; empty where none does."""
        for name in names:
            value = self._text.get(name)
            if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
                return value
        return []

    def numbers(self, name: str) -> list[int]:
        """A list of numbers; empty where there is none."""
        value = self._text.get(name)
        return [n for n in value if type(n) is int] if isinstance(value, list) else []

    @property
    def windowed(self) -> bool:
        """False where the configuration turns its window off."""
        return self._text.get("use_sliding_window") is not False

    @property
    def quantization(self) -> Mapping[str, Any]:
        """How the file is quantized; empty where it is not."""
        for place in (self._whole, self._text):
            for name in ("quantization_config", "compression_config"):
                value = place.get(name)
                if isinstance(value, dict):
                    return value
        return {}

    @property
    def rope_scaling(self) -> tuple[str, float, int]:
        """How rotary angles are stretched: the kind, the factor, and the original length in tokens or 0."""
        rope = self._rope()
        kind = rope.get("rope_type") or rope.get("type") or "default"
        factor, original = rope.get("factor"), rope.get("original_max_position_embeddings")
        original = original or self._text.get("original_max_position_embeddings")
        return (
            str(kind),
            float(factor) if isinstance(factor, int | float) and 0 < factor < MAX_COUNT else 1.0,
            original if type(original) is int and original > 0 else 0,
        )

    @property
    def two_sets_of_angles(self) -> bool:
        """True where layers with a window turn by other angles than the rest."""
        if "rope_local_base_freq" in self._text or "local_rope_theta" in self._text:
            return True
        return len({str(value) for value in self._by_kind().values()}) > 1

    def _by_kind(self) -> Mapping[str, Any]:
        rope = self._text.get("rope_parameters")
        if not isinstance(rope, dict):
            return {}
        return {key: value for key, value in rope.items() if isinstance(value, dict)}

    def _rope(self) -> Mapping[str, Any]:
        by_kind = self._by_kind()
        if by_kind:
            return next((value for key, value in by_kind.items() if key == "full_attention"), {})
        for name in ("rope_scaling", "rope_parameters"):
            value = self._text.get(name)
            if isinstance(value, dict):
                return value
        return {}

    def _value(self, name: str) -> Any:
        for place in (self._text, self._whole):
            value = place.get(name)
            if value is not None:
                return value
        return self.defaults.get(name)

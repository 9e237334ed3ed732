"""A model's shape as vLLM sees it: what each layer caches, and its weights in sums.

Read it once with `VllmShape.of` from `config.json` and the headers of the safetensors files; every estimate
starts from it. Names of keys are those that vLLM reads (transformers_utils/model_arch_config_convertor.py,
vLLM 0.32.0).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ostler.fit.errors import ImpossibleHeader, IncompleteHeader, NotEstimable
from ostler.fit.vllm_architectures import ORDINARY, VLLM_ARCHITECTURES, StateKeys, VllmArchitecture
from ostler.fit.vllm_config import Config
from ostler.fit.vllm_tensors import Weights, sum_up
from ostler.library.safetensors import SafetensorsHeader

MAX_LAYERS = 4_096
MAX_HEADS = 1 << 16
DEFAULT_CONTEXT = 2_048
"""`default_max_len` of `_get_and_verify_max_len` in config/model.py, where no key names a length."""
_LENGTHS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length"),
    *("max_target_positions", "max_sequence_length", "max_seq_length", "seq_len"),
)
_SCALED_ALREADY = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "default")
_ATTENDING = {"full_attention", "sliding_attention", "chunked_attention", "attention", "hybrid", "*"}
_SLIDING = "sliding_attention"
_STATEFUL = {"linear_attention", "mamba", "conv", "M", "hybrid"}


@dataclass(frozen=True, slots=True)
class Attention:
    """Keys and values of one layer. `width` is the elements of one head's key and value together.

    `window` is 0 where every token is kept. With `latent` there is one head, which GPUs do not share out.
    """

    kv_heads: int
    width: int
    window: int = 0
    latent: bool = False


@dataclass(frozen=True, slots=True)
class State:
    """What one sequence keeps in a recurrent layer: elements of the convolution and of the scan.

    Some of the convolution's are in `groups`; GPUs that are more than these repeat them, with `group_weights`
    elements of weights each.
    """

    conv_elements: int
    scan_elements: int
    groups: int = 0
    group_elements: int = 0
    group_weights: int = 0

    def repeated(self, gpus: int) -> int:
        """How many groups more there are with so many GPUs: `extra_groups_for_head_shards`."""
        return gpus - self.groups if self.groups and self.groups % gpus else 0


@dataclass(frozen=True, slots=True)
class VllmShape:
    """What the estimate needs of a model.

    `attention` and `states` are by layer; a layer may have both or neither. `activated` is the width of the
    widest feed-forward part for one token: of all experts that it uses. `angles` is the width of the tables
    of rotary angles together, of `angle_rows` each. `quantization` is the file's own method.
    """

    architecture: VllmArchitecture
    known: bool
    trained_context: int
    hidden: int
    n_heads: int
    n_kv_heads: int
    head: int
    vocab: int
    activated: int
    experts_used: int
    experts: int
    attention: tuple[Attention | None, ...]
    states: tuple[State | None, ...]
    angles: int
    angle_rows: int
    quantization: str | None
    cache_format: str | None
    scan_format: str | None
    has_vision: bool
    weights: Weights = field(repr=False)

    @classmethod
    def of(cls, headers: Iterable[SafetensorsHeader], config: Mapping[str, Any] | None) -> VllmShape:
        """Read the shape. Raises NotEstimable, IncompleteHeader and ImpossibleHeader."""
        if config is None:
            raise NotEstimable("there is no config.json, without which no memory can be counted")
        files = list(headers)
        if not files:
            raise NotEstimable("there are no safetensors files to estimate")
        return _Reader(Config(config)).read(files)

    @property
    def layers(self) -> int:
        """How many layers there are."""
        return len(self.attention)

    @property
    def hybrid(self) -> bool:
        """True where some layers keep keys and values, and some a state."""
        return any(self.attention) and any(self.states)


class _Reader:
    def __init__(self, config: Config) -> None:
        self._config = config
        row = VLLM_ARCHITECTURES.get(config.model_type) or VLLM_ARCHITECTURES.get(config.outer_type)
        self._known = row is not None
        self._row = row or replace(ORDINARY, model_type=config.model_type)
        config.defaults = self._row.defaults

    def read(self, headers: list[SafetensorsHeader]) -> VllmShape:
        config, kinds = self._config, self._kinds()
        hidden = config.needed("hidden_size", "n_embd", "d_model")
        heads, head = self._heads(hidden, attends=any(kind in _ATTENDING for kind in kinds))
        kv_heads = config.count("num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num")
        kv_heads = self._checked("kv heads", kv_heads or heads)
        attention = self._attention(kinds, kv_heads, head)
        tensors = (tensor for header in headers for tensor in header.tensors)
        weights = sum_up(tensors, len(kinds), tied=config.flag("tie_word_embeddings"))
        experts = config.count("num_experts", "n_routed_experts", "num_local_experts") or 0
        used = config.count("num_experts_per_tok", "num_experts_per_token", "top_k_experts") or 0
        context, rows = self._lengths()
        return VllmShape(
            architecture=self._row,
            known=self._known,
            trained_context=context,
            hidden=hidden,
            n_heads=heads,
            n_kv_heads=kv_heads,
            head=head,
            vocab=config.count("vocab_size", "padded_vocab_size") or weights.vocab_rows,
            activated=self._activated(hidden, used if experts else 0),
            experts_used=used if experts else 0,
            experts=experts,
            attention=attention,
            states=self._states(kinds, hidden),
            angles=self._angles(head),
            angle_rows=rows,
            quantization=config.quantization.get("quant_method"),
            cache_format=_cache_format(config.quantization),
            scan_format=config.text_of("mamba_ssm_dtype", "mamba_ssm_cache_dtype"),
            has_vision=weights.vision_bytes > 0,
            weights=weights,
        )

    def _kinds(self) -> list[str]:
        """What each layer is: from a list of layers, a pattern, or the row's rule."""
        config = self._config
        listed = config.words("layer_types", "layers_block_type")
        if pattern := config.text_of("hybrid_override_pattern"):
            listed = list(pattern)
        count = len(listed) or config.needed("num_hidden_layers", "n_layer", "n_layers", "num_layers")
        if count > MAX_LAYERS:
            raise ImpossibleHeader(f"a model with {count} layers cannot be right", layers=count)
        return listed or [self._unlisted(index) for index in range(count)]

    def _unlisted(self, index: int) -> str:
        row, config = self._row, self._config
        if row.state and row.state.everywhere:
            return "hybrid" if row.state.beside else "mamba"
        if period := config.count("attn_layer_period"):
            return "attention" if index % period == (config.count("attn_layer_offset") or 0) else "mamba"
        if places := config.numbers("full_attn_idxs"):
            return "full_attention" if index in places else "conv"
        every = config.count("sliding_window_pattern", "full_attention_interval") or row.full_every
        if every and (index + 1) % every:
            return "linear_attention" if row.state else _SLIDING
        return "full_attention"

    def _heads(self, hidden: int, *, attends: bool) -> tuple[int, int]:
        """Heads of queries, and the elements of one."""
        config = self._config
        heads = config.count("num_attention_heads", "n_head", "n_heads", zero=True)
        if not attends:
            return heads or 0, 0
        if heads is None:
            raise IncompleteHeader("config.json has no num_attention_heads", key="num_attention_heads")
        if heads == 0:
            raise ImpossibleHeader("config.json says that the model attends with no heads")
        self._checked("heads", heads)
        return heads, config.count("head_dim", "kv_channels", "hidden_size_per_head") or hidden // heads

    def _checked(self, what: str, heads: int) -> int:
        if heads > MAX_HEADS:
            raise ImpossibleHeader(f"config.json names {heads} {what}, which cannot be right")
        return heads

    def _attention(self, kinds: list[str], kv_heads: int, head: int) -> tuple[Attention | None, ...]:
        config, row = self._config, self._row
        rank = config.count("kv_lora_rank")
        latent = row.latent and rank is not None
        window = (config.count("sliding_window") or 0) if config.windowed else 0
        everywhere = not config.words("layer_types") and not row.full_every
        if not row.layer_types:
            everywhere = all(kind == _SLIDING for kind in kinds) or not config.words("layer_types")
        own = len(kinds) - (config.count("num_kv_shared_layers") or 0)
        layers: list[Attention | None] = []
        for index, kind in enumerate(kinds):
            if not row.cached or kind not in _ATTENDING or index >= own:
                layers.append(None)
                continue
            if latent:
                width = (rank or 0) + (config.count("qk_rope_head_dim") or 0)
                layers.append(Attention(1, width, latent=True))
                continue
            slides = window and (everywhere or (row.layer_types and kind == _SLIDING))
            wide = (not slides and config.count("global_head_dim")) or head
            some = (not slides and config.count("num_global_key_value_heads")) or kv_heads
            layers.append(Attention(some, 2 * wide, window + row.window_extra if slides else 0))
        return tuple(layers)

    def _states(self, kinds: list[str], hidden: int) -> tuple[State | None, ...]:
        keys = self._row.state
        if keys is None:
            return (None,) * len(kinds)
        state = self._state(keys, hidden)
        return tuple(state if kind in _STATEFUL else None for kind in kinds)

    def _state(self, keys: StateKeys, hidden: int) -> State:
        kept = self._size(keys.kernel) - 1
        heads, head = self._size(keys.heads), self._size(keys.head)
        groups, size = self._size(keys.groups), self._size(keys.state)
        inner = self._inner(keys, hidden) or heads * head
        if keys.form == "delta_net":
            return State(kept * (2 * groups * size + heads * head), heads * head * size)
        if keys.form == "short_conv":
            return State(kept * (inner or hidden), 0)
        if keys.form == "mamba1":
            return State(kept * inner, inner * size)
        group = 2 * size
        return State(
            kept * (inner + groups * group),
            heads * head * size,
            groups,
            kept * group,
            group * (hidden + kept + 1),
        )

    def _inner(self, keys: StateKeys, hidden: int) -> int:
        stated = self._config.count(keys.inner) if keys.inner else None
        return stated or (self._size(keys.expand) * hidden if keys.expand else 0)

    def _size(self, key: str) -> int:
        return self._config.needed(key) if key else 0

    def _activated(self, hidden: int, experts_used: int) -> int:
        config = self._config
        dense = config.count("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size") or 4 * hidden
        expert = config.count("moe_intermediate_size") or dense
        shared = config.count("shared_expert_intermediate_size") or 0
        return max(dense, experts_used * expert + shared) if experts_used else dense

    def _angles(self, head: int) -> int:
        """The width of all tables of angles: half a head of cosines, half of sines, for each set of them."""
        config = self._config
        if not self._row.rotary:
            return 0
        turned = config.share("partial_rotary_factor", "rotary_pct")
        width = config.count("qk_rope_head_dim") or int(head * turned)
        return width * (2 if config.two_sets_of_angles else 1)

    def _lengths(self) -> tuple[int, int]:
        """The longest context by `_get_and_verify_max_len`, and the rows of a table of angles."""
        config = self._config
        stated = [length for key in _LENGTHS if (length := config.count(key))]
        longest = min(stated, default=DEFAULT_CONTEXT)
        kind, factor, original = config.rope_scaling
        rows = int(original * factor) if original and kind.endswith("yarn") else longest
        if "gemma3" not in config.outer_type and kind not in _SCALED_ALREADY:
            longest = rows = int(longest * factor)
        if kind == "longrope" and original:
            longest = original
        return longest, rows


def _cache_format(quantization: Mapping[str, Any]) -> str | None:
    """The cache's format that goes with a file: `get_kv_cache_quant_algo_string` in utils/torch_utils.py."""
    if not str(quantization.get("quant_method")).startswith("modelopt"):
        return None
    inner = quantization.get("quantization")
    places = (inner, quantization) if isinstance(inner, dict) else (quantization,)
    stated = [place.get(key) for place in places for key in ("kv_cache_scheme", "kv_cache_quant_algo")]
    word = next((value for value in stated if value), None)
    if isinstance(word, dict):
        word = {8: "fp8", 4: "nvfp4"}.get(word.get("num_bits", 0))
    return word.lower() if isinstance(word, str) and word.lower() in ("fp8", "nvfp4") else None

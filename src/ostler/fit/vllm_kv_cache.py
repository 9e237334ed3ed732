"""The cache of keys, values and states as vLLM lays it out: groups of layers that draw blocks from one pool.

`get_kv_cache_groups` in v1/core/kv_cache_utils.py (vLLM 0.32.0) makes groups of equal layers; a block of the
pool is as large as the pages of the largest group, and a request takes blocks for each group. What a layer's
page is comes from `get_kv_cache_spec` of its class, how many pages a request takes from
`max_memory_usage_bytes` in v1/kv_cache_interface.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ostler.fit.vllm_quantization import CACHE_FORMATS
from ostler.fit.vllm_settings import VllmSettings
from ostler.fit.vllm_shape import Attention, State, VllmShape

F32_BYTES = 4
CUDA_BLOCK_TOKENS, CPU_BLOCK_TOKENS = 16, 128
"""`CacheConfig.DEFAULT_BLOCK_SIZE`, and `check_and_update_config` in platforms/cpu.py."""
CUDA_LATENT_BLOCK_TOKENS = 64
"""What FlashMLA and FlashInfer want for MLA (`get_supported_kernel_block_sizes`)."""
LATENT_STEP_TOKENS = 128
"""Hybrid models with MLA: `_align_hybrid_block_size` in platforms/interface.py."""
STATE_PAGES = {"mamba2": 3}
"""States that a request holds where prefixes are cached, by their form: one to work on, one at the block's
beginning, and with `MambaMixer2` (model_executor/layers/mamba/mamba_mixer2.py) one within a prompt."""
OTHER_STATE_PAGES = 2
WIDER_BY = 1.5
"""Up to this difference all groups are as large as the largest (`_get_kv_cache_groups_uniform_page_size`)."""


@dataclass(frozen=True, slots=True)
class Page:
    """What one layer keeps in one block: so many tokens, or one state where `tokens` is 0.

    `states` is then how many a request holds.
    """

    tokens: int
    page_bytes: int
    window: int = 0
    states: int = 0


@dataclass(frozen=True, slots=True)
class Pool:
    """What requests draw blocks from.

    `groups` has a page for each group of layers, which share one table of blocks: a request takes blocks for
    each. Without groups the model caches nothing. `block_bytes` is one block of the largest group, as
    `_get_kv_cache_bytes_per_block` has it.
    """

    groups: tuple[Page, ...]
    block_bytes: int

    def blocks_per_request(self, tokens: int, settings: VllmSettings) -> int:
        """Blocks that one request of so many tokens holds at most."""
        return sum(_blocks(page, tokens, settings) for page in self.groups)

    def least_bytes(self, tokens: int, settings: VllmSettings) -> int:
        """What the cache must hold at least, for one request and the block that is never given out."""
        return (self.blocks_per_request(tokens, settings) + 1) * self.block_bytes if self.groups else 0

    def capacity(self, blocks: int, settings: VllmSettings) -> tuple[int, float]:
        """Tokens that so many blocks hold, and requests of the context at once: `get_kv_cache_capacity`."""
        if not self.groups:
            return 0, 0.0
        at_once = blocks / self.blocks_per_request(settings.context, settings)
        return int(at_once * settings.context), at_once


def pool_of(shape: VllmShape, layers: range, settings: VllmSettings) -> Pool:
    """The pool of a worker that holds these layers; the groups are those of the whole model.

    With pipeline parallelism every worker keeps its own layers of each group, and as many blocks.
    """
    groups = _grouped(_pages(shape, settings))
    sizes = [sum(page.page_bytes for index, page in group if index in layers) for group in groups]
    return Pool(tuple(group[0][1] for group in groups), max(sizes, default=0))


Member = tuple[int, Page]
"""A layer's number, and a page of it."""


def _pages(shape: VllmShape, settings: VllmSettings) -> list[Member]:
    tokens = _block_tokens(shape, settings)
    attends = [
        (index, Page(tokens, tokens * token_bytes(layer, settings), layer.window))
        for index, layer in enumerate(shape.attention)
        if layer is not None
    ]
    keys, held = shape.architecture.state, 1
    if keys and settings.caches_prefixes:
        held = STATE_PAGES.get(keys.form, OTHER_STATE_PAGES)
    states = [
        (index, Page(0, state_bytes(state, shape, settings), states=held))
        for index, state in enumerate(shape.states)
        if state is not None
    ]
    return _with_one_page_size([*attends, *states])


def token_bytes(layer: Attention, settings: VllmSettings) -> int:
    """Bytes that one token takes in one layer on one GPU: heads that are too few are repeated."""
    row = CACHE_FORMATS[settings.cache_format]
    if row.token is not None and layer.latent:
        return row.token
    element = settings.dtype_bytes if row.element is None else row.element
    heads = 1 if layer.latent else max(1, layer.kv_heads // settings.tensor_parallel)
    return int(heads * (layer.width * element + (1 if layer.latent else 2) * row.head))


def state_bytes(state: State, shape: VllmShape, settings: VllmSettings) -> int:
    """Bytes of one sequence's state in one layer on one GPU."""
    wide = settings.scan_bytes or _scan_bytes(shape, settings)
    elements = state.conv_elements + state.repeated(settings.tensor_parallel) * state.group_elements
    conv = elements // settings.tensor_parallel * settings.dtype_bytes
    return conv + state.scan_elements // settings.tensor_parallel * wide


def _scan_bytes(shape: VllmShape, settings: VllmSettings) -> int:
    """The scan's number format where it is left open: float32 on CPUs with AVX-512 bf16 (platforms/cpu.py),
    what the model asks for (models/config.py), else the model's own."""
    if settings.on_cpu or shape.scan_format == "float32" or shape.architecture.model_type == "nemotron_h":
        return F32_BYTES
    return settings.dtype_bytes


def _block_tokens(shape: VllmShape, settings: VllmSettings) -> int:
    """Tokens of a block: hybrid models have blocks so long that a page of keys and values holds a state."""
    latent = any(layer is not None and layer.latent for layer in shape.attention)
    tokens = settings.block_tokens or (
        CPU_BLOCK_TOKENS if settings.on_cpu else CUDA_LATENT_BLOCK_TOKENS if latent else CUDA_BLOCK_TOKENS
    )
    if not shape.hybrid:
        return tokens
    largest = max(state_bytes(state, shape, settings) for state in shape.states if state is not None)
    widest = max(token_bytes(layer, settings) for layer in shape.attention if layer is not None)
    step = max(tokens, LATENT_STEP_TOKENS) if latent else tokens
    return max(tokens, step * -(-largest // (step * widest)))


def _with_one_page_size(members: list[Member]) -> list[Member]:
    """`unify_kv_cache_spec_page_size`: smaller pages get more tokens where that comes out even, or padding.

    Layers of one kind are left as they are: they form one group whatever their sizes.
    """
    if len({(page.tokens, page.window) for _, page in members}) <= 1:
        return members
    largest = max(page.page_bytes for _, page in members)
    return [(index, _widened(page, largest)) for index, page in members]


def _widened(page: Page, largest: int) -> Page:
    times = largest // page.page_bytes if page.tokens and largest % page.page_bytes == 0 else 1
    return replace(page, tokens=page.tokens * times, page_bytes=largest)


def _grouped(members: list[Member]) -> list[list[Member]]:
    """Layers by kind, cut into groups of equal size: `_get_kv_cache_groups_uniform_page_size`."""
    kinds: dict[tuple[int, int], list[Member]] = {}
    for index, page in members:
        kinds.setdefault((page.tokens, page.window), []).append((index, page))
    if len(kinds) <= 1:
        return list(kinds.values())
    sizes = [len(kind) for kind in kinds.values()]
    size = max(sizes) if max(sizes) < min(sizes) * WIDER_BY else min(sizes)
    groups = []
    for kind in kinds.values():
        n_groups = -(-len(kind) // size)
        groups += [kind[start::n_groups] for start in range(n_groups)]
    return groups


def _blocks(page: Page, tokens: int, settings: VllmSettings) -> int:
    if page.tokens == 0:
        return page.states
    if page.window:
        held = min(page.window - 1 + settings.in_flight_tokens, tokens)
        return -(-held // page.tokens) + 1
    return -(-tokens // page.tokens)

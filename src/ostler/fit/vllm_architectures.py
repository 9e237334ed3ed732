"""What a `config.json` leaves unsaid: facts about the model types that vLLM serves, as rows.

A row says what vLLM's model code makes of a configuration (model_executor/models/*.py, vLLM 0.32.0), and
which values the classes of transformers fill in where a key is missing. A type without a row is taken for
an ordinary decoder, and the estimate says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

StateForm = Literal["mamba1", "mamba2", "delta_net", "short_conv"]


@dataclass(frozen=True, slots=True)
class StateKeys:
    """A recurrent layer's state, and by which keys a configuration gives its sizes.

    `form` picks the shapes (`MambaStateShapeCalculator` in model_executor/layers/mamba/mamba_utils.py).
    `inner` is the inner width's own key; where that is missing it is the hidden size times `expand`.
    `everywhere`: every layer keeps a state; `beside`: beside its keys and values, not in their place.
    """

    form: StateForm
    heads: str = ""
    head: str = ""
    groups: str = ""
    state: str = ""
    kernel: str = ""
    inner: str = ""
    expand: str = ""
    everywhere: bool = False
    beside: bool = False


@dataclass(frozen=True, slots=True)
class VllmArchitecture:
    """One `model_type`.

    `full_every`: where the configuration does not list its layers, of so many the last attends to everything
    and the others to a window. `layer_types`: vLLM's code gives each layer its own window; without, all
    layers have it or none. `window_extra` is added to the window. `latent`: the cache holds one compressed
    vector for each token (MLA). `cached`: False for encoders, which keep nothing. `rotary`: a table of angles
    is kept beside the weights. `defaults` are the values of missing keys.
    """

    model_type: str
    full_every: int = 0
    layer_types: bool = True
    window_extra: int = 0
    latent: bool = False
    cached: bool = True
    rotary: bool = True
    state: StateKeys | None = None
    defaults: Mapping[str, int | bool] = field(default_factory=dict)


ORDINARY = VllmArchitecture("")
"""An ordinary decoder."""

_DELTA_NET = StateKeys(
    "delta_net",
    heads="linear_num_value_heads",
    head="linear_value_head_dim",
    groups="linear_num_key_heads",
    state="linear_key_head_dim",
    kernel="linear_conv_kernel_dim",
)
_MAMBA_LIKE = StateKeys(
    "mamba2",
    heads="mamba_n_heads",
    head="mamba_d_head",
    groups="mamba_n_groups",
    state="mamba_d_state",
    kernel="mamba_d_conv",
    expand="mamba_expand",
)
_SHORT_CONV = StateKeys("short_conv", kernel="conv_L_cache", inner="conv_dim")
_GEMMA3 = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 256,
    "vocab_size": 262_208,
    "max_position_embeddings": 131_072,
    "sliding_window": 4_096,
    "tie_word_embeddings": True,
}
_TIED: Mapping[str, int | bool] = {"tie_word_embeddings": True}
_DECODERS = (
    "llama mistral mixtral ministral3 phi3 phi3_v phimoe olmoe glm4 glm4_moe granite"
    " granitemoe granitemoeshared stablelm falcon nemotron apertus dbrx internlm2"
    " minicpm exaone chatglm baichuan solar minimax_m2 gptj orion"
    " qwen2_vl qwen2_vl_text qwen2_5_vl qwen2_5_vl_text qwen3_vl qwen3_vl_text qwen3_vl_moe"
    " qwen3_vl_moe_text mistral3 pixtral llava llava_next idefics3 smolvlm internvl_chat internvl glm4v"
    " bailing_moe mimo step3_text llama4 llama4_text"
)
_ONE_WINDOW = "qwen2 qwen2_moe qwen3 qwen3_moe"
_TIED_DECODERS = "gemma cohere ernie4_5 ernie4_5_moe"
_UNTURNED = "gpt2 opt bloom mpt"
_OF_TRANSFORMERS = "arcee cwm glm gpt_neox hunyuan_v1_dense hunyuan_v1_moe olmo olmo2 phi seed_oss"
_TIED_OF_TRANSFORMERS = "gpt_bigcode smollm3 starcoder2"
"""Types that vLLM runs with the code of transformers, which keeps no table of angles
(`_TRANSFORMERS_SUPPORTED_MODELS` in model_executor/models/registry.py)."""
_ENCODERS = "bert roberta xlm-roberta distilbert nomic_bert new modernbert"
_LATENT = (
    "deepseek_v2 deepseek_v3 deepseek_v32 deepseek_vl_v2 kimi_k2 kimi_vl kimi_k25 glm4_moe_lite glm_moe_dsa"
    " longcat_flash pangu_ultra_moe axk1"
)

VLLM_ARCHITECTURES: Mapping[str, VllmArchitecture] = {
    row.model_type: row
    for row in (
        *(VllmArchitecture(name) for name in _DECODERS.split()),
        *(VllmArchitecture(name, layer_types=False) for name in _ONE_WINDOW.split()),
        *(VllmArchitecture(name, defaults=_TIED) for name in _TIED_DECODERS.split()),
        *(VllmArchitecture(name, rotary=False, defaults=_TIED) for name in _UNTURNED.split()),
        *(VllmArchitecture(name, rotary=False) for name in _OF_TRANSFORMERS.split()),
        *(VllmArchitecture(name, rotary=False, defaults=_TIED) for name in _TIED_OF_TRANSFORMERS.split()),
        *(VllmArchitecture(name, cached=False, rotary=False) for name in _ENCODERS.split()),
        *(VllmArchitecture(name, latent=True) for name in _LATENT.split()),
        VllmArchitecture("gemma2", full_every=2, defaults=_TIED),
        VllmArchitecture("gemma3", full_every=6, defaults=_GEMMA3),
        VllmArchitecture("gemma3_text", full_every=6, defaults=_GEMMA3),
        VllmArchitecture("gemma3n", full_every=5, defaults=_TIED),
        VllmArchitecture("gemma3n_text", full_every=5, defaults=_TIED),
        VllmArchitecture("gemma4", full_every=6, defaults=_TIED),
        VllmArchitecture("gemma4_text", full_every=6, defaults=_TIED),
        VllmArchitecture("cohere2", full_every=4, window_extra=1, defaults=_TIED),
        VllmArchitecture("olmo3", full_every=4, rotary=False),
        VllmArchitecture("exaone4", full_every=4),
        VllmArchitecture("gpt_oss", full_every=2),
        VllmArchitecture(
            "mamba",
            rotary=False,
            state=StateKeys(
                "mamba1", state="state_size", kernel="conv_kernel", inner="intermediate_size", everywhere=True
            ),
            defaults=_TIED,
        ),
        VllmArchitecture(
            "mamba2",
            rotary=False,
            state=StateKeys(
                "mamba2",
                heads="num_heads",
                head="head_dim",
                groups="n_groups",
                state="state_size",
                kernel="conv_kernel",
                expand="expand",
                everywhere=True,
            ),
        ),
        VllmArchitecture(
            "jamba",
            rotary=False,
            state=StateKeys("mamba1", state="mamba_d_state", kernel="mamba_d_conv", expand="mamba_expand"),
        ),
        VllmArchitecture("granitemoehybrid", state=_MAMBA_LIKE),
        VllmArchitecture("bamba", state=_MAMBA_LIKE),
        VllmArchitecture(
            "falcon_h1",
            state=StateKeys(
                "mamba2",
                heads="mamba_n_heads",
                head="mamba_d_head",
                groups="mamba_n_groups",
                state="mamba_d_state",
                kernel="mamba_d_conv",
                inner="mamba_d_ssm",
                expand="mamba_expand",
                everywhere=True,
                beside=True,
            ),
        ),
        VllmArchitecture(
            "nemotron_h",
            rotary=False,
            state=StateKeys(
                "mamba2",
                heads="mamba_num_heads",
                head="mamba_head_dim",
                groups="n_groups",
                state="ssm_state_size",
                kernel="conv_kernel",
            ),
        ),
        VllmArchitecture("qwen3_next", full_every=4, state=_DELTA_NET),
        VllmArchitecture("qwen3_5", full_every=4, state=_DELTA_NET),
        VllmArchitecture("qwen3_5_text", full_every=4, state=_DELTA_NET),
        VllmArchitecture("qwen3_5_moe", full_every=4, state=_DELTA_NET),
        VllmArchitecture("qwen3_5_moe_text", full_every=4, state=_DELTA_NET),
        VllmArchitecture("lfm2", state=_SHORT_CONV, defaults=_TIED),
        VllmArchitecture("lfm2_moe", state=_SHORT_CONV, defaults=_TIED),
    )
}

"""What cannot be read from a GGUF header: facts about architectures, as rows.

Most of a model's shape is in its tensors and keys. These rows hold the rest: which memory an
architecture keeps between tokens (`llama_model::create_memory` in llama-model.cpp), and the sliding
window that its loader assumes where the header is silent (`load_arch_hparams` in models/*.cpp, build
11434). An architecture without a row is taken for an ordinary decoder, and the estimate says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Memory = Literal["kv", "none", "recurrent", "hybrid"]


@dataclass(frozen=True, slots=True)
class Architecture:
    """One architecture, named as `general.architecture` names it.

    `memory`: "kv" keeps keys and values, "recurrent" a state of fixed size, "hybrid" one or the other
    by layer, "none" nothing. `window_period`: of so many layers one attends to everything, the others
    to a window; 0 where only the header can say which, None where windows are not used. `full_first`:
    the first of each period is the full one, not the last. `window_tokens`: the window where the header
    has none; None means no window then. `window_layers`: only models with so many layers have a window.
    `outputs`: where the wanted tokens are picked: in the last "layer" before its feed-forward part,
    "late" after it, or "normed" after the last norm. `rotary`: queries and keys are turned by their
    position. `normed_values`: values are normed too. `rough` names what the compute buffer's graph
    leaves out.
    """

    name: str
    memory: Memory = "kv"
    window_period: int | None = None
    full_first: bool = False
    window_tokens: int | None = None
    window_layers: int | None = None
    outputs: Literal["layer", "late", "normed"] = "layer"
    rotary: bool = True
    normed_values: bool = False
    rough: str | None = None


ORDINARY = Architecture("")
"""An ordinary decoder: keys and values in each layer, no window."""

_DECODERS = (
    "llama deci falcon gptj gptneox baichuan starcoder2 stablelm qwen qwen2"
    " qwen2vl qwen2moe qwen3 qwen3moe qwen3vl qwen3vlmoe phi2 phi3 phimoe plamo codeshell orion internlm2"
    " minicpm minicpm3 gemma xverse command-r dbrx olmo olmoe openelm arctic deepseek deepseek2 chatglm glm4"
    " glm4moe bitnet nemotron exaone granite granitemoe chameleon bailingmoe bailingmoe2 dots1 arcee"
    " ernie4_5 ernie4_5-moe hunyuan-moe hunyuan-dense smollm3 seed_oss grovemoe apertus minimax-m2 cogvlm"
    " pangu-embedded mistral3 mistral4 grok"
)
_UNTURNED = "gpt2 mpt starcoder refact bloom jais"

ARCHITECTURES: Mapping[str, Architecture] = {
    row.name: row
    for row in (
        *(Architecture(name) for name in _DECODERS.split()),
        *(Architecture(name, rotary=False) for name in _UNTURNED.split()),
        Architecture("gemma2", window_period=2, window_tokens=4096),
        Architecture("gemma3", window_period=6),
        Architecture("gemma3n", window_period=5, outputs="late", normed_values=True),
        Architecture("gemma4", window_period=0, outputs="normed", normed_values=True),
        Architecture("cohere2", window_period=4),
        Architecture("gpt-oss", window_period=2, outputs="late"),
        Architecture("llama4", window_period=4, window_tokens=8192),
        Architecture("olmo2", window_period=4),
        Architecture("exaone4", window_period=4, window_tokens=4096, window_layers=64),
        Architecture("exaone-moe", window_period=4, window_tokens=128),
        Architecture("smallthinker", window_period=4, full_first=True),
        Architecture("afmoe", window_period=4),
        Architecture("plamo3", window_period=8),
        Architecture("mellum", window_period=4),
        Architecture("mimo2", window_period=0),
        Architecture("step35", window_period=0),
        Architecture("bert", memory="none", rotary=False),
        Architecture("nomic-bert", memory="none"),
        Architecture("nomic-bert-moe", memory="none"),
        Architecture("jina-bert-v2", memory="none", rotary=False),
        Architecture("jina-bert-v3", memory="none"),
        Architecture("neo-bert", memory="none"),
        Architecture("eurobert", memory="none"),
        Architecture("modern-bert", memory="none", window_period=3, full_first=True),
        Architecture("gemma-embedding", memory="none", window_period=6),
        Architecture("dream", memory="none"),
        Architecture("llada", memory="none"),
        Architecture("llada-moe", memory="none"),
        Architecture("mamba", memory="recurrent"),
        Architecture("mamba2", memory="recurrent"),
        Architecture("rwkv6", memory="recurrent"),
        Architecture("rwkv7", memory="recurrent"),
        Architecture("jamba", memory="hybrid", rotary=False),
        Architecture("granitehybrid", memory="hybrid"),
        Architecture("nemotron_h", memory="hybrid", rotary=False),
        Architecture("nemotron_h_moe", memory="hybrid", rotary=False),
        Architecture("lfm2", memory="hybrid"),
        Architecture("lfm2moe", memory="hybrid"),
        Architecture("kimi-linear", memory="hybrid", rough="Kimi's delta attention"),
        Architecture("qwen3next", memory="hybrid"),
        Architecture("qwen35", memory="hybrid"),
        Architecture("qwen35moe", memory="hybrid"),
    )
}


def architecture(name: str) -> Architecture | None:
    """The row of an architecture; None if this version does not know it."""
    return ARCHITECTURES.get(name)

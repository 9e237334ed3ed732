"""Which repo holds the tokenizer of a GGUF's original, by family: the particular before the general.

A GGUF has its tokenizer inside, and llama.cpp needs no other. Other programs that read GGUF files want the
original one; so do people who count tokens.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenizerHint:
    """A family of models: how its names look, and repos whose tokenizer its models share."""

    family: str
    pattern: re.Pattern[str]
    repos: tuple[str, ...]
    architectures: tuple[str, ...] = ()


def _hint(family: str, pattern: str, *repos: str, architectures: tuple[str, ...] = ()) -> TokenizerHint:
    return TokenizerHint(family, re.compile(pattern, re.IGNORECASE), repos, architectures)


HINTS: tuple[TokenizerHint, ...] = (
    _hint("TinyLlama", r"tiny-?llama", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
    _hint("Code Llama", r"code-?llama", "codellama/CodeLlama-7b-Instruct-hf"),
    _hint("DeepSeek R1 distilled (Llama)", r"r1-distill-llama", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B"),
    _hint("DeepSeek R1 distilled (Qwen)", r"r1-distill", "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B"),
    _hint("DeepSeek Coder V2", r"deepseek-coder-v2", "deepseek-ai/DeepSeek-Coder-V2-Lite-Instruct"),
    _hint("DeepSeek V3 and R1", r"deepseek-(v3|r1)", "deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-R1",
          architectures=("deepseek2",)),
    _hint("Hermes 3", r"hermes-3", "NousResearch/Hermes-3-Llama-3.1-8B"),
    _hint("Llama 4", r"llama-?4", "meta-llama/Llama-4-Scout-17B-16E-Instruct", architectures=("llama4",)),
    _hint("Llama 3.3", r"llama-?3[._]3", "meta-llama/Llama-3.3-70B-Instruct"),
    _hint("Llama 3.2", r"llama-?3[._]2", "meta-llama/Llama-3.2-3B-Instruct"),
    _hint("Llama 3", r"llama-?3", "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Meta-Llama-3-8B-Instruct"),
    _hint("Llama 2", r"llama-?2", "meta-llama/Llama-2-7b-chat-hf"),
    _hint("Vicuna", r"vicuna", "lmsys/vicuna-7b-v1.5"),
    _hint("Zephyr", r"zephyr", "HuggingFaceH4/zephyr-7b-beta"),
    _hint("SOLAR", r"solar-10", "upstage/SOLAR-10.7B-Instruct-v1.0"),
    _hint("Mixtral", r"mixtral", "mistralai/Mixtral-8x7B-Instruct-v0.1"),
    _hint("Mistral Nemo", r"mistral-nemo", "mistralai/Mistral-Nemo-Instruct-2407"),
    _hint("Mistral Small", r"mistral-small", "mistralai/Mistral-Small-24B-Instruct-2501"),
    _hint("Mistral", r"mistral", "mistralai/Mistral-7B-Instruct-v0.3"),
    _hint("Qwen3 Coder", r"qwen3-coder", "Qwen/Qwen3-Coder-30B-A3B-Instruct"),
    _hint("Qwen3", r"qwen-?3", "Qwen/Qwen3-8B", "Qwen/Qwen3-30B-A3B", architectures=("qwen3", "qwen3moe")),
    _hint("QwQ", r"qwq", "Qwen/QwQ-32B"),
    _hint("Qwen2.5 Coder", r"qwen2\.5-coder", "Qwen/Qwen2.5-Coder-7B-Instruct"),
    _hint("Qwen2.5", r"qwen-?2[._]?5?", "Qwen/Qwen2.5-7B-Instruct", architectures=("qwen2", "qwen2moe")),
    _hint("Gemma 3", r"gemma-?3", "google/gemma-3-4b-it", architectures=("gemma3", "gemma3n")),
    _hint("Gemma 2", r"gemma-?2", "google/gemma-2-9b-it", architectures=("gemma2",)),
    _hint("Gemma", r"gemma", "google/gemma-7b-it", architectures=("gemma",)),
    _hint("Phi-4", r"phi-?4", "microsoft/phi-4"),
    _hint("Phi-3.5", r"phi-?3[._]5", "microsoft/Phi-3.5-mini-instruct"),
    _hint("Phi-3", r"phi-?3", "microsoft/Phi-3-mini-4k-instruct", architectures=("phi3",)),
    _hint("gpt-oss", r"gpt-?oss", "openai/gpt-oss-20b", "openai/gpt-oss-120b", architectures=("gpt-oss",)),
    _hint("Command R", r"command-r", "CohereLabs/c4ai-command-r-v01", architectures=("command-r",)),
    _hint("Yi", r"\byi-", "01-ai/Yi-1.5-9B-Chat"),
    _hint("Falcon 3", r"falcon-?3", "tiiuae/Falcon3-7B-Instruct"),
    _hint("Falcon", r"falcon", "tiiuae/falcon-7b-instruct", architectures=("falcon",)),
    _hint("InternLM", r"internlm", "internlm/internlm2_5-7b-chat", architectures=("internlm2",)),
    _hint("GLM-4", r"glm-?4", "zai-org/GLM-4-9B-0414", architectures=("glm4", "chatglm")),
    _hint("Granite", r"granite", "ibm-granite/granite-3.3-8b-instruct",
          architectures=("granite", "granitemoe")),
    _hint("StarCoder2", r"starcoder-?2", "bigcode/starcoder2-7b", architectures=("starcoder2",)),
    _hint("SmolLM3", r"smollm-?3", "HuggingFaceTB/SmolLM3-3B", architectures=("smollm3",)),
    _hint("SmolLM2", r"smollm", "HuggingFaceTB/SmolLM2-1.7B-Instruct"),
    _hint("OLMo 2", r"olmo-?2", "allenai/OLMo-2-1124-7B-Instruct", architectures=("olmo2",)),
    _hint("EXAONE", r"exaone", "LGAI-EXAONE/EXAONE-3.5-7.8B-Instruct", architectures=("exaone",)),
    _hint("StableLM 2", r"stablelm-?2", "stabilityai/stablelm-2-1_6b-chat"),
    _hint("MPT", r"\bmpt-", "mosaicml/mpt-7b-instruct", architectures=("mpt",)),
    _hint("BLOOM", r"bloom", "bigscience/bloom", architectures=("bloom",)),
    _hint("Nomic Embed", r"nomic-embed", "nomic-ai/nomic-embed-text-v1.5", architectures=("nomic-bert",)),
)  # fmt: skip


def tokenizer_hint(names: list[str], architecture: str | None) -> TokenizerHint | None:
    """The family of a model by its names (of the header, the file, the folder), else by its architecture."""
    for name in names:
        text = re.sub(r"[\s_]+", "-", name)
        if found := next((hint for hint in HINTS if hint.pattern.search(text)), None):
            return found
    return next((hint for hint in HINTS if architecture in hint.architectures), None)

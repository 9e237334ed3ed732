"""Models as on the Hugging Face hub, in memory or as sparse files: right headers, no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ostler.fit.vllm_shape import VllmShape
from ostler.library.safetensors import DTYPE_BITS, SafetensorsHeader, SafetensorsTensor
from tests.library.gguf_files import write_safetensors

Tensors = dict[str, tuple[str, tuple[int, ...]]]

LLAMA_8B: Mapping[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4_096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131_072,
    "vocab_size": 128_256,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
"""The sizes of Llama 3.1 8B: 8,030,261,248 parameters."""
LLAMA_8B_PARAMETERS = 8_030_261_248
SMALL = {
    **LLAMA_8B,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8_192,
    "vocab_size": 1_024,
}


def decoder_tensors(config: Mapping[str, Any], dtype: str = "BF16") -> Tensors:
    """The tensors of a decoder like Llama with these sizes."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    head = config.get("head_dim") or hidden // config["num_attention_heads"]
    q, kv = head * config["num_attention_heads"], head * config["num_key_value_heads"]
    tensors: Tensors = {
        "model.embed_tokens.weight": (dtype, (config["vocab_size"], hidden)),
        "model.norm.weight": (dtype, (hidden,)),
    }
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = (dtype, (config["vocab_size"], hidden))
    for index in range(config["num_hidden_layers"]):
        shapes = {
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
            "self_attn.q_proj": (q, hidden),
            "self_attn.k_proj": (kv, hidden),
            "self_attn.v_proj": (kv, hidden),
            "self_attn.o_proj": (hidden, q),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
        }
        tensors |= {f"model.layers.{index}.{name}.weight": (dtype, shape) for name, shape in shapes.items()}
    return tensors


def header_of(tensors: Tensors) -> SafetensorsHeader:
    """A file's header, without the file."""
    found, offset = [], 0
    for name, (dtype, shape) in tensors.items():
        n_bytes = DTYPE_BITS[dtype] // 8
        for length in shape:
            n_bytes *= length
        found.append(SafetensorsTensor(name, dtype, shape, n_bytes, offset))
        offset += n_bytes
    return SafetensorsHeader({}, tuple(found), 8, offset + 8)


def shape_of(
    config: Mapping[str, Any] = LLAMA_8B, tensors: Tensors | None = None, **changes: Any
) -> VllmShape:
    """The shape of a decoder with these sizes, some of them changed."""
    config = {**config, **changes}
    return VllmShape.of([header_of(tensors or decoder_tensors(config))], config)


def write_model(folder: Path, config: Mapping[str, Any] = SMALL, **changes: Any) -> Path:
    """A folder with a small model's files."""
    config = {**config, **changes}
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", decoder_tensors(config))
    (folder / "config.json").write_text(json.dumps(config))
    return folder

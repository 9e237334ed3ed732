"""llama-server's options (first rows; the complete table follows)."""

from __future__ import annotations

from ostler.engines.options import Option, OptionTable, Owned

KV_TYPES = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")

ROWS = (
    Option(
        "context_length",
        "int",
        ("--ctx-size", "-c"),
        aliases=("context_size", "n_ctx"),
        minimum=0,
        unit="tokens",
    ),
    Option(
        "gpu_layers", "int", ("--gpu-layers", "-ngl", "--n-gpu-layers"), minimum=-1, words=("auto", "all")
    ),
    Option("parallel_slots", "int", ("--parallel", "-np"), minimum=-1),
    Option("threads", "int", ("--threads", "-t")),
    Option("kv_cache_type_k", "text", ("--cache-type-k", "-ctk"), choices=KV_TYPES),
    Option("kv_cache_type_v", "text", ("--cache-type-v", "-ctv"), choices=KV_TYPES),
    Option("embeddings", "bool", ("--embeddings", "--embedding")),
    Option("metrics", "bool", ("--metrics",)),
    Option("slots", "bool", ("--slots",), ("--no-slots",)),
)
OWNED = (
    Owned(("--host",), "Ostler decides where an engine listens", ("LLAMA_ARG_HOST",)),
    Owned(("--port",), "Ostler decides where an engine listens", ("LLAMA_ARG_PORT",)),
    Owned(("--api-key",), "Ostler gives each engine a key of its own", ("LLAMA_API_KEY",)),
    Owned(("--model", "-m"), "the model's source says it", ("LLAMA_ARG_MODEL",), meaning="model"),
    Owned(("--alias", "-a"), "the model's name is it", ("LLAMA_ARG_ALIAS",), meaning="alias"),
)
TABLE = OptionTable("llamacpp", ROWS, OWNED)

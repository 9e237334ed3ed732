"""Flags that Ostler decides itself, and what became of flags that vLLM no longer has."""

from __future__ import annotations

from ostler.engines.options import Gone, Owned, Renamed

LISTENS = "Ostler decides where an engine listens"
LOCAL = "an engine of Ostler's listens on this machine only, without TLS of its own"
KEY = "Ostler gives each engine a key of its own"
SOURCE = "the model's source says which files are loaded"
PULL = "pull the revision with Ostler instead, which checks and keeps it"
ELSEWHERE = "nothing would be served where Ostler asks"
DEVICES = "Ostler decides which devices an engine may see"
PRIVATE = "an engine of Ostler's tells nobody about itself"

OWNED = (
    Owned(("--host",), LISTENS, ("VLLM_HOST_IP",)),
    Owned(("--port",), LISTENS, ("VLLM_PORT",)),
    Owned(("--uds",), LISTENS),
    Owned(("--root-path",), LISTENS),
    Owned(("--grpc-port",), LISTENS),
    Owned(("--grpc",), LISTENS, values=0),
    Owned(("--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs", "--ssl-cert-reqs", "--ssl-ciphers"), LOCAL),
    Owned(("--enable-ssl-refresh", "--no-enable-ssl-refresh"), LOCAL, values=0),
    Owned(("--api-key",), KEY, ("VLLM_API_KEY",), spread=True),
    Owned(("--model",), SOURCE, names=("model_path",), meaning="model"),
    Owned(("--served-model-name",), "the model's name is told to the engine", spread=True, meaning="alias"),
    Owned(("--revision", "--code-revision", "--tokenizer-revision"), PULL),
    Owned(("--hf-token",), "the hub's token is a setting: hf_token"),
    Owned((), "an engine of Ostler's never downloads", ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")),
    Owned(
        (), PRIVATE, ("VLLM_NO_USAGE_STATS", "VLLM_DO_NOT_TRACK", "DO_NOT_TRACK", "VLLM_USAGE_STATS_SERVER")
    ),
    Owned(("--config",), "say the options one by one, so that each can be checked"),
    Owned(("--device-ids",), DEVICES, ("CUDA_VISIBLE_DEVICES",)),
    Owned((), "say it with the option nccl_p2p_disable", ("NCCL_P2P_DISABLE",)),
    Owned((), "say it with the option nccl_ib_disable", ("NCCL_IB_DISABLE",)),
    Owned((), "say it with the option nccl_shm_disable", ("NCCL_SHM_DISABLE",)),
    Owned((), "say it with the option cuda_alloc_conf", ("PYTORCH_CUDA_ALLOC_CONF",)),
    Owned(("--headless",), ELSEWHERE, values=0),
    Owned(("--data-parallel-multi-port-external-lb", "-dpm"), ELSEWHERE, values=0),
    Owned(
        (
            "--data-parallel-supervisor-port",
            "--dp-supervisor-probe-interval-s",
            "--dp-supervisor-probe-timeout-s",
            "--dp-supervisor-probe-failure-threshold",
        ),
        ELSEWHERE,
    ),
    Owned(("--help", "-h", "--version", "-v"), "it prints something and ends", values=0),
)

RENAMED = (
    Renamed(
        "disable_log_requests",
        "enable_log_requests",
        ("--disable-log-requests",),
        ("--no-disable-log-requests",),
        {True: False, False: True},
    ),
    Renamed("debug_logging", "logging_level", values={True: "DEBUG"}),
    Renamed("override_pooler_config", "pooler_config", ("--override-pooler-config",)),
    Renamed(
        "expand_tools_even_if_tool_choice_none",
        "exclude_tools_when_tool_choice_none",
        ("--expand-tools-even-if-tool-choice-none",),
        values={True: False, False: True},
    ),
    Renamed(
        "disable_mm_preprocessor_cache",
        "mm_processor_cache_gb",
        ("--disable-mm-preprocessor-cache",),
        values={True: 0.0},
    ),
    Renamed(
        "enable_multimodal_encoder_data_parallel",
        "mm_encoder_tp_mode",
        ("--enable-multimodal-encoder-data-parallel",),
        values={True: "data"},
    ),
)
"""Old spellings that were taken away; a pasted command line or a stored recipe may still have them."""


GONE = (
    Gone(("--task",), "say runner (generate or pooling) and, for embeddings or labels, convert"),
    Gone(("--device",), "choose the model's devices; which kind vLLM uses is decided by how it was built"),
    Gone(("--rope-scaling", "--rope-theta"), 'put it into hf_overrides: {"rope_parameters": {...}}'),
    Gone(("--guided-decoding-backend",), 'put it into structured_outputs_config: {"backend": "..."}'),
    Gone(
        (
            "--guided-decoding-disable-fallback",
            "--guided-decoding-disable-any-whitespace",
            "--guided-decoding-disable-additional-properties",
        ),
        "put it into structured_outputs_config",
    ),
    Gone(
        (
            "--speculative-model",
            "--num-speculative-tokens",
            "--speculative-max-model-len",
            "--speculative-draft-tensor-parallel-size",
            "-spec-draft-tp",
            "--speculative-model-quantization",
            "--speculative-disable-by-batch-size",
            "--speculative-disable-mqa-scorer",
            "--spec-decoding-acceptance-method",
            "--ngram-prompt-lookup-max",
            "--ngram-prompt-lookup-min",
        ),
        "say spec_method, spec_model and spec_tokens, or all of it in speculative_config",
    ),
    Gone(
        (
            "--enable-prompt-adapter",
            "--prompt-adapters",
            "--max-prompt-adapters",
            "--max-prompt-adapter-token",
        ),
        "vLLM serves LoRA adapters only: lora_modules",
    ),
    Gone(("--qlora-adapter-name-or-path",), "use lora_modules"),
    Gone(("--quantization-param-path",), "scales of the KV cache are read from the model itself"),
    Gone(("--worker-use-ray", "--engine-use-ray"), "set distributed_executor_backend to ray"),
    Gone(("--override-attention-dtype",), "use attention_config"),
    Gone(("--override-neuron-config",), "use additional_config"),
    Gone(
        ("--eplb-window-size", "--eplb-step-interval", "--eplb-log-balancedness", "--num-redundant-experts"),
        "put it into eplb_config",
    ),
)

"""Flags that Ostler decides itself, old spellings that still work, and flags that are no more."""

from __future__ import annotations

from ostler.engines.options import Gone, Owned, Renamed

LISTENS = "Ostler decides where an engine listens"
KEY = "Ostler gives each engine a key of its own"
SOURCE = "the model's source says which file is loaded"
PULL = "pull the model with Ostler instead, which checks and keeps it"
ROUTER = "one engine serves one model; Ostler routes between them"
SPEECH = "speech is another program"
ONCE = "it prints something and ends, so nothing would be served"

OWNED = (
    Owned(("--host",), LISTENS, ("LLAMA_ARG_HOST",)),
    Owned(("--port",), LISTENS, ("LLAMA_ARG_PORT",)),
    Owned(("--reuse-port",), LISTENS, ("LLAMA_ARG_REUSE_PORT",), values=0),
    Owned(("--api-prefix",), LISTENS, ("LLAMA_ARG_API_PREFIX",)),
    Owned(("--ssl-key-file",), LISTENS, ("LLAMA_ARG_SSL_KEY_FILE",)),
    Owned(("--ssl-cert-file",), LISTENS, ("LLAMA_ARG_SSL_CERT_FILE",)),
    Owned(("--api-key",), KEY, ("LLAMA_API_KEY",)),
    Owned(("--api-key-file",), KEY, ("LLAMA_ARG_API_KEY_FILE",)),
    Owned(("--model", "-m"), SOURCE, ("LLAMA_ARG_MODEL",), ("model_path",), meaning="model"),
    Owned(
        ("--alias", "-a"),
        "the model's name is told to the engine",
        ("LLAMA_ARG_ALIAS",),
        ("served_model_name",),
        meaning="alias",
    ),
    Owned(("--hf-repo", "-hf", "-hfr"), PULL, ("LLAMA_ARG_HF_REPO",), meaning="hub"),
    Owned(("--hf-file", "-hff"), PULL, ("LLAMA_ARG_HF_FILE",), meaning="hub_file"),
    Owned(("--hf-token", "-hft"), "the hub's token is a setting: hf_token"),
    Owned(("--model-url", "-mu"), PULL, ("LLAMA_ARG_MODEL_URL",)),
    Owned(("--docker-repo", "-dr"), PULL, ("LLAMA_ARG_DOCKER_REPO",)),
    Owned(("--mmproj-url", "-mmu"), PULL, ("LLAMA_ARG_MMPROJ_URL",)),
    Owned(
        ("--spec-draft-hf", "-hfd", "-hfrd", "--hf-repo-draft"),
        PULL,
        ("LLAMA_ARG_SPEC_DRAFT_HF_REPO",),
    ),
    Owned(("--offline",), "an engine of Ostler's never downloads", ("LLAMA_ARG_OFFLINE",), values=0),
    Owned(("--models-dir",), ROUTER, ("LLAMA_ARG_MODELS_DIR",)),
    Owned(("--models-preset",), ROUTER, ("LLAMA_ARG_MODELS_PRESET",)),
    Owned(("--models-max",), ROUTER, ("LLAMA_ARG_MODELS_MAX",)),
    Owned(
        ("--models-autoload", "--no-models-autoload"),
        ROUTER,
        ("LLAMA_ARG_MODELS_AUTOLOAD",),
        values=0,
    ),
    Owned(
        (
            "--embd-gemma-default",
            "--fim-qwen-1.5b-default",
            "--fim-qwen-3b-default",
            "--fim-qwen-7b-default",
            "--fim-qwen-7b-spec",
            "--fim-qwen-14b-spec",
            "--fim-qwen-30b-default",
            "--gpt-oss-20b-default",
            "--gpt-oss-120b-default",
            "--vision-gemma-4b-default",
            "--vision-gemma-12b-default",
        ),
        PULL,
        names=("fim_qwen_1", "fim_qwen_1b", "fim_qwen_1_5b_default"),
        values=0,
    ),
    Owned(
        (
            "--help",
            "-h",
            "--usage",
            "--version",
            "--cache-list",
            "-cl",
            "--completion-bash",
            "--list-devices",
        ),
        ONCE,
        values=0,
    ),
)

RENAMED = (
    Renamed("mlock", "load_mode", ("--mlock",), values={True: "mlock"}, env=("LLAMA_ARG_MLOCK",)),
    Renamed(
        "mmap", "load_mode", ("--mmap",), ("--no-mmap",), {True: "mmap", False: "none"}, ("LLAMA_ARG_MMAP",)
    ),
    Renamed(
        "direct_io",
        "load_mode",
        ("--direct-io", "-dio"),
        ("--no-direct-io", "-ndio"),
        {True: "dio"},
        ("LLAMA_ARG_DIO",),
    ),
    Renamed(
        "draft", "spec_draft_n_max", ("--draft", "--draft-n", "--draft-max"), env=("LLAMA_ARG_DRAFT_MAX",)
    ),
    Renamed("draft_min", "spec_draft_n_min", ("--draft-min", "--draft-n-min"), env=("LLAMA_ARG_DRAFT_MIN",)),
    Renamed("skip_warmup", "warmup", values={True: False, False: True}),
)
"""Old spellings that were taken away; a pasted command line or a stored recipe may still have them."""

GONE = (
    Gone(
        ("--spec-ngram-size-n",),
        "name the kind: spec_ngram_simple_size_n, spec_ngram_map_k_size_n, spec_ngram_mod_n_match",
    ),
    Gone(
        ("--spec-ngram-size-m",),
        "name the kind: spec_ngram_simple_size_m, spec_ngram_map_k_size_m, spec_ngram_map_k4v_size_m",
    ),
    Gone(
        ("--spec-ngram-min-hits",),
        "name the kind: spec_ngram_simple_min_hits, spec_ngram_map_k_min_hits, spec_ngram_map_k4v_min_hits",
    ),
    Gone(("--ctx-size-draft", "-cd"), "the drafting model now has the model's context"),
    Gone(("--system-prompt-file", "-spf"), "put a system message into the request defaults"),
    Gone(("--spec-replace",), "drafting models with another vocabulary are translated by the engine itself"),
    Gone(
        ("--model-vocoder", "-mv", "--hf-repo-v", "-hfv", "-hfrv", "--hf-file-v", "-hffv"),
        SPEECH,
    ),
    Gone(("--tts-use-guide-tokens",), SPEECH),
    Gone(("--verbose-prompt",), "use verbose"),
)

"""How far the estimate of memory is from what vLLM itself lays out: a table by architecture.

Small models of random sizes are written, and vLLM's own code is asked for the bytes of their weights and for
the plan of the cache, on one and on two processes (`vllm_probe.py`); no engine is started. Run:
python -m benchmarks.fit_exactness_vllm [--docs]; it needs a virtual environment with vLLM for the CPU
(OSTLER_TEST_VLLM, or where tests/real/install.sh puts it).
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.fit_tables import arguments, conclude
from benchmarks.vllm_probe import MARK
from ostler.fit.vllm_kv_cache import pool_of
from ostler.fit.vllm_settings import VllmSettings
from ostler.fit.vllm_shape import VllmShape
from ostler.fit.vllm_weights import weights_bytes
from ostler.library.bounded_json import read_json_object
from ostler.library.safetensors import read_safetensors_header
from tests.real.vllm_environment import is_complete, vllm_environment

PROBE = Path(__file__).with_name("vllm_probe.py")
MARKS = (
    "<!-- table: python -m benchmarks.fit_exactness_vllm --docs -->",
    "<!-- end of the table for vLLM -->",
)
LIMITS = {"weights": 0.01, "tokens": 0.05}
TIMEOUT_S = 900
WORLDS = (1, 2)
TYPES = (
    *("llama", "mistral", "qwen2", "qwen3", "phi3", "gemma", "gemma2", "gemma3_text", "cohere2", "gpt_neox"),
    *("opt", "mixtral", "qwen3_moe", "olmoe", "deepseek_v2", "mamba", "mamba2", "jamba", "falcon_h1"),
    *("granitemoehybrid", "qwen3_next", "lfm2"),
)
ALWAYS_TIED = ("gemma", "gemma2", "gemma3_text", "cohere2", "opt", "mamba", "lfm2")
"""Types of which vLLM knows no model with an output matrix of its own."""
TIED_OR_NOT = ("llama", "mistral", "qwen2", "qwen3", "mixtral", "qwen3_moe")
ALL_HEADS = ("opt", "gpt_neox")
"""Types with as many heads of keys as of queries."""
_CACHE_SIZE = re.compile(
    r"KV cache size: ([\d,]+) tokens, Maximum concurrency for [\d,]+ tokens.*: ([\d.]+)x"
)
ARGUMENTS = {
    "context_length": "max_model_len",
    "max_num_seqs": "max_num_seqs",
    "max_num_batched_tokens": "max_num_batched_tokens",
    "kv_cache_type": "kv_cache_dtype",
    "block_size": "block_size",
    "dtype": "dtype",
    "enable_prefix_caching": "enable_prefix_caching",
}
"""Our names of options, and those of vLLM's Python arguments."""


@dataclass(frozen=True, slots=True)
class Case:
    """One model with one set of options, on so many processes."""

    model_type: str
    model: Path
    options: Mapping[str, Any]
    cache_bytes: int
    world: int


@dataclass(frozen=True, slots=True)
class Compared:
    """What was estimated and what vLLM said: bytes of weights, tokens in the cache."""

    case: Case
    estimated: Mapping[str, float]
    said: Mapping[str, float]

    def error(self, kind: str) -> float:
        """The relative error."""
        ours, theirs = self.estimated[kind], self.said[kind]
        return (ours - theirs) / theirs if theirs else float(ours != theirs)

    @property
    def misses(self) -> list[str]:
        """The kinds that are further off than their limit."""
        return [kind for kind, limit in LIMITS.items() if abs(self.error(kind)) > limit]


def random_config(rng: random.Random, model_type: str) -> dict[str, Any]:
    """Sizes in the proportions of real models, a hundredth as large."""
    head = rng.choice((32, 64, 128))
    heads = rng.choice((4, 8))
    kv_heads = heads if model_type in ALL_HEADS else rng.choice((1, 2, 4))
    hidden = head * heads
    values: dict[str, Any] = {
        "model_type": model_type,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": rng.choice((4, 6, 7)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head,
        "vocab_size": rng.choice((1_000, 4_000, 8_003)),
        "max_position_embeddings": 4_096,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": model_type in ALWAYS_TIED
        or (model_type in TIED_OR_NOT and rng.choice((True, False))),
    }
    return {**values, **_more(rng, model_type, values)}


def _more(rng: random.Random, model_type: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """What the type needs beside the common keys."""
    experts = {"num_experts_per_tok": 2, "moe_intermediate_size": 128}
    window = {"sliding_window": rng.choice((128, 512, 1_024))}
    every = range(values["num_hidden_layers"])
    mamba2 = {
        "mamba_d_state": 32,
        "mamba_d_conv": 4,
        "mamba_expand": 2,
        "mamba_n_heads": 2 * values["hidden_size"] // 32,
        "mamba_d_head": 32,
        "mamba_n_groups": 1,
    }
    rows: dict[str, dict[str, Any]] = {
        "mistral": {"sliding_window": rng.choice((None, 256, 1_024))},
        "gemma2": window,
        "gemma3_text": window,
        "cohere2": window,
        "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
        "qwen3_moe": {"num_experts": 8, **experts},
        "olmoe": {"num_experts": 8, **experts},
        "opt": {"ffn_dim": 512, "word_embed_proj_dim": values["hidden_size"], "tie_word_embeddings": True},
        "deepseek_v2": {
            "kv_lora_rank": 512,
            "q_lora_rank": rng.choice((None, 128)),
            "qk_rope_head_dim": 64,
            "qk_nope_head_dim": 128,
            "v_head_dim": 128,
            "n_routed_experts": 8,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
            "head_dim": 64,
            "n_group": 1,
            "topk_group": 1,
            **experts,
        },
        "mamba": {"state_size": 16, "conv_kernel": 4, "expand": 2},
        "mamba2": {
            "num_heads": 2 * values["hidden_size"] // 32,
            "head_dim": 32,
            "state_size": 32,
            "n_groups": 2,
            "expand": 2,
        },
        "jamba": {
            "attn_layer_period": 3,
            "attn_layer_offset": 1,
            "mamba_d_state": 16,
            "num_experts": 2,
            "expert_layer_period": 2,
            "use_mamba_kernels": False,
        },
        "falcon_h1": {**mamba2, "mamba_d_ssm": 2 * values["hidden_size"]},
        "granitemoehybrid": {
            **mamba2,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 128,
            "position_embedding_type": "rope",
            "layer_types": ["attention" if n % 3 == 1 else "mamba" for n in every],
        },
        "qwen3_next": {
            "num_experts": 8,
            **experts,
            "shared_expert_intermediate_size": 128,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 32,
            "linear_value_head_dim": 32,
        },
        "lfm2": {
            "conv_dim": values["hidden_size"],
            "block_dim": values["hidden_size"],
            "layer_types": ["full_attention" if n % 3 == 1 else "conv" for n in every],
        },
    }
    return rows.get(model_type, {})


def random_options(rng: random.Random, model_type: str) -> dict[str, Any]:
    """Canonical options that vLLM accepts for the model on the CPU."""
    options: dict[str, Any] = {
        "context_length": rng.choice((256, 500, 1_024, 2_048, 4_096)),
        "max_num_seqs": rng.choice((None, 4, 64)),
        "max_num_batched_tokens": rng.choice((None, 512, 4_096)),
        "dtype": rng.choice(("bfloat16", "float32")),
    }
    if model_type != "deepseek_v2":
        options["block_size"] = rng.choice((None, 32, 64, 128))
        options["kv_cache_type"] = rng.choice((None, "fp8")) if options["dtype"] == "bfloat16" else None
    return {key: value for key, value in options.items() if value is not None}


def grid(folder: Path, python: Path, *, seed: int, each: int) -> list[Case]:
    """For every type two models of random sizes, and `each` settings over both."""
    rng = random.Random(seed)
    configs = [random_config(rng, name) for name in TYPES for _ in range(2)]
    _run([str(python), str(PROBE), "write", str(folder)], configs)
    return [
        Case(
            name,
            folder / str(2 * number + turn % 2),
            random_options(rng, name),
            rng.choice((1, 2, 3)) << 30,
            WORLDS[turn // 2 % len(WORLDS)],
        )
        for number, name in enumerate(TYPES)
        for turn in range(each)
    ]


def compare(python: Path, cases: Sequence[Case]) -> Iterator[Compared]:
    """Estimate the cases and ask vLLM."""
    for world in sorted({case.world for case in cases}):
        mine = [case for case in cases if case.world == world]
        for case, said in zip(mine, _said_by_vllm(python, mine, world), strict=True):
            theirs = {"weights": said["weights_bytes"], "tokens": said["tokens"]}
            yield Compared(case, estimated(case), theirs)


def estimated(case: Case) -> dict[str, float]:
    """Our numbers for one case."""
    headers = [read_safetensors_header(path) for path in sorted(case.model.glob("*.safetensors"))]
    shape = VllmShape.of(headers, read_json_object(case.model / "config.json", 1 << 20))
    options = {**case.options, "tensor_parallel_size": case.world, "kv_cache_memory_bytes": case.cache_bytes}
    settings = VllmSettings.of(shape, options, (), case.options["context_length"])
    every = range(shape.layers)
    pool = pool_of(shape, every, settings)
    tokens, _ = pool.capacity(case.cache_bytes // pool.block_bytes, settings)
    return {"weights": weights_bytes(shape, settings, every), "tokens": tokens}


def _said_by_vllm(python: Path, cases: Sequence[Case], world: int) -> list[dict[str, Any]]:
    """The first process's answers; the others are there so that it has somebody to share with."""
    asked = [
        {
            "model": str(case.model),
            "arguments": {ARGUMENTS[name]: value for name, value in case.options.items()},
            "cache_bytes": case.cache_bytes,
        }
        for case in cases
    ]
    port = _free_port()
    others = [_start(python, rank, world, port, asked) for rank in range(1, world)]
    try:
        lines = _run([str(python), str(PROBE), "ask", "0", str(world), str(port)], asked).splitlines()
    finally:
        for other in others:
            other.kill()
            other.wait()
    return [json.loads(line.removeprefix(MARK)) for line in lines if line.startswith(MARK)]


def said_by_a_start(python: Path, case: Case) -> tuple[int, float]:
    """Start the real engine, and read from its log the tokens in the cache and the requests at once."""
    flags = [f"--{ARGUMENTS[name].replace('_', '-')}={value}" for name, value in case.options.items()]
    command = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", str(case.model)]
    command += ["--port", str(_free_port()), "--load-format", "dummy", "--enforce-eager", *flags]
    command += ["--kv-cache-memory-bytes", str(case.cache_bytes)]
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    lines = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=True
    ) as engine:
        assert engine.stdout is not None
        try:
            for line in engine.stdout:
                lines.append(line)
                if found := _CACHE_SIZE.search(line):
                    return int(found[1].replace(",", "")), float(found[2])
        finally:
            os.killpg(engine.pid, signal.SIGKILL)
    raise RuntimeError(f"the engine did not start {case}:\n{''.join(lines[-12:])}")


def _start(python: Path, rank: int, world: int, port: int, asked: Any) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [str(python), str(PROBE), "ask", str(rank), str(world), str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asked))
    process.stdin.close()
    return process


def _run(command: Sequence[str], asked: Any) -> str:
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:3])} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def table(results: Sequence[Compared]) -> str:
    """The largest errors by architecture, as Markdown."""
    lines = ["| model type | cases | weights | tokens in the cache |", "|---|---|---|---|"]
    for name in TYPES:
        mine = [result for result in results if result.case.model_type == name]
        if mine:
            worst = (f"{max(abs(result.error(kind)) for result in mine):.1%}" for kind in LIMITS)
            lines.append(f"| {name} | {len(mine)} | {' | '.join(worst)} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, and exit 1 where a limit is missed."""
    parser = arguments(__doc__, each=4, of="type")
    asked = parser.parse_args()
    environment = vllm_environment()
    if not is_complete(environment):
        parser.error(f"there is no environment with vLLM at {environment}: run tests/real/install.sh")
    python = environment / "bin" / "python"
    with tempfile.TemporaryDirectory() as folder:
        results = list(compare(python, grid(Path(folder), python, seed=asked.seed, each=asked.each)))
    misses = (
        f"{kind} {result.error(kind):+.1%}: {result.case.model_type} x{result.case.world} "
        f"{dict(result.case.options)}"
        for result in results
        for kind in result.misses
    )
    return conclude(table(results), misses, MARKS, write=asked.docs)


if __name__ == "__main__":
    raise SystemExit(main())

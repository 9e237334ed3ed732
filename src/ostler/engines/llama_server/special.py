"""Options that take more than setting one parameter. Each function gets (params, value, xllamacpp)."""

from __future__ import annotations

import json
from typing import Any

from ostler.engines.llama_server.arguments import BadArgument, read_file
from ostler.engines.llama_server.processor import CPU, Apply

MIB = 1024 * 1024
INT_MAX = 2**31 - 1
EXPERTS = r"\.ffn_(up|down|gate|gate_up)_(ch|)exps"
DENSE = r"\.ffn_(up|down|gate)\."
GPU_LAYER_WORDS = {"auto": -1, "all": -2}


def _context_length(params: Any, value: int, _: Any) -> None:
    params.n_ctx = value
    if value == 0:
        params.fit_params_min_ctx = -1  # unsigned there: never less than asked for


def _parallel(params: Any, value: int, _: Any) -> None:
    if value == 0:
        raise BadArgument("--parallel must be -1 or at least 1")
    params.n_parallel = value


def _gpu_layers(params: Any, value: int | str, _: Any) -> None:
    params.n_gpu_layers = GPU_LAYER_WORDS.get(str(value), value)


def _draft_gpu_layers(params: Any, value: int | str, _: Any) -> None:
    params.speculative.draft.n_gpu_layers = GPU_LAYER_WORDS.get(str(value), value)


def _flash_attention(params: Any, value: str, x: Any) -> None:
    word = {"on": "ENABLED", "off": "DISABLED", "auto": "AUTO"}[value]
    params.flash_attn_type = x.llama_flash_attn_type[f"LLAMA_FLASH_ATTN_TYPE_{word}"]


def _load_mode(params: Any, value: str, x: Any) -> None:
    word = {"mmap+mlock": "MMAP_MLOCK", "dio": "DIRECT_IO"}.get(value, value.upper())
    params.load_mode = x.llama_load_mode[f"LLAMA_LOAD_MODE_{word}"]


def _rope_scale(params: Any, value: float, _: Any) -> None:
    params.rope_freq_scale = 1.0 / value


def _tensor_split(params: Any, value: list[float], _: Any) -> None:
    size = len(params.tensor_split)
    if len(value) >= size:
        raise BadArgument(f"--tensor-split: {len(value)} shares, at most {size - 1} are possible")
    params.tensor_split = [*value, *[0.0] * (size - len(value))]


def _fit(params: Any, value: str, _: Any) -> None:
    params.fit_params = value == "on"


def _fit_target(params: Any, value: list[int], _: Any) -> None:
    margins = list(params.fit_params_target)
    given = [mib * MIB for mib in value]
    params.fit_params_target = given * len(margins) if len(given) == 1 else [*given, *margins[len(given) :]]


def _overrides(params: Any, more: list[str]) -> None:
    earlier = params.tensor_buft_overrides
    try:
        params.tensor_buft_overrides = ",".join([*([earlier] if earlier else []), *more])
    except ValueError as error:
        raise BadArgument(f"--override-tensor: {error}") from None


def _override_tensor(params: Any, value: list[str], _: Any) -> None:
    _overrides(params, value)


def _cpu_moe(params: Any, value: bool, _: Any) -> None:
    if value:
        _overrides(params, [f"{EXPERTS}=CPU"])


def _n_cpu_moe(params: Any, value: int, _: Any) -> None:
    _overrides(params, [rf"blk\.{layer}{EXPERTS}=CPU" for layer in range(value)])


def _n_cpu_ffn(params: Any, value: int, _: Any) -> None:
    _overrides(params, [rf"blk\.{layer}{DENSE}=CPU" for layer in range(value)])


def _draft_overrides(params: Any, more: list[str]) -> None:
    draft = params.speculative.draft
    earlier = draft.tensor_buft_overrides
    try:
        draft.tensor_buft_overrides = ",".join([*([earlier] if earlier else []), *more])
    except ValueError as error:
        raise BadArgument(f"--spec-draft-override-tensor: {error}") from None


def _draft_override_tensor(params: Any, value: list[str], _: Any) -> None:
    _draft_overrides(params, value)


def _draft_cpu_moe(params: Any, value: bool, _: Any) -> None:
    if value:
        _draft_overrides(params, [f"{EXPERTS}=CPU"])


def _draft_n_cpu_moe(params: Any, value: int, _: Any) -> None:
    _draft_overrides(params, [rf"blk\.{layer}{EXPERTS}=CPU" for layer in range(value)])


def _seed(params: Any, value: int, _: Any) -> None:
    params.sampling.seed = value % 2**32


def _samplers(params: Any, value: list[str], x: Any) -> None:
    params.sampling.samplers = ";".join(value)
    if len(str(params.sampling.samplers).split(";")) != len(value):
        raise BadArgument(f"--samplers: {';'.join(value)} holds an unknown name")
    mark = x.common_params_sampling_config.COMMON_PARAMS_SAMPLING_CONFIG_SAMPLERS.value
    params.sampling.user_sampling_config |= mark


SAMPLER_LETTERS = {
    "e": "penalties",
    "d": "dry",
    "s": "top_n_sigma",
    "k": "top_k",
    "y": "typ_p",
    "p": "top_p",
    "m": "min_p",
    "x": "xtc",
    "t": "temperature",
}


def _sampler_seq(params: Any, value: str, x: Any) -> None:
    unknown = [letter for letter in value if letter not in SAMPLER_LETTERS]
    if unknown:
        raise BadArgument(f"--sampler-seq: there is no sampler {unknown[0]!r}")
    _samplers(params, [SAMPLER_LETTERS[letter] for letter in value], x)


def _grammar(params: Any, value: str, x: Any) -> None:
    params.sampling.grammar = x.CommonGrammar(x.common_grammar_type.COMMON_GRAMMAR_TYPE_USER, value)


def _grammar_file(params: Any, value: str, x: Any) -> None:
    _grammar(params, read_file("--grammar-file", value), x)


def _json_schema(params: Any, value: str, x: Any) -> None:
    try:
        grammar = x.json_schema_to_grammar(json.dumps(json.loads(value)))
    except (ValueError, RuntimeError) as error:
        raise BadArgument(f"--json-schema: {error}") from None
    kind = x.common_grammar_type.COMMON_GRAMMAR_TYPE_OUTPUT_FORMAT
    params.sampling.grammar = x.CommonGrammar(kind, grammar)


def _json_schema_file(params: Any, value: str, x: Any) -> None:
    _json_schema(params, read_file("--json-schema-file", value), x)


def _reverse_prompt(params: Any, value: list[str], _: Any) -> None:
    escapes = {r"\n": "\n", r"\r": "\r", r"\t": "\t", r"\'": "'", r"\"": '"', r"\\": "\\"}
    texts = []
    for text in value:
        parts = [text[i : i + 2] for i in range(len(text))] if params.escape and "\\" in text else []
        texts.append(_unescape(text, escapes) if parts else text)
    params.antiprompt = texts


def _unescape(text: str, escapes: dict[str, str]) -> str:
    out, place = "", 0
    while place < len(text):
        pair = text[place : place + 2]
        out += escapes.get(pair, text[place])
        place += 2 if pair in escapes else 1
    return out


def _lora(params: Any, value: list[str], x: Any) -> None:
    params.lora_adapters = [*params.lora_adapters, *(x.CommonAdapterLoraInfo(path, 1.0) for path in value)]


def _lora_scaled(params: Any, value: list[str], x: Any) -> None:
    for text in value:
        path, colon, scale = text.rpartition(":")
        try:
            adapter = x.CommonAdapterLoraInfo(path, float(scale))
        except ValueError:
            colon = ""
        if not colon:
            raise BadArgument(f"--lora-scaled: {text!r} is not FILE:SCALE")
        params.lora_adapters = [*params.lora_adapters, adapter]


def _template_values(params: Any, more: dict[str, Any]) -> None:
    params.default_template_kwargs = {
        **params.default_template_kwargs,
        **{name: json.dumps(value) for name, value in more.items()},
    }


def _template_kwargs(params: Any, value: str, _: Any) -> None:
    try:
        more = json.loads(value)
    except ValueError as error:
        raise BadArgument(f"--chat-template-kwargs is not JSON: {error}") from None
    if not isinstance(more, dict):
        raise BadArgument("--chat-template-kwargs must be a JSON object")
    _template_values(params, more)


def _reasoning(params: Any, value: str, _: Any) -> None:
    params.enable_reasoning = {"on": 1, "off": 0, "auto": -1}[value]
    if value != "auto":
        _template_values(params, {"enable_thinking": value == "on"})


def _reasoning_effort(params: Any, value: str, _: Any) -> None:
    if value != "default":
        _template_values(params, {"reasoning_effort": value})


def _reasoning_preserve(params: Any, value: bool, _: Any) -> None:
    _template_values(params, {"preserve_reasoning": value})
    params.preserve_reasoning_specified = True


def _perf(params: Any, value: bool, _: Any) -> None:
    params.no_perf = params.sampling.no_perf = not value


def _reranking(params: Any, value: bool, x: Any) -> None:
    if value:
        params.embedding = True
        params.pooling_type = x.llama_pooling_type.LLAMA_POOLING_TYPE_RANK


def _sleep(params: Any, value: int, _: Any) -> None:
    if value == 0:
        raise BadArgument("--sleep-idle-seconds must be -1 or at least 1")
    params.sleep_idle_seconds = value


def _timeout(params: Any, value: int, _: Any) -> None:
    params.timeout_read = params.timeout_write = value


def _tags(params: Any, value: list[str], _: Any) -> None:
    params.model_tags = set(value)


def _cors_origins(params: Any, value: str, _: Any) -> None:
    params.cors_origins = value
    params.cors_origins_explicit = True


def _agent(params: Any, value: bool, _: Any) -> None:
    params.server_tools = ["all"] if value else []
    params.ui_mcp_proxy = value


def _verbose(params: Any, value: bool, _: Any) -> None:
    if value:
        params.verbosity = INT_MAX


def _spec_type(params: Any, value: list[str], x: Any) -> None:
    members = [f"COMMON_SPECULATIVE_TYPE_{word.upper().replace('-', '_')}" for word in value]
    params.speculative.types = [x.common_speculative_type[member] for member in members]


def _spec_default(params: Any, value: bool, x: Any) -> None:
    if value:
        kind = x.common_speculative_type.COMMON_SPECULATIVE_TYPE_NGRAM_MOD
        params.speculative.types = [*params.speculative.types, kind]
        mod = params.speculative.ngram_mod
        mod.n_match, mod.n_min, mod.n_max = 24, 48, 64


def _spec_sampling(params: Any, value: str, _: Any) -> None:
    params.speculative.draft.probabilistic = value == "probabilistic"


def _only(flag: str, *allowed: object) -> Apply:
    """An option that is as it is: asking for just that is fine, for anything else an error."""

    def act(_: Any, value: Any, __: Any) -> None:
        if value not in allowed:
            raise BadArgument(f"{flag} cannot be honoured by the built-in engine")

    return act


def _nothing(_: Any, __: Any, ___: Any) -> None:
    """An option that llama.cpp itself keeps for old command lines and does nothing with."""


SPECIAL: dict[str, Apply] = {
    "context_length": _context_length,
    "parallel_slots": _parallel,
    "gpu_layers": _gpu_layers,
    "draft_gpu_layers": _draft_gpu_layers,
    "flash_attention": _flash_attention,
    "load_mode": _load_mode,
    "rope_scale": _rope_scale,
    "tensor_split": _tensor_split,
    "fit": _fit,
    "fit_target": _fit_target,
    "override_tensor": _override_tensor,
    "cpu_moe": _cpu_moe,
    "n_cpu_moe": _n_cpu_moe,
    "n_cpu_ffn": _n_cpu_ffn,
    "draft_override_tensor": _draft_override_tensor,
    "draft_cpu_moe": _draft_cpu_moe,
    "draft_n_cpu_moe": _draft_n_cpu_moe,
    "seed": _seed,
    "samplers": _samplers,
    "sampler_seq": _sampler_seq,
    "grammar": _grammar,
    "grammar_file": _grammar_file,
    "json_schema": _json_schema,
    "json_schema_file": _json_schema_file,
    "reverse_prompt": _reverse_prompt,
    "lora": _lora,
    "lora_scaled": _lora_scaled,
    "chat_template_kwargs": _template_kwargs,
    "reasoning": _reasoning,
    "reasoning_effort": _reasoning_effort,
    "reasoning_preserve": _reasoning_preserve,
    "perf": _perf,
    "reranking": _reranking,
    "sleep_idle_seconds": _sleep,
    "timeout": _timeout,
    "tags": _tags,
    "cors_origins": _cors_origins,
    "agent": _agent,
    "verbose": _verbose,
    "spec_type": _spec_type,
    "spec_default": _spec_default,
    "spec_draft_sampling": _spec_sampling,
    "defrag_thold": _nothing,
    "log_colors": _only("--log-colors", "off", "auto"),
    "log_prefix": _only("--log-prefix", True),
    "log_timestamps": _only("--log-timestamps", True),
    "log_jsonl": _only("--log-jsonl", False),
    **CPU,
}

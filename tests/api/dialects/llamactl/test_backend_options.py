"""`backend_options` by every name that llamactl takes (its reference, 4.3), and back."""

from __future__ import annotations

from typing import Any

import pytest

from ostler.api.dialects.llamactl.backend_options import Said, read, written
from ostler.core.errors import InvalidField, Unsupported
from ostler.engines.llamacpp_options import TABLE
from ostler.engines.options import OwnedOption, UnknownOption
from ostler.engines.vllm_options import TABLE as VLLM

LLAMA_CPP = """
override_tensor override_tensor_draft override_kv lora lora_scaled control_vector
control_vector_scaled dry_sequence_breaker logit_bias verbose_prompt swa_full perf no_perf escape
no_escape kv_offload no_kv_offload repack no_repack no_host mlock mmap no_mmap direct_io
no_direct_io cpu_moe check_tensors op_offload no_op_offload log_disable verbose offline log_prefix
log_timestamps ignore_eos backend_sampling lookup_cache_static lookup_cache_dynamic kv_unified
no_kv_unified context_shift no_context_shift special warmup no_warmup spm_infill cont_batching
no_cont_batching mmproj_auto no_mmproj no_mmproj_auto mmproj_offload no_mmproj_offload cpu_moe_draft
webui no_webui embedding reranking cache_prompt no_cache_prompt metrics props slots no_slots
models_autoload no_models_autoload jinja no_jinja prefill_assistant no_prefill_assistant
lora_init_without_apply tts_use_guide_tokens embd_gemma_default fim_qwen_1b fim_qwen_1_5b_default
fim_qwen_3b_default fim_qwen_7b_default fim_qwen_7b_spec fim_qwen_14b_spec fim_qwen_30b_default
gpt_oss_20b_default gpt_oss_120b_default vision_gemma_4b_default vision_gemma_12b_default threads
threads_batch cpu_strict prio poll cpu_strict_batch prio_batch poll_batch ctx_size predict
batch_size ubatch_size keep yarn_orig_ctx n_cpu_moe gpu_layers main_gpu fit_ctx verbosity seed top_k
repeat_last_n dry_allowed_length dry_penalty_last_n mirostat ctx_checkpoints cache_ram parallel
image_min_tokens image_max_tokens n_cpu_moe_draft port timeout threads_http cache_reuse models_max
reasoning_budget sleep_idle_seconds threads_draft threads_batch_draft draft_max draft_min
ctx_size_draft gpu_layers_draft spec_ngram_size_n spec_ngram_size_m spec_ngram_min_hits rope_scale
rope_freq_base rope_freq_scale yarn_ext_factor yarn_attn_factor yarn_beta_slow yarn_beta_fast
defrag_thold temp top_p min_p top_nsigma xtc_probability xtc_threshold typical repeat_penalty
presence_penalty frequency_penalty dry_multiplier dry_base adaptive_target adaptive_decay
dynatemp_range dynatemp_exp mirostat_lr mirostat_ent slot_prompt_similarity draft_p_min cpu_mask
cpu_range cpu_mask_batch cpu_range_batch flash_attn rope_scaling cache_type_k cache_type_v numa
device split_mode tensor_split fit fit_target control_vector_layer_range model model_url docker_repo
hf_repo hf_repo_draft hf_file hf_repo_v hf_file_v hf_token log_file log_colors cache_type_k_draft
cache_type_v_draft samplers sampling_seq grammar grammar_file json_schema json_schema_file
reverse_prompt pooling mmproj mmproj_url alias host path api_prefix webui_config webui_config_file
api_key api_key_file ssl_key_file ssl_cert_file chat_template_kwargs slot_save_path media_path
models_dir models_preset reasoning_format chat_template chat_template_file device_draft model_draft
spec_replace spec_type model_vocoder t tb C Cr Cb Crb c n n_predict b ub fa e kvo nkvo nr ctk ctv dt
dio ndio dev ot cmoe ncmoe ngl n_gpu_layers sm ts mg fitt fitc m mu dr hf hfr hfd hfrd hff hfv hfrv
hffv hft v log_verbose lv log_verbosity ctkd ctvd s sampler_seq l j jf bs swa_checkpoints cram lcs
lcd kvu no_kvu r sp np cb nocb mm mmu otd cmoed ncmoed a embeddings rerank to sps td tbd draft
draft_n draft_n_min cd devd ngld n_gpu_layers_draft md mv fim_qwen_1
"""
GONE = frozenset(
    {
        *(
            "verbose_prompt",
            "tts_use_guide_tokens",
            "ctx_size_draft",
            "cd",
            "spec_replace",
            "model_vocoder",
            "mv",
        ),
        *("spec_ngram_size_n", "spec_ngram_size_m", "spec_ngram_min_hits"),
        *("hf_repo_v", "hf_file_v", "hfv", "hfrv", "hffv"),
    }
)
"""What llama-server itself has no more: it goes on as it is, for an older program of one's own."""


@pytest.mark.parametrize("name", LLAMA_CPP.split())
def test_every_name_of_llamacpps_options_is_understood(name: str) -> None:
    try:
        assert TABLE.get(name)
    except OwnedOption:
        pass
    except UnknownOption:
        assert name in GONE


@pytest.mark.parametrize(
    ("given", "options"),
    [
        ({"ngl": 0, "c": "4096", "temp": 0}, {"context_length": 4096, "gpu_layers": 0, "temperature": 0.0}),
        ({"mmap": False, "mlock": None, "no_mlock": ""}, {"load_mode": "none"}),
        ({"no_webui": True, "cont_batching": False}, {"ui": False, "cont_batching": False}),
        ({"samplers": "top_k;temperature", "lora": ["/a", "/b"], "fa": True},
         {"samplers": ["top_k", "temperature"], "lora": ["/a", "/b"], "flash_attention": "on"}),
        ({"extra_args": {"ctx-size": "512", "np": "2"}}, {"context_length": 512, "parallel_slots": 2}),
    ],
)  # fmt: skip
def test_values_mean_what_they_say_nought_and_no_too(given: dict[str, Any], options: dict[str, Any]) -> None:
    assert read(TABLE, given).options == options


def test_what_no_table_knows_goes_on_as_an_argument() -> None:
    given = {"new_thing": 3, "new_flag": True, "not_this": False, "many": ["a", "b"], "verbose_prompt": True}
    said = read(TABLE, {**given, "extra_args": {"bare": "", "yes": "true", "with_value": "x y"}})
    assert said.extra_args == (
        *("--new-thing", "3", "--new-flag", "--many", "a", "--many", "b", "--verbose-prompt"),
        *("--bare", "--yes", "--with-value", "x y"),
    )


@pytest.mark.parametrize(
    ("table", "given", "said"),
    [
        (TABLE, {"m": "/models/a.gguf"}, Said(path="/models/a.gguf")),
        (TABLE, {"hf": "org/m:Q4", "hf_file": "x.gguf"}, Said(repo="org/m:Q4", file="x.gguf")),
        (TABLE, {"model": "", "hf_repo": "org/m", "hf_token": "hf_x"}, Said(repo="org/m", hub_token="hf_x")),
        (VLLM, {"model": "org/m"}, Said(repo="org/m")),
        (VLLM, {"model": "/models/m", "host": "x", "api_key": ["k"]}, Said(path="/models/m")),
        (TABLE, {"host": "0.0.0.0", "port": 1, "api_key": "k", "alias": "a", "offline": True}, Said()),
    ],
)  # fmt: skip
def test_the_model_is_a_path_or_a_repo_and_what_is_ostlers_is_passed_over(
    table: Any, given: dict[str, Any], said: Said
) -> None:
    assert read(table, given) == said


@pytest.mark.parametrize(
    "given",
    [
        {"model_url": "http://x"},
        {"docker_repo": "a/b"},
        {"hf_repo_draft": "a/b"},
        {"gpt_oss_20b_default": True},
    ],
)
def test_models_that_llama_server_would_fetch_itself_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(Unsupported, match="fetch"):
        read(TABLE, given)
    assert read(TABLE, {"gpt_oss_20b_default": False, "model_url": ""}) == Said()


@pytest.mark.parametrize("given", [{"ctx_size": "x"}, {"extra_args": "--a"}, {"new": {"a": 1}}, {"np": True}])
def test_values_that_cannot_be_are_refused_by_name(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidField, match=next(iter(given))):
        read(TABLE, given)


@pytest.mark.parametrize("table", [TABLE, VLLM])
def test_what_is_written_is_read_as_the_same(table: Any) -> None:
    samples: dict[str, Any] = {"bool": False, "int": 3, "float": 0.5, "path": "/a", "json": "{}", "text": "a"}
    for row in table:
        value: Any = row.choices[0] if row.choices else samples[row.type]
        if row.type in ("int", "float"):
            value = max(value, row.minimum or 0)
            value = value if row.maximum is None else min(value, row.maximum)
        value = " ".join([value] * row.values) if row.values > 1 and row.type == "text" else value
        options = table.validate({row.name: [value] if row.repeat else value})
        if row.type == "bool" and not row.negative_flags:
            options = {row.name: True}
        assert read(table, written(table, options, ())).options == options, row.name

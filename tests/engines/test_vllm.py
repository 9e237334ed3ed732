"""vLLM as an engine: what would run, where the program comes from, what its answers mean."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ostler.core.launch import HOST_SLOT, PORT_SLOT
from ostler.engines.base import Health, HealthAnswer, LaunchRequest, NoExecutable, UnknownFlag
from ostler.engines.options import BadOptionValue, OwnedOption, UnknownOption
from ostler.engines.registry import ENGINES, Engines
from ostler.engines.vllm import Vllm
from ostler.engines.vllm_options import TABLE

FLAGS = frozenset((Path(__file__).parent / "vllm_flags.txt").read_text().split())


def request(**changes: Any) -> LaunchRequest:
    return LaunchRequest(1, "small", Path("/models/small"), **changes)


def make_environment(folder: Path, *, package: str = "vllm", flags: str = "--max-model-len") -> Path:
    """A virtual environment whose vLLM knows some flags: real files, this test's Python."""
    packages = folder / "lib" / "python3.11" / "site-packages"
    (packages / f"{package}-0.40.0.dist-info").mkdir(parents=True)
    (packages / f"{package}-0.40.0.dist-info" / "entry_points.txt").write_text("")
    (packages / "vllm" / "engine").mkdir(parents=True)
    (packages / "vllm" / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (packages / "vllm" / "_version.py").write_text("__version__ = version = '0.40.0'\n")
    calls = "".join(f"    parser.add_argument({flag!r}, '-x')\n" for flag in flags.split())
    (packages / "vllm" / "engine" / "arg_utils.py").write_text(f"def add(parser):\n{calls}")
    (packages / "torch").mkdir()
    (packages / "torch" / "version.py").write_text("cuda: str = '13.0'\nhip = None\n")
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} "$@"\n')
    script = folder / "bin" / "vllm"
    script.write_text(f"#!{python}\n")
    for program in (python, script):
        program.chmod(0o755)
    return folder


def test_every_flag_of_this_vllm_is_known_and_no_other() -> None:
    gone = {flag for row in TABLE.rows if row.until for flag in row.flags}
    known = TABLE.flags() | {flag for old in TABLE.renamed for flag in (*old.flags, *old.negative_flags)}
    assert not FLAGS - known
    negative = {flag for flag in TABLE.flags() if flag.startswith("--no-")}
    assert not TABLE.flags() - FLAGS - gone - negative - {"--help", "-h", "--version", "-v"}


def test_every_option_says_what_it_is() -> None:
    for option in TABLE:
        assert option.help.endswith(".") and len(option.help) > 8, option.name
        assert option.default is None or option.repeat or TABLE.validate({option.name: option.default})


@pytest.mark.parametrize(
    ("given", "value", "arguments"),
    [
        ("max_model_len", 4096, ["--max-model-len", "4096"]),
        ("context_length", "auto", ["--max-model-len", "auto"]),
        ("tp_size", 2, ["--tensor-parallel-size", "2"]),
        ("kv_cache_dtype", "fp8", ["--kv-cache-dtype", "fp8"]),
        ("enable_prefix_caching", False, ["--no-enable-prefix-caching"]),
        ("cuda_graph_sizes", [1, 2], ["--cudagraph-capture-sizes", "1", "2"]),
        ("hf_overrides", {"b": 1, "a": [2]}, ["--hf-overrides", '{"a": [2], "b": 1}']),
        ("hf_overrides", '{"b":1}', ["--hf-overrides", '{"b": 1}']),
        ("disable_log_requests", True, ["--no-enable-log-requests"]),
        ("swap_space", 4, []),
        ("cpu_offload_gb", 0, ["--cpu-offload-gb", "0"]),
        ("default_chat_template_kwargs", {}, ["--default-chat-template-kwargs", "{}"]),
    ],
)
def test_options_are_written_as_this_vllm_reads_them(given: str, value: Any, arguments: list[str]) -> None:
    assert TABLE.to_args({given: value}) == arguments


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        ({"cpu_kv_cache_gib": 2}, {"VLLM_CPU_KVCACHE_SPACE": "2"}),
        ({"debug_logging": True}, {"VLLM_LOGGING_LEVEL": "DEBUG"}),
        ({"debug_logging": False, "vllm_v1_enabled": True}, {}),
        ({"nccl_p2p_disable": False}, {"NCCL_P2P_DISABLE": "0"}),
        ({"trace_mode": True}, {"VLLM_TRACE_FUNCTION": "1"}),
    ],
)
def test_options_without_a_flag_become_variables(options: dict[str, Any], variables: dict[str, str]) -> None:
    assert TABLE.to_env(options) == variables


@pytest.mark.parametrize(
    ("name", "value"), [("hf_overrides", "{broken"), ("dtype", "int3"), ("max_num_seqs", 0)]
)
def test_a_bad_value_is_refused(name: str, value: Any) -> None:
    with pytest.raises(BadOptionValue):
        TABLE.validate({name: value})


@pytest.mark.parametrize(("name", "says"), [("task", "runner"), ("rope_scaling", "hf_overrides")])
def test_what_vllm_gave_up_says_what_came_in_its_place(name: str, says: str) -> None:
    with pytest.raises(UnknownOption) as caught:
        TABLE.validate({name: "x"})
    assert says in (caught.value.hint or "")


def test_cortex_and_llamactl_names_are_known() -> None:
    names = """
        dtype max_model_len tokenizer hf_config_path trust_remote_code kv_cache_dtype
        max_num_batched_tokens quantization block_size swap_space_gb enforce_eager cpu_offload_gb
        enable_prefix_caching prefix_caching_hash_algo enable_chunked_prefill max_num_seqs
        cuda_graph_sizes pipeline_parallel_size attention_backend disable_log_requests
        disable_log_stats vllm_v1_enabled gguf_weight_format debug_logging trace_mode
        engine_request_timeout max_log_len tp_size gpu_memory_utilization hf_overrides seed
        lora_modules speculative_config tool_call_parser enable_auto_tool_choice reasoning_parser
        structured_outputs_config chat_template generation_config limit_mm_per_prompt
        data_parallel_size enable_expert_parallel kv_cache_memory_bytes skip_tokenizer_init
        tokenizer_mode download_dir load_format config_format disable_sliding_window
        use_v2_block_manager num_lookahead_slots swap_space num_gpu_blocks_override max_logprobs
        max_context_len_to_capture max_seq_len_to_capture disable_custom_all_reduce
        tokenizer_pool_size scheduler_delay preemption_mode max_parallel_loading_workers
        disable_async_output_proc fully_sharded_loras max_lora_rank ignore_patterns
        uvicorn_log_level response_role middleware return_tokens_as_token_ids
        disable_frontend_multiprocessing tool_server allowed_origins enable_log_outputs
        enable_sleep_mode compilation_config model_loader_extra_config
    """
    for name in names.split():
        TABLE.get(name)


@pytest.mark.parametrize("name", ["host", "port", "api_key", "model", "served_model_name", "uds", "revision"])
def test_what_ostler_decides_is_no_option(name: str) -> None:
    with pytest.raises(OwnedOption):
        TABLE.validate({name: "x"})


@pytest.mark.parametrize(
    "name",
    ["VLLM_API_KEY", "HF_HUB_OFFLINE", "CUDA_VISIBLE_DEVICES", "NCCL_P2P_DISABLE", "PYTORCH_CUDA_ALLOC_CONF"],
)
def test_what_ostler_decides_is_no_variable(name: str) -> None:
    with pytest.raises(OwnedOption):
        TABLE.check_env({name: "x"})


@pytest.mark.parametrize(
    "name", ["trust_remote_code", "middleware", "worker_cls", "tool_parser_plugin", "kv_transfer_config"]
)
def test_what_runs_code_or_opens_ports_is_for_administrators(name: str) -> None:
    assert TABLE.get(name).admin_only


def test_the_launch_says_model_name_place_and_nothing_secret(tmp_path: Path) -> None:
    engine = Vllm(str(make_environment(tmp_path / "own")))
    spec = engine.launch_spec(
        request(options={"context_length": 256}, devices=("cuda:1", "cuda:0"), env={"A": "b"})
    )
    assert spec.command == (str(tmp_path / "own" / "bin" / "vllm"), "serve")
    assert spec.args[:7] == (
        "/models/small",
        "--served-model-name",
        "small",
        "--host",
        HOST_SLOT,
        "--port",
        PORT_SLOT,
    )
    assert spec.args[7:9] == ("--max-model-len", "256")
    assert spec.secret_env == ("VLLM_API_KEY",) and "--api-key" not in spec.args
    assert spec.env["HF_HUB_OFFLINE"] == "1" and spec.env["VLLM_NO_USAGE_STATS"] == "1"
    assert spec.env["CUDA_VISIBLE_DEVICES"] == "1,0" and spec.env["A"] == "b"


def test_on_a_cpu_it_takes_a_few_gib_for_its_cache_unless_something_else_is_said(tmp_path: Path) -> None:
    engine = Vllm(str(make_environment(tmp_path / "own")))
    assert engine.launch_spec(request()).env["VLLM_CPU_KVCACHE_SPACE"] == "4"
    assert (
        "VLLM_CPU_KVCACHE_SPACE"
        not in engine.launch_spec(request(options={"gpu_memory_utilization": 0.5})).env
    )


def test_in_a_container_the_image_is_the_program() -> None:
    spec = Vllm().launch_spec(request(runtime="docker"))
    assert spec.command == () and spec.args[:2] == ("--model", "/models/small")


def test_a_build_for_the_cpu_is_started_as_a_module(tmp_path: Path) -> None:
    engine = Vllm(str(make_environment(tmp_path / "own", package="vllm_cpu")))
    spec = engine.launch_spec(request())
    assert spec.command[1:] == ("-m", "vllm.entrypoints.openai.api_server")
    assert spec.args[:2] == ("--model", "/models/small")


def test_the_models_own_command_comes_before_the_setting_and_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, setting, on_path = (make_environment(tmp_path / name) for name in ("own", "setting", "path"))
    monkeypatch.setenv("PATH", f"{on_path / 'bin'}:/usr/bin:/bin")
    python = str(own / "bin" / "python")
    commands = [
        Vllm(str(setting)).launch_spec(request(command_override=f"{python} -m vllm.other")).command,
        Vllm(str(setting)).launch_spec(request(command_override=python)).command,
        Vllm(str(setting)).launch_spec(request()).command,
        Vllm().launch_spec(request()).command,
    ]
    assert commands == [
        (python, "-m", "vllm.other"),
        (python, "-m", "vllm.entrypoints.openai.api_server"),
        (str(setting / "bin" / "vllm"), "serve"),
        (str(on_path / "bin" / "vllm"), "serve"),
    ]


def test_where_there_is_no_vllm_the_way_to_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoExecutable) as caught:
        Vllm().launch_spec(request())
    assert "pip install vllm" in (caught.value.hint or "") and "vllm_command" in (caught.value.hint or "")
    with pytest.raises(NoExecutable, match="not a virtual environment with vLLM"):
        Vllm(str(tmp_path)).launch_spec(request())


async def test_its_flags_are_read_without_running_it(tmp_path: Path) -> None:
    engine = Vllm(str(make_environment(tmp_path / "own", flags="--max-model-len --served-model-name")))
    found = await engine.executable(request())
    assert found.version == "0.40.0" and found.source == "setting"
    capabilities = await engine.capabilities(found.command)
    assert sorted(capabilities.flags or ()) == ["--max-model-len", "--served-model-name", "-x"]
    assert capabilities.warning is None
    assert await engine.sees_gpus(request()) is True


async def test_an_upgraded_package_is_read_again(tmp_path: Path) -> None:
    folder = make_environment(tmp_path / "own")
    engine = Vllm(str(folder))
    assert (await engine.executable(request())).version == "0.40.0"
    packages = folder / "lib" / "python3.11" / "site-packages"
    (packages / "vllm" / "_version.py").write_text("__version__ = version = '0.41.0'\n")
    (packages / "vllm-0.40.0.dist-info").rename(packages / "vllm-0.41.0.dist-info")
    assert (await engine.executable(request())).version == "0.41.0"


async def test_a_flag_that_this_version_does_not_have_is_refused_before_the_start(tmp_path: Path) -> None:
    engine = Vllm(str(make_environment(tmp_path / "own", flags="--max-model-len --dtype")))
    with pytest.raises(UnknownFlag) as caught:
        await engine.check(request(extra_args=("--max-modell-len", "5")))
    assert caught.value.facts["near"] == ["--max-model-len"]
    with pytest.raises(UnknownFlag):
        await engine.check(request(options={"max_num_seqs": 5}))
    extra = ("--no-dtype", "--max_model_len=5", "--dtype.key", "1", "--dtype+")
    assert await engine.check(request(options={"dtype": "auto"}, extra_args=extra)) == []


async def test_what_vllm_no_longer_has_is_kept_and_left_out(tmp_path: Path) -> None:
    engine = Vllm(str(make_environment(tmp_path / "own")))
    assert await engine.check(request(options={"swap_space": 4})) == []
    assert "--swap-space" not in engine.launch_spec(request(options={"swap_space": 4})).args


async def test_a_program_that_says_nothing_of_itself_is_started_unchecked(tmp_path: Path) -> None:
    wrapper = tmp_path / "my-vllm"
    wrapper.write_text("#!/bin/sh\n")
    wrapper.chmod(0o755)
    (warning,) = await Vllm(str(wrapper)).check(request(extra_args=("--anything",)))
    assert "not checked" in warning


@pytest.mark.parametrize(
    ("status", "was_ready", "means"),
    [
        (None, False, Health.LOADING),
        (200, False, Health.READY),
        (503, False, Health.DEAD),
        (503, True, Health.DEAD),
        (None, True, Health.DEAD),
    ],
)
def test_health_is_read(status: int | None, was_ready: bool, means: Health) -> None:
    assert Vllm().read_health(HealthAnswer(status), was_ready=was_ready) is means


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("vllm serve org/model", "vllm"),
        ("CUDA_VISIBLE_DEVICES=0 /opt/venv/bin/vllm serve /m", "vllm"),
        ("python3 -m vllm.entrypoints.openai.api_server --model /m", "vllm"),
        ("llama-server -m a.gguf", "llamacpp"),
        ("--ctx-size 5", "llamacpp"),
    ],
)
def test_a_pasted_command_names_its_engine(command: str, name: str) -> None:
    assert Engines([engine() for engine in ENGINES]).for_command(command).name == name


def test_a_pasted_command_is_read() -> None:
    parsed = TABLE.parse_command(
        "vllm serve Qwen/Qwen3-0.6B -tp 2 --served-model-name a b --cudagraph-capture-sizes 1 2 4 "
        "--api-key secret --compilation-config.mode 3 --swap-space 4 --no-enable-prefix-caching --seed -1"
    )
    assert parsed.hub == "Qwen/Qwen3-0.6B" and parsed.model is None and parsed.alias == "a"
    assert parsed.options == {
        "tensor_parallel_size": 2,
        "cudagraph_capture_sizes": [1, 2, 4],
        "swap_space_gb": 4.0,
        "enable_prefix_caching": False,
        "seed": -1,
    }
    assert parsed.extra_args == ("--compilation-config.mode", "3") and parsed.ignored == ("--api-key",)


def test_a_pasted_module_with_a_folder_is_read() -> None:
    parsed = TABLE.parse_command(
        [
            "python",
            "-m",
            "vllm.entrypoints.openai.api_server",
            "--model",
            "/m",
            "--hf-overrides",
            json.dumps({"a": 1}),
        ]
    )
    assert parsed.model == "/m" and parsed.options == {"hf_overrides": '{"a": 1}'}


def test_its_model_list_says_how_long_a_request_may_be() -> None:
    engine = Vllm()
    assert engine.read_context('{"object": "list", "data": [{"id": "small", "max_model_len": 256}]}') == 256
    assert engine.read_context('{"data": []}') is None

"""llama.cpp as an engine: launch specs, executables, capabilities, health, the table's completeness."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ostler.core.launch import HOST_SLOT, PORT_SLOT
from ostler.core.settings import Settings
from ostler.engines.base import Health, HealthAnswer, LaunchRequest, NoExecutable, UnknownEngine, UnknownFlag
from ostler.engines.llamacpp import BUILT_IN, LlamaCpp
from ostler.engines.llamacpp_diagnosis import DIAGNOSIS
from ostler.engines.llamacpp_options import TABLE
from ostler.engines.options import OwnedOption, UnknownOption
from ostler.engines.probe import read_flags, read_version
from ostler.engines.registry import default_engines

FLAGS = Path(__file__).with_name("llama_server_flags.txt").read_text().split()


def request(**changes: object) -> LaunchRequest:
    base: dict[str, object] = {"model_id": 7, "model_name": "demo", "model_path": Path("/models/demo.gguf")}
    return LaunchRequest(**{**base, **changes})  # type: ignore[arg-type]


def script(path: Path, body: str) -> Path:
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def no_llama_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))


@pytest.mark.usefixtures("no_llama_server")
def test_the_launch_spec_is_the_whole_command() -> None:
    spec = LlamaCpp().launch_spec(request(options={"c": 512, "slots": False}, extra_args=("--verbose",)))
    assert spec.command == BUILT_IN
    assert spec.args[:8] == (
        "--host", HOST_SLOT, "--port", PORT_SLOT, "--model", "/models/demo.gguf", "--alias", "demo",
    )  # fmt: skip
    assert spec.args[8:] == ("--ctx-size", "512", "--metrics", "--no-slots", "--verbose")
    assert spec.secret_env == ("LLAMA_API_KEY",)
    assert "--api-key" not in spec.args and spec.env == {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_the_same_request_is_the_same_spec_and_options_change_its_digest() -> None:
    engine = LlamaCpp()
    one = engine.launch_spec(request(options={"c": 512, "threads": 2}))
    other = engine.launch_spec(request(options={"threads": 2, "context_length": "512"}))
    assert one.digest() == other.digest()
    assert one.digest() != engine.launch_spec(request(options={"c": 513, "threads": 2})).digest()


def test_a_projector_comes_from_the_file_set_unless_an_option_names_one() -> None:
    engine = LlamaCpp()
    spec = engine.launch_spec(request(mmproj_path=Path("/models/mm.gguf")))
    assert spec.args[spec.args.index("--mmproj") + 1] == "/models/mm.gguf"
    spec = engine.launch_spec(request(mmproj_path=Path("/models/mm.gguf"), options={"mmproj": "/o.gguf"}))
    assert spec.args.count("--mmproj") == 1 and "/o.gguf" in spec.args


def test_devices_become_what_the_process_may_see() -> None:
    spec = LlamaCpp().launch_spec(request(devices=("rocm:1",), env={"HIP_VISIBLE_DEVICES": "0"}))
    assert spec.env == {"HIP_VISIBLE_DEVICES": "0"}, "the model's own variables stand"


@pytest.mark.parametrize(
    "changes",
    [{"extra_args": ("--port=1",)}, {"env": {"LLAMA_API_KEY": "x"}}, {"options": {"alias": "x"}}],
)
def test_what_ostler_decides_cannot_be_taken_away(changes: dict[str, object]) -> None:
    with pytest.raises(OwnedOption):
        LlamaCpp().launch_spec(request(**changes))


def test_the_executable_is_the_models_then_the_settings_then_the_paths_then_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = script(tmp_path / "one", "exit 0"), script(tmp_path / "two", "exit 0")
    script(tmp_path / "llama-server", "exit 0")
    override = f"'{ours}' --numa distribute"
    assert LlamaCpp(str(theirs)).launch_spec(request(command_override=override)).command == (
        str(ours), "--numa", "distribute",
    )  # fmt: skip
    assert LlamaCpp(str(theirs)).launch_spec(request()).command == (str(theirs),)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert LlamaCpp().launch_spec(request()).command == (str(tmp_path / "llama-server"),)
    monkeypatch.setenv("PATH", "")
    assert LlamaCpp().launch_spec(request()).command == BUILT_IN


@pytest.mark.parametrize("command", ["/no/such/program", "'unclosed", "{folder}/not-executable"])
def test_a_program_that_cannot_run_is_told_with_what_to_do(command: str, tmp_path: Path) -> None:
    (tmp_path / "not-executable").touch(0o644)
    with pytest.raises(NoExecutable) as caught:
        LlamaCpp(command.format(folder=tmp_path)).launch_spec(request())
    assert "llama_server_command" in (caught.value.hint or "")


@pytest.mark.usefixtures("no_llama_server")
async def test_the_built_in_engine_tells_its_version_and_flags() -> None:
    engine = LlamaCpp()
    found = await engine.executable(request())
    assert (found.command, found.source) == (BUILT_IN, "built-in")
    assert found.version and found.version.startswith("b11")
    capabilities = await engine.capabilities(found.command)
    assert capabilities.flags and "--ctx-size" in capabilities.flags and capabilities.warning is None
    assert await engine.check(request(options={"c": 512})) == []


@pytest.mark.usefixtures("no_llama_server")
async def test_a_flag_that_the_executable_does_not_know_is_refused_with_near_names() -> None:
    engine = LlamaCpp()
    with pytest.raises(UnknownFlag) as caught:
        await engine.check(request(extra_args=("--ctx-sice", "5")))
    assert "--ctx-size" in (caught.value.hint or "")
    with pytest.raises(UnknownFlag, match="--control-vector"):
        await engine.check(request(options={"control_vector": ["/x"]}))


async def test_capabilities_are_remembered_until_the_file_changes(tmp_path: Path) -> None:
    count = tmp_path / "count"
    text = "\\n".join(f"--flag-{n} N  help" for n in range(6))
    body = f'echo x >> {count}; printf -- "{text}\\n"'
    program = script(tmp_path / "server", body)
    engine = LlamaCpp(str(program))
    first = await engine.capabilities((str(program),))
    assert await engine.capabilities((str(program),)) == first
    assert len(count.read_text().split()) == 2  # --version and --help, once each
    script(program, body + '; printf -- "--more N\\n"')
    assert "--more" in ((await engine.capabilities((str(program),))).flags or ())


async def test_a_program_without_help_is_only_a_warning(tmp_path: Path) -> None:
    program = script(tmp_path / "server", "exit 3")
    warnings = await LlamaCpp(str(program)).check(request(extra_args=("--anything",)))
    assert len(warnings) == 1 and "--help" in warnings[0]


def test_health_answers_mean_what_llama_cpp_means() -> None:
    read = LlamaCpp().read_health
    assert read(HealthAnswer(200)) is Health.READY
    assert read(HealthAnswer(503, "Loading model")) is Health.LOADING
    assert read(HealthAnswer(None)) is Health.LOADING
    assert read(HealthAnswer(None), was_ready=True) is Health.DEAD
    assert read(HealthAnswer(500), was_ready=True) is Health.DEAD


def test_engines_are_found_by_name_and_format() -> None:
    engines = default_engines(Settings())
    assert engines.get("llamacpp").name == "llamacpp"
    assert engines.for_format("gguf").name == "llamacpp"
    with pytest.raises(UnknownEngine, match=r"llama\.cpp") as caught:
        engines.get("llama.cpp")
    assert "llamacpp" in (caught.value.hint or "")
    with pytest.raises(UnknownEngine):
        engines.for_format("onnx")


def test_the_table_knows_every_flag_of_llama_server_and_invents_none() -> None:
    known = TABLE.flags()
    known |= {flag for old in TABLE.renamed for flag in (*old.flags, *old.negative_flags)}
    known |= {flag for gone in TABLE.gone for flag in gone.flags}
    assert set(FLAGS) <= known
    assert set(TABLE.flags()) <= set(FLAGS)


def test_every_option_says_what_it_is() -> None:
    for option in TABLE:
        assert option.help.endswith((".", "off")) and len(option.help) > 10, option.name
        assert option.default is None or option.repeat or TABLE.validate({option.name: option.default})


def test_llamactl_and_cortex_names_are_known() -> None:
    names = "ctx_size gpu_layers n_gpu_layers tb Cb kvo nkvo dt ot cmoe ncmoe fitt cram kvu no_kvu sps td md "
    names += "ctkd context_size ngl batch_size ubatch_size rope_freq_base draft_model_path draft_n "
    names += "draft_p_min jinja_enabled parallel_slots flash_attention cont_batching cache_type_k "
    names += "check_tensors enable_embeddings lookup_cache_static"
    for name in names.split():
        try:
            TABLE.get(name)
        except UnknownOption as error:
            raise AssertionError(name) from error


def test_a_help_text_is_read_flag_by_flag() -> None:
    text = """
-c,    --ctx-size N                     size, see --n-predict
-kvo,  --kv-offload, -nkvo, --no-kv-offload
                                        --not-a-flag in the text
--spec-draft-p-min, --draft-p-min P     text
"""
    assert read_flags(text) == {
        "-c", "--ctx-size", "-kvo", "--kv-offload", "-nkvo", "--no-kv-offload",
        "--spec-draft-p-min", "--draft-p-min",
    }  # fmt: skip


def test_a_version_is_read() -> None:
    assert read_version("version: 11434 (abc)\nbuilt with x") == "b11434"
    assert read_version("version: 0.6.0-dev (build 11434, commit abc)") == "b11434"
    assert read_version("version: 0.6.0-dev (build 0, commit unknown)") == (
        "0.6.0-dev (build 0, commit unknown)"
    )
    assert read_version(None) is None


SEEN = [
    ("error: invalid argument: --nope", "Unknown flag"),
    ("E gguf_init_from_reader: invalid magic characters: 'not ', expected 'GGUF'", "Not a GGUF file"),
    ("E llama_model_load: error loading model: tensor 'x' data is not within the file bounds, model is "
     "corrupted or incomplete", "File broken"),
    ("E gguf_init_from_file: failed to open GGUF file '/m.gguf' (No such file or directory)", "File missing"),
    ("E gguf_init_from_file: failed to open GGUF file '/m.gguf' (Permission denied)", "File cannot be read"),
    ("error loading model: error loading model architecture: unknown model architecture: 'new'",
     "Architecture not supported"),
    ("E llama_init_from_model: quantized V cache requires flash_attn to be enabled",
     "Quantized cache without flash attention"),
    ("E srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18441", "Port in use"),
    ("E cmn common_init_: failed to load lora adapter '/bad.gguf'", "Adapter not usable"),
    ("E srv load_model: failed to load multimodal model, '/bad.gguf'", "Projector not usable"),
    ("alloc_buffer: allocating 900 MiB on device 0: cudaMalloc failed: out of memory",
     "Out of GPU memory"),
    ("ggml_backend_cpu_buffer_type_alloc_buffer: failed to allocate buffer of size 99", "Out of memory"),
    ("llama_kv_cache: failed to allocate buffer for kv cache", "Context too large"),
    ("llama-server: error while loading shared libraries: libcuda.so.1: cannot open shared object file",
     "Library missing"),
    ("write error: No space left on device", "Disk full"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "title"), SEEN)
def test_a_known_end_is_explained(line: str, title: str) -> None:
    found = DIAGNOSIS.diagnose(["loading", line, "exiting due to model loading error"], 1)
    assert found and found.title == title and found.line == line and found.hint
    assert "{" not in found.reason


def test_a_killed_engine_is_explained_by_its_exit_code() -> None:
    assert DIAGNOSIS.diagnose([], None, oom_killed=True).title == "Killed: out of memory"  # type: ignore[union-attr]
    assert DIAGNOSIS.diagnose([], -9).title == "Killed from outside"  # type: ignore[union-attr]
    assert DIAGNOSIS.diagnose([], 137).title == "Killed from outside"  # type: ignore[union-attr]
    assert DIAGNOSIS.diagnose([], -4).title == "Processor not supported"  # type: ignore[union-attr]
    assert DIAGNOSIS.diagnose([], 139).title == "Engine crashed"  # type: ignore[union-attr]
    assert DIAGNOSIS.diagnose(["all is well"], 0) is None


def test_each_rule_has_a_next_step_and_can_be_filled_in() -> None:
    for rule in DIAGNOSIS.rules:
        rule.reason.format(**dict.fromkeys(rule.pattern.groupindex, "x"))
        assert rule.hint and rule.title


def test_the_built_in_engine_is_run_by_this_interpreter() -> None:
    assert BUILT_IN[0] == sys.executable

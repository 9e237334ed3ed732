"""What the log of a start tells, by logs of real starts."""

from __future__ import annotations

from pathlib import Path

from ostler.engines.start_summary import summarize_llama_cpp, summarize_vllm

STARTS = Path(__file__).parent / "logs" / "starts"


def lines_of(name: str) -> list[str]:
    return (STARTS / f"{name}.log").read_text().splitlines()


def test_a_real_start_of_llama_server_is_summed_up() -> None:
    found = summarize_llama_cpp(lines_of("llamacpp"))
    assert found is not None
    assert found.model_path == "/models/ostler-demo-Q8_0.gguf"
    assert found.weights_bytes == round((2.15 + 1.93) * 1024**2)
    assert found.cache_tokens == 1024  # one cache, which four slots share
    assert found.load_s is not None and 0 < found.load_s < 60
    assert found.warnings and "no API key" in found.warnings[0]


def test_a_real_start_of_vllm_is_summed_up() -> None:
    found = summarize_vllm(lines_of("vllm"))
    assert found is not None
    assert (found.version, found.model_path) == ("0.32.0", "/models/hf")
    assert (found.load_s, found.weights_bytes, found.cache_tokens) == (0.01, None, 524_288)
    assert len(found.warnings) == 5 and "sampling parameters" in found.warnings[-1]


def test_what_vllm_says_on_a_gpu_is_read() -> None:
    found = summarize_vllm(
        [
            "INFO 11-25 10:00:00 [api_server.py:1] vLLM API server version 0.11.0",
            "INFO 11-25 10:00:09 [gpu_model_runner.py:2] Model loading took 14.2487 GiB and 6.251 seconds",
            "INFO 11-25 10:00:10 [kv_cache_utils.py:3] GPU KV cache size: 98,304 tokens",
        ]
    )
    assert found is not None
    assert (found.version, found.load_s, found.cache_tokens) == ("0.11.0", 6.251, 98_304)
    assert found.weights_bytes == round(14.2487 * 1024**3)


def test_slots_with_a_cache_each_add_up() -> None:
    found = summarize_llama_cpp(
        [
            "0.00.010.000 I srv    load_model: loading model '/m.gguf'",
            "1.02.010.500 I srv load_model: n_slots = 4, n_ctx_slot = 512, kv_unified = 'false'",
            "1.02.510.000 I srv  llama_server: model loaded",
        ]
    )
    assert found is not None and (found.cache_tokens, found.load_s) == (2048, 62.5)


def test_nothing_is_summed_up_before_the_model_is_loaded() -> None:
    for read, name in ((summarize_llama_cpp, "llamacpp"), (summarize_vllm, "vllm")):
        assert read(lines_of(name)[:6]) is None
        assert read([]) is None

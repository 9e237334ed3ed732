"""Asks vLLM's own code how it would lay models out; runs in vLLM's virtual environment, on the CPU.

`python vllm_probe.py write FOLDER` reads a list of configurations from standard input and writes each as a
small model with random weights. `python vllm_probe.py ask RANK WORLD PORT` reads a list of cases and prints
one line of JSON for each: the bytes of the weights that this process holds, and the cache that vLLM makes of
the given bytes. No engine is started: the configuration, the model's layers and the cache's plan are vLLM's.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

MARK = "PROBE "


def write(folder: Path, configurations: list[dict[str, Any]]) -> None:
    """One model for each configuration, in folders named by their numbers."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    for number, values in enumerate(configurations):
        place = folder / str(number)
        config = CONFIG_MAPPING[values["model_type"]](**values)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        model.save_pretrained(place)
        file = place / "config.json"  # on the hub it has keys that transformers leaves out, and vLLM reads
        file.write_text(json.dumps({**values, **json.loads(file.read_text())}))


def ask(cases: list[dict[str, Any]], rank: int, world: int, port: int) -> None:
    """Print what vLLM says to each case."""
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.distributed import init_distributed_environment, initialize_model_parallel
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext

    os.environ["VLLM_DIST_IDENT"] = str(port)
    with set_current_vllm_config(VllmConfig()):  # with no model in it, groups for experts are made too
        init_distributed_environment(world, rank, f"tcp://127.0.0.1:{port}", rank, "gloo")
        initialize_model_parallel(world, 1)
    for case in cases:
        given = AsyncEngineArgs(
            model=case["model"],
            skip_tokenizer_init=True,
            load_format="dummy",
            enforce_eager=True,
            tensor_parallel_size=world,
            **case["arguments"],
        )
        config = given.create_engine_config(UsageContext.OPENAI_API_SERVER)
        with set_current_vllm_config(config):
            print(MARK + json.dumps(_answer(config, case["cache_bytes"])), flush=True)


def _answer(config: Any, cache_bytes: int) -> dict[str, Any]:
    from vllm.model_executor.model_loader.utils import initialize_model
    from vllm.platforms import current_platform
    from vllm.utils.torch_utils import set_default_torch_dtype
    from vllm.v1.core.kv_cache_utils import get_kv_cache_capacity, get_kv_cache_configs
    from vllm.v1.worker.gpu.attn_utils import get_kv_cache_spec

    with set_default_torch_dtype(config.model_config.dtype):
        model = initialize_model(vllm_config=config)
    held = {}
    for _, tensor in (*model.named_parameters(), *model.named_buffers()):
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
    current_platform.update_block_size_for_backend(config)
    config.cache_config.kv_cache_layout = "LBHNC"
    cache = get_kv_cache_configs(config, [get_kv_cache_spec(config)], [cache_bytes])[0]
    tokens, at_once = get_kv_cache_capacity(config, cache)
    return {"weights_bytes": sum(held.values()), "tokens": tokens, "at_once": at_once}


if __name__ == "__main__":
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ["HF_HUB_OFFLINE"] = "1"
    what, *arguments = sys.argv[1:]
    asked = json.load(sys.stdin)
    if what == "write":
        write(Path(arguments[0]), asked)
    else:
        ask(asked, *(int(argument) for argument in arguments))

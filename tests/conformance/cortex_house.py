"""A server as a Cortex user has it, and the models folder beside it in which nothing may change."""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.conformance.cortex_client import CortexClient
from tests.library.gguf_files import write_safetensors, write_shards
from tests.real.docker_house import QUICK
from tests.serving import ServerProcess
from tests.unchanged import fingerprints

SAFETENSORS_CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "torch_dtype": "bfloat16",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "max_position_embeddings": 4096,
}
SMALL = {"context_size": 512, "parallel_slots": 1}
"""What keeps a model of the demo file small."""


class CortexHouse:
    """`client` asks it. Its models folder holds a model of each kind, made before the server starts."""

    def __init__(self, folder: Path, demo_model: Path, environment: Mapping[str, str]) -> None:
        self.models_dir = folder / "models"
        for name in ("demo", "demo2", "sharded", "hf", "notes", "old-model-folder"):
            (self.models_dir / name).mkdir(parents=True, exist_ok=True)
        for name in ("demo/demo-Q8_0.gguf", "demo2/other-Q8_0.gguf", "old-model-folder/old-Q8_0.gguf"):
            shutil.copy(demo_model, self.models_dir / name)
        shutil.copy(demo_model, self.models_dir / "root-Q8_0.gguf")
        write_shards(self.models_dir / "sharded", "big-Q4_0", 3)
        write_safetensors(self.models_dir / "hf" / "model.safetensors", {"a": ("BF16", (8, 8))})
        (self.models_dir / "hf" / "config.json").write_text(json.dumps(SAFETENSORS_CONFIG))
        (self.models_dir / "notes" / "readme.txt").write_text("no model here")
        settings = {"OSTLER_MODELS_DIR": str(self.models_dir), **QUICK, **environment}
        self.server = ServerProcess(folder / "data", environment=settings)
        self.start()
        self.untouched()

    def start(self) -> None:
        """Start the server, a first time or again."""
        self.server.start()
        self.client = CortexClient(self.server.url)

    def untouched(self) -> None:
        """A person has put files here, or taken some away: from now on nothing may change any more."""
        self._before = fingerprints(self.models_dir)

    def assert_untouched(self) -> None:
        """No file's bytes, times, name or mode has changed, and none has come or gone."""
        assert fingerprints(self.models_dir) == self._before

    def create(self, served_name: str, **fields: Any) -> int:
        """A llama.cpp model of the demo file, as Cortex's page makes one."""
        body = {
            "mode": "offline",
            "engine_type": "llamacpp",
            "local_path": "demo/demo-Q8_0.gguf",
            "name": served_name,
            "served_model_name": served_name,
            **SMALL,
            **fields,
        }
        return self.client.create(**body)

    def create_vllm(self, served_name: str, **fields: Any) -> int:
        """A vLLM model of the folder `small`, as Cortex's page makes one."""
        body = {"mode": "offline", "local_path": "small", "max_model_len": 256, "enforce_eager": True}
        own = {"name": served_name, "served_model_name": served_name, "device": "cpu"}
        return self.client.create(**{**body, **own, **fields})

    def told(self, served_name: str) -> list[str]:
        """Every state that was told of a model since its creation, oldest first."""
        query = f"subject_name={served_name}&sort=id&limit=200"
        kinds = [str(event["kind"]) for event in self.server.ask(f"/ostler/v1/history?{query}")["items"]]
        began = max(index for index, kind in enumerate(kinds) if kind == "model.created")
        return [kind.removeprefix("instance.") for kind in kinds[began:] if kind.startswith("instance.")]

    def instance(self, served_name: str) -> dict[str, Any]:
        """What the native API says of it, for what Cortex has no field for."""
        found: dict[str, Any] = self.server.ask(f"/ostler/v1/models/{served_name}/instance")
        return found

    def metrics(self) -> list[str]:
        """The lines of what Prometheus reads."""
        with urllib.request.urlopen(f"{self.server.url}/metrics", timeout=30) as answer:
            return str(answer.read().decode()).splitlines()

    def clear(self) -> None:
        """Stop and delete every model."""
        for number in self.client.models():
            self.client.do(number, "stop")
            self.client.delete(number)


def after(flag: str, command: Iterable[str]) -> str:
    """The value that a command line gives to a flag."""
    words = list(command)
    assert flag in words, words
    return words[words.index(flag) + 1]

"""How far the estimate of memory is from what llama.cpp itself allocates: a table by architecture.

Small models are written, the engine is started on each with many settings, and the sizes of its buffers
are read from its log. Run: python -m benchmarks.fit_exactness [--docs]; it needs a llama-server
(OSTLER_TEST_LLAMA_SERVER, PATH or .venv-llama). Weights are compared without repacking, which moves
them into another layout but does not make them larger.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.fit_tables import CHECKOUT, arguments, conclude
from ostler.engines.llamacpp_options import TABLE
from ostler.fit.beside import Beside
from ostler.fit.model_shape import ModelShape
from ostler.fit.reading import Shapes
from ostler.library.gguf import read_gguf_header
from tests.fit.estimates import estimate
from tests.fit.small_beside import PROJECTOR_MAKERS, VisionSizes, write_adapter, write_projector
from tests.fit.small_models import MAKERS, Sizes, write_model

MIB = 1 << 20
LOG_STEP_MIB = 0.01
"""The engine's log rounds to so much; a difference below it says nothing."""
LIMITS = {"weights": 0.01, "cache": 0.01, "compute": 0.10, "total": 0.03}
FREE_HEADS = ("qwen3", "qwen3moe", "gemma2", "gemma3", "gpt-oss")
"""Architectures whose heads together may be wider than the stream."""
MARKS = "<!-- table: python -m benchmarks.fit_exactness --docs -->", "<!-- end of table -->"
_BUFFERS = {
    "weights": re.compile(r"(?:(?:model|LoRA) buffer size =|load_hparams: model size:) +([\d.]+) MiB"),
    "cache": re.compile(r"(?:KV|RS) buffer size = +([\d.]+) MiB"),
    "compute": re.compile(r"output buffer size = +([\d.]+) MiB"),
}
_RESERVED = re.compile(r"(sched_reserve|reserve_compute_meta): +(\S+) compute buffer size = +([\d.]+) MiB")
BESIDE = ("draft model", "adapter", *(f"projector {kind}" for kind in PROJECTOR_MAKERS))
"""What is loaded beside a model, as rows of the table."""
BESIDE_OPTIONS = ("draft_model", "lora", "mmproj")
PLAIN_TYPES = ("f16", "f32", "bf16")
CACHE_TYPES = (*PLAIN_TYPES, "q8_0", "q5_1", "q5_0", "q4_1", "q4_0", "iq4_nl")


@dataclass(frozen=True, slots=True)
class Case:
    """One model with one set of options; `model` names its architecture and its sizes."""

    architecture: str
    model: Path
    options: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Compared:
    """MiB by kind of buffer: as estimated and as the engine said."""

    case: Case
    estimated: Mapping[str, float]
    said: Mapping[str, float]

    def error(self, kind: str) -> float:
        """The relative error; 0 where the difference is within the log's rounding."""
        ours, theirs = self.estimated[kind], self.said[kind]
        if abs(ours - theirs) <= 2 * LOG_STEP_MIB:
            return 0.0
        return (ours - theirs) / theirs if theirs else float("inf")

    @property
    def misses(self) -> list[str]:
        """The kinds that are further off than their limit."""
        return [kind for kind, limit in LIMITS.items() if abs(self.error(kind)) > limit]


def llama_server() -> Path | None:
    """The engine's program, if there is one."""
    named = os.environ.get("OSTLER_TEST_LLAMA_SERVER") or shutil.which("llama-server")
    path = Path(named or CHECKOUT / ".venv-llama" / "bin" / "llama-server")
    return path if path.is_file() else None


def grid(folder: Path, *, seed: int, each: int) -> Iterator[Case]:
    """For every architecture two models of random sizes, and `each` settings over both."""
    rng = random.Random(seed)
    for name in MAKERS:
        models = []
        for index in range(2):
            place = folder / f"{index}"
            place.mkdir(exist_ok=True)
            models.append(write_model(place, name, random_sizes(rng, name)))
        for _ in range(each):
            yield Case(name, rng.choice(models), random_options(rng, name))


def beside_grid(folder: Path, *, seed: int, each: int) -> Iterator[Case]:
    """For everything that is loaded beside a model `each` cases, the model being of random sizes too."""
    rng = random.Random(seed)
    for name in BESIDE:
        for _ in range(each):
            kind = rng.choice(("llama", "qwen3", "qwen3moe", "phi3"))
            model = write_model(folder, kind, random_sizes(rng, kind))
            options = random_options(rng, kind)
            yield Case(name, model, {**options, **_beside(folder, rng, name, model, options)})


def _beside(
    folder: Path, rng: random.Random, name: str, model: Path, options: Mapping[str, Any]
) -> dict[str, Any]:
    path = folder / "beside.gguf"
    if name == "adapter":
        return {"lora": [str(write_adapter(path, model, rank=rng.choice((8, 16, 32))))]}
    if name == "draft model":
        (folder / "draft").mkdir(exist_ok=True)
        sizes = replace(random_sizes(rng, "llama"), vocab=4_000)
        types = CACHE_TYPES if options["flash_attention"] == "on" else PLAIN_TYPES
        return {
            "draft_model": str(write_model(folder / "draft", "llama", sizes)),
            "spec_type": rng.choice((["none"], ["draft-simple"], ["ngram-mod"])),
            "draft_kv_cache_type_k": rng.choice(CACHE_TYPES),
            "draft_kv_cache_type_v": rng.choice(types),
        }
    heads = rng.choice((2, 4, 8))
    vision = VisionSizes(
        n_embd=64 * heads,
        heads=heads,
        n_ff=256 * heads,
        image=rng.choice((224, 336, 448)),
        out=read_gguf_header(model).count(f"{model.stem}.embedding_length") or 0,
    )
    return {"mmproj": str(write_projector(path, name.removeprefix("projector "), vision))}


def random_sizes(rng: random.Random, name: str) -> Sizes:
    """Sizes in the proportions of real models, a hundredth as large."""
    head, n_embd = rng.choice((32, 64, 128)), rng.choice((256, 384, 512))
    heads = n_embd // head * (rng.choice((1, 2)) if name in FREE_HEADS else 1)
    kv_heads = rng.choice([count for count in (1, 2, 3, 4) if heads % count == 0])
    return Sizes(
        layers=rng.choice((4, 6, 7)),
        n_embd=n_embd,
        heads=heads,
        kv_heads=kv_heads,
        head=head,
        n_ff=rng.choice((2, 3, 4)) * n_embd,
        vocab=rng.choice((1_000, 4_000, 16_000)),
        experts=rng.choice((4, 8, 16)),
        used=rng.choice((1, 2, 4)),
        n_ff_expert=rng.choice((128, 256)),
        window=rng.choice((256, 512, 1_024)),
    )


def random_options(rng: random.Random, name: str) -> dict[str, Any]:
    """Canonical options that the engine accepts for the model: bert with 3 slots ends in an assertion."""
    flash = rng.choice(("on", "off"))
    slots = rng.choice((None, 1, 2, 4, 8) if name == "bert" else (None, 1, 2, 3, 4, 8))
    options: dict[str, Any] = {
        "context_length": rng.choice((512, 1_000, 2_048, 4_096, 8_192, 16_384, 32_768)),
        "flash_attention": flash,
        "batch_size": rng.choice((None, 256, 1_024)),
        "ubatch_size": rng.choice((None, 64, 128, 1_024)),
        "kv_cache_type_v": rng.choice(CACHE_TYPES if flash == "on" else PLAIN_TYPES),
        "kv_cache_type_k": rng.choice(CACHE_TYPES),
    }
    if slots is not None:
        options |= {"parallel_slots": slots, "kv_unified": rng.choice((True, False))}
    if name.startswith("gemma") or name == "gpt-oss":
        options["swa_full"] = rng.choice((True, False))
    if name in ("deepseek2", "mistral4"):  # one vector is both, so the engine wants one type
        options["kv_cache_type_k"] = options["kv_cache_type_v"]
    if name == "bert":
        options["embeddings"] = True
    return {key: value for key, value in options.items() if value is not None}


def compare(server: Path, case: Case) -> Compared:
    """Estimate a case and let the engine allocate it."""
    shape = ModelShape.of([read_gguf_header(case.model)])
    need = estimate(shape, case.options, (), beside=Beside(None, Shapes().headers)).host
    ours = {
        "weights": need.weights_bytes / MIB,
        "cache": need.kv_cache_bytes / MIB,
        "compute": need.compute_bytes / MIB,
    }
    return Compared(case, _with_total(ours), _with_total(said_by_the_engine(server, case)))


def said_by_the_engine(server: Path, case: Case) -> dict[str, float]:
    """MiB of each kind of buffer, from the log up to the moment when all are reserved."""
    more = any(case.options.get(name) for name in BESIDE_OPTIONS)
    options = {**case.options, "repack": False, "warmup": more, "fit": "off", "threads": 1}
    end = "listening on" if more else "sched_reserve: reserve took"
    command = [str(server), "--model", str(case.model), "--port", "0", "-lv", "4"]
    command += TABLE.to_args(TABLE.validate(options))
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as engine:
        assert engine.stdout is not None
        for line in engine.stdout:
            lines.append(line)
            if end in line:
                engine.kill()
                return _sums(lines)
    raise RuntimeError(f"the engine did not load {case}:\n{''.join(lines[-8:])}")


def _sums(lines: Iterable[str]) -> dict[str, float]:
    """MiB by kind; of what a context reserves more than once, the last counts."""
    sums = dict.fromkeys(_BUFFERS, 0.0)
    reserved: dict[tuple[str, str, int], float] = {}
    contexts = 0
    for line in lines:
        contexts += "llama_context: n_seq_max" in line
        if found := _RESERVED.search(line):
            reserved[found[1], found[2], contexts] = float(found[3])
        for kind, pattern in _BUFFERS.items():
            if found := pattern.search(line):
                sums[kind] += float(found[1])
    return {**sums, "compute": sums["compute"] + sum(reserved.values())}


def _with_total(sums: Mapping[str, float]) -> dict[str, float]:
    return {**sums, "total": sum(sums.values())}


def table(results: Sequence[Compared]) -> str:
    """The largest errors by architecture, as Markdown."""
    lines = ["| architecture | cases | weights | cache | compute | total |", "|---|---|---|---|---|---|"]
    for name in (*MAKERS, *BESIDE):
        mine = [result for result in results if result.case.architecture == name]
        if mine:
            worst = (f"{max(abs(result.error(kind)) for result in mine):.1%}" for kind in LIMITS)
            lines.append(f"| {name} | {len(mine)} | {' | '.join(worst)} |")
    return "\n".join(lines)


def main() -> int:
    """Measure, print, and exit 1 where a limit is missed."""
    parser = arguments(__doc__, each=20, of="architecture")
    asked = parser.parse_args()
    server = llama_server()
    if server is None:
        parser.error("there is no llama-server")
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        cases = grid(place, seed=asked.seed, each=asked.each)
        few = beside_grid(place, seed=asked.seed, each=max(1, asked.each // 4))
        results = [compare(server, case) for case in chain(cases, few)]
    misses = (
        f"{kind} {result.error(kind):+.1%}: {result.case.model.parent.name} {result.case.options}"
        for result in results
        for kind in result.misses
    )
    return conclude(table(results), misses, MARKS, write=asked.docs)


if __name__ == "__main__":
    raise SystemExit(main())

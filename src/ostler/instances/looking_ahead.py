"""What can be said of a start beforehand, from its recipe, its files and this machine.

Each rule is one function that finds something or nothing. A dry run shows all that they find; a start
refuses where one of them is an error that nobody told it to ignore.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ostler.core.errors import InvalidField, OstlerError
from ostler.core.findings import Category, Finding, Severity
from ostler.core.near import near_names
from ostler.engines.base import Engine, UnknownFlag
from ostler.engines.options import plain_flag
from ostler.fit.devices import Device
from ostler.fit.reasons import Choice
from ostler.instances.errors import StartBlocked
from ostler.library.filesets import FileSet
from ostler.models.records import FITS_NOT

UNKNOWN_FLAG = UnknownFlag.code_of_class()
IGNORABLE = frozenset(
    {
        *(FITS_NOT, UNKNOWN_FLAG, "wrong_format", "quantization_differs", "v_cache_needs_flash_attention"),
        "more_gpus_than_there_are",
    }
)
"""Codes of the errors that a person may override: we may be wrong, or the engine newer than we know."""

_TITLES: Mapping[str, str] = {
    "model_file_gone": "Files are not here",
    "model_files_missing": "Parts of the model are missing",
    "model_file_broken": "Files cannot be loaded",
    "no_executable": "No program to run",
    "unknown_flag": "Unknown flag",
    "unknown_option": "Unknown option",
    "bad_option_value": "Impossible value",
    "owned_option": "Not to be set",
    "unknown_runtime": "No such runtime",
    "gated_repo": "The repo is gated",
    "will_not_fit": "Does not fit",
    "disk_full": "Not enough disk",
}
_QUANTIZED_CACHES = ("q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1")
_STORED_QUANTIZATIONS = ("awq", "gptq", "compressed-tensors", "fp8", "mxfp4", "bitsandbytes")
_NEEDS_STORED = ("awq", "gptq", "compressed-tensors")
"""Methods that only load what was quantized by them; the others can quantize while loading."""


_OF_REQUESTS = frozenset(
    {
        *("--temperature", "--temp", "--top-p", "--top-k", "--repetition-penalty", "--repeat-penalty"),
        *("--frequency-penalty", "--presence-penalty", "--max-tokens", "--n-predict", "--stop", "--stream"),
    }
)
"""What each request says for itself; some engines take a default of it as an argument, others nothing."""
_TRACES = ("trace_functions", "cuda_launch_blocking")


@dataclass(frozen=True, slots=True)
class Scene:
    """A start before it happens. `options` are all that hold: set ones, those in arguments, chosen ones.

    `devices` are those that it may use, `arguments` those that the recipe passes on as they are.
    """

    engine: Engine
    files: FileSet
    options: Mapping[str, Any]
    chosen: Choice
    devices: Sequence[Device]
    cores: int
    arguments: Sequence[str] = ()


def look_ahead(scene: Scene) -> list[Finding]:
    """All that the rules find."""
    return [found for rule in _RULES if (found := rule(scene)) is not None]


def of_error(error: OstlerError) -> Finding:
    """An error that a start would end with, as a finding."""
    is_args = isinstance(error, InvalidField)
    field = error.facts.get("field")
    return Finding(
        error.code,
        Severity.ERROR,
        Category.ARGS if is_args else Category.CONFIG,
        _TITLES.get(error.code, error.code.replace("_", " ").capitalize()),
        error.message,
        error.hint,
        str(field) if field else None,
        can_ignore=error.code in IGNORABLE,
    )


def refuse(model_name: str, findings: Iterable[Finding], ignore: Collection[str]) -> None:
    """Raise StartBlocked where there are errors that are not to be ignored."""
    blocking = [found for found in findings if found.is_error and found.code not in ignore]
    if blocking:
        raise StartBlocked(model_name, blocking)


def check_ignored(codes: Iterable[str]) -> frozenset[str]:
    """The codes of errors to ignore. Raises InvalidField for one that is unknown or cannot be ignored."""
    for code in codes:
        if code not in IGNORABLE:
            near = near_names(code, IGNORABLE)
            hint = f"Did you mean {near[0]}?" if near else f"Can be ignored: {', '.join(sorted(IGNORABLE))}."
            raise InvalidField("ignore", f"no error {code!r} can be ignored", hint=hint, near=near)
    return frozenset(codes)


def _wrong_format(scene: Scene) -> Finding | None:
    if scene.files.format in scene.engine.formats:
        return None
    return Finding(
        "wrong_format",
        Severity.ERROR,
        Category.CONFIG,
        "Engine and files do not go together",
        f"{scene.engine.title} does not load files in the format {scene.files.format}",
        f"Use another engine for them, or files in the format {', '.join(sorted(scene.engine.formats))}.",
        "engine",
        can_ignore=True,
    )


def _quantization(scene: Scene) -> Finding | None:
    wanted = str(scene.options.get("quantization") or "").lower().replace("_", "-")
    if not wanted or scene.files.facts is None or scene.files.format != "safetensors":
        return None
    stored = (scene.files.facts.quantization or "").lower().replace("_", "-")
    method = next((name for name in _STORED_QUANTIZATIONS if stored.startswith(name)), None)
    if method is None and not wanted.startswith(_NEEDS_STORED):
        return None
    if method is not None and wanted.startswith(method):
        return None
    return Finding(
        "quantization_differs",
        Severity.ERROR,
        Category.CONFIG,
        "Another quantization",
        f"the option quantization is {wanted}, and the files say {stored or 'that they are not quantized'}",
        "Leave the option out: the engine reads it from the files.",
        "options.quantization",
        can_ignore=True,
    )


def _fp8(scene: Scene) -> Finding | None:
    if str(scene.options.get("quantization") or "") != "fp8" or not _gpus(scene):
        return None
    return Finding(
        "fp8_needs_newer_gpus",
        Severity.INFO,
        Category.CONFIG,
        "FP8 needs newer GPUs",
        "fp8 is for compute capability 8.9 and newer (Ada, Hopper, Blackwell), else slow or not possible",
        field="options.quantization",
    )


def _too_few_gpus(scene: Scene) -> Finding | None:
    gpus = _gpus(scene)
    sizes = [scene.options.get(name) or 1 for name in ("tensor_parallel_size", "pipeline_parallel_size")]
    if not gpus or not all(isinstance(size, int) for size in sizes):
        return None
    wanted = sizes[0] * sizes[1]
    if wanted <= len(gpus):
        return None
    return Finding(
        "more_gpus_than_there_are",
        Severity.ERROR,
        Category.CONFIG,
        "Too few GPUs",
        f"it is to run over {wanted} GPUs (tensor_parallel_size times pipeline_parallel_size), "
        f"and may use {len(gpus)}",
        f"Set tensor_parallel_size to {len(gpus)} or less, or let it use more GPUs.",
        "options.tensor_parallel_size",
        can_ignore=True,
    )


def _gpus(scene: Scene) -> list[Device]:
    return [device for device in scene.devices if device.kind != "cpu"]


def _v_cache(scene: Scene) -> Finding | None:
    kind = scene.options.get("kv_cache_type_v") or scene.options.get("kv_cache_type")
    if kind not in _QUANTIZED_CACHES or scene.options.get("flash_attention") != "off":
        return None
    return Finding(
        "v_cache_needs_flash_attention",
        Severity.ERROR,
        Category.ARGS,
        "Quantized cache without flash attention",
        f"{scene.engine.title} refuses cached values of the type {kind} without flash attention",
        "Set flash_attention to auto or on, or kv_cache_type_v to f16.",
        "options.kv_cache_type_v",
        can_ignore=True,
    )


def _beyond_training(scene: Scene) -> Finding | None:
    trained = scene.files.facts.context_length if scene.files.facts else None
    context, slots = scene.options.get("context_length"), scene.options.get("parallel_slots")
    if not trained or not isinstance(context, int) or scene.options.get("rope_scaling"):
        return None
    shares = isinstance(slots, int) and slots > 1 and not scene.options.get("kv_unified")
    per_request = context // slots if shares and isinstance(slots, int) else context
    if per_request <= trained:
        return None
    return Finding(
        "context_beyond_training",
        Severity.WARNING,
        Category.ARGS,
        "Longer than the training",
        f"{per_request} tokens for one request are more than the {trained} that the model was trained for",
        f"Set context_length to {trained * (context // per_request)} or less, or set rope_scaling.",
        "options.context_length",
    )


def _threads(scene: Scene) -> Finding | None:
    for name in ("threads", "threads_batch"):
        threads = scene.options.get(name)
        if isinstance(threads, int) and threads > scene.cores:
            return Finding(
                "more_threads_than_cores",
                Severity.WARNING,
                Category.ARGS,
                "More threads than cores",
                f"{name} is {threads}, and this machine has {scene.cores} cores: they wait for each other",
                f"Set {name} to {scene.cores} or less, or leave it out.",
                f"options.{name}",
            )
    return None


def _projector(scene: Scene) -> Finding | None:
    facts, files = scene.files.facts, scene.files
    is_blind = files.format == "gguf" and files.mmproj is None and not scene.options.get("mmproj")
    if facts is None or not is_blind or "vl" not in (facts.architecture or ""):
        return None
    return Finding(
        "no_projector",
        Severity.WARNING,
        Category.CONFIG,
        "No projector",
        f"a {facts.architecture} model sees images through a projector (mmproj), and there is none beside it",
        "Put the repo's mmproj file beside it, or set the option mmproj; without it only text works.",
        "options.mmproj",
    )


def _gpu_unused(scene: Scene) -> Finding | None:
    gpus = _gpus(scene)
    if not gpus or scene.options.get("gpu_layers") != 0 or "gpu_layers" in scene.chosen.options:
        return None
    return Finding(
        "gpu_unused",
        Severity.WARNING,
        Category.ARGS,
        "The GPU is not used",
        f"gpu_layers is 0, so {', '.join(gpu.name for gpu in gpus)} will hold no layers",
        "Leave gpu_layers out: as many as fit are chosen.",
        "options.gpu_layers",
    )


def _of_requests(scene: Scene) -> Finding | None:
    given = [argument.partition("=")[0] for argument in scene.arguments]
    found = sorted({flag for flag in given if plain_flag(flag) in _OF_REQUESTS})
    if not found:
        return None
    return Finding(
        "argument_of_requests",
        Severity.WARNING,
        Category.ARGS,
        "Requests say this, not the start",
        f"{', '.join(found)} among the arguments: each request says it for itself, and may say otherwise",
        "Move it to the request defaults: they hold at once, without a new start.",
        "extra_args",
    )


def _tracing(scene: Scene) -> Finding | None:
    table = scene.engine.options
    traced = [f"{table.get(name).env[0]}=1" for name in _TRACES if scene.options.get(name) is True]
    if not traced:
        return None
    return Finding(
        "traced",
        Severity.WARNING,
        Category.ARGS,
        "Traced, and very slow",
        f"it runs with {' and '.join(traced)}: a fault is told where it happens, and every answer is slow",
        "Switch it off when the fault is found.",
        "options",
    )


def _gone_options(scene: Scene) -> Finding | None:
    rows = scene.engine.options
    gone = {row.name: row.until for row in rows if row.until and scene.options.get(row.name) is not None}
    if not gone:
        return None
    told = ", ".join(f"{name} (gone since {until})" for name, until in gone.items())
    return Finding(
        "not_passed_on",
        Severity.WARNING,
        Category.ARGS,
        "Kept, but not passed on",
        f"{scene.engine.title} has no such options any more: {told}",
        "Take them out; they change nothing.",
        "options",
    )


def _nothing_chosen(scene: Scene) -> Finding | None:
    if scene.chosen.unknown_why is None:
        return None
    return Finding(
        "nothing_chosen",
        Severity.INFO,
        Category.ARGS,
        "What is left open is left to the engine",
        f"no options were chosen to fit this machine: {scene.chosen.unknown_why}",
    )


_RULES: tuple[Callable[[Scene], Finding | None], ...] = (
    _wrong_format,
    _quantization,
    _fp8,
    _too_few_gpus,
    _v_cache,
    _beyond_training,
    _threads,
    _projector,
    _gpu_unused,
    _of_requests,
    _tracing,
    _gone_options,
    _nothing_chosen,
)

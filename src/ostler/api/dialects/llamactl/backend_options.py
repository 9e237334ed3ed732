"""`backend_options` of an instance as options of our engines, and back.

llamactl has one name for each flag and takes many; our tables know them all, and what stands here are only
the names that it writes. What is Ostler's own to say (host, port, ...) is kept and passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ostler.core.errors import InvalidField, Unsupported
from ostler.core.launch import HIDDEN, names_secret
from ostler.engines.command_line import REPO, is_flag
from ostler.engines.options import Option, OptionTable, OwnedOption, UnknownOption, name_of
from ostler.engines.rows import OptionValue, Owned

EXTRA = "extra_args"
ENGINES: Mapping[str, str] = {"llama_cpp": "llamacpp", "vllm": "vllm"}
"""Our engines by llamactl's names of backends."""
BACKENDS: Mapping[str, str] = {ours: theirs for theirs, ours in ENGINES.items()}
MLX = "mlx_lm"

_WRITTEN: Mapping[str, str] = {
    "draft_override_tensor": "override_tensor_draft",
    "draft_cpu_moe": "cpu_moe_draft",
    "draft_n_cpu_moe": "n_cpu_moe_draft",
    "draft_threads": "threads_draft",
    "draft_threads_batch": "threads_batch_draft",
    "draft_gpu_layers": "gpu_layers_draft",
    "draft_kv_cache_type_k": "cache_type_k_draft",
    "draft_kv_cache_type_v": "cache_type_v_draft",
    "draft_devices": "device_draft",
    "draft_model": "model_draft",
    "spec_draft_p_min": "draft_p_min",
    "spec_draft_n_max": "draft_max",
    "spec_draft_n_min": "draft_min",
    "embeddings": "embedding",
    "top_n_sigma": "top_nsigma",
    "sampler_seq": "sampling_seq",
    "ui": "webui",
    "ui_config": "webui_config",
    "ui_config_file": "webui_config_file",
}
"""How llamactl writes llama.cpp's options where that is not their flag."""
_LOAD_MODES: Mapping[Any, Mapping[str, bool]] = {
    "mlock": {"mlock": True},
    "mmap": {"mmap": True},
    "none": {"no_mmap": True},
    "dio": {"direct_io": True},
}
_HUB_TOKEN = "--hf-token"
_ELSEWHERE = ("--model-url", "--docker-repo", "--mmproj-url", "--spec-draft-hf")
"""What llama-server would fetch by itself."""


@dataclass(frozen=True, slots=True)
class Said:
    """What `backend_options` say: our options, arguments for the engine, and which model it is.

    `repo` may have a tag, `file` is one of its files, `hub_token` is what the hub lets it be fetched with.
    """

    options: dict[str, OptionValue] = field(default_factory=dict)
    extra_args: tuple[str, ...] = ()
    path: str | None = None
    repo: str | None = None
    file: str | None = None
    hub_token: str | None = None


def read(table: OptionTable, given: Mapping[str, Any]) -> Said:
    """What they say, each value checked.

    Absent, null, an empty text and an empty list all mean unset, as with llamactl; `0` and `false` are
    values. Raises InvalidField, Unsupported for models that llama-server would fetch by itself.
    """
    named: dict[str, Any] = {}
    kept: dict[str, str] = {}
    extra: list[str] = []
    for name, value in _each(given):
        if value is None or value == "" or value == []:
            continue
        try:
            row = table.get(name)
        except OwnedOption:
            _keep(table, name, value, kept)
        except UnknownOption:
            extra += _argument(name, value)
        else:
            named[name] = _expanded(row, value)
    path, repo = kept.get("model"), kept.get("hub")
    if path and table.models_may_be_repos and REPO.fullmatch(path):
        path, repo = None, path
    table.check_extra_args(extra)
    options = table.validate(named)
    return Said(options, tuple(extra), _home(path), repo, kept.get("hub_file"), kept.get(_HUB_TOKEN))


def _each(given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in given.items():
        if name != EXTRA:
            yield name, value
            continue
        if value is not None and not isinstance(value, Mapping):
            raise InvalidField(EXTRA, f"{EXTRA} must be an object of texts")
        for flag, text in (value or {}).items():
            yield name_of(str(flag)), True if text == "" else text


def _keep(table: OptionTable, name: str, value: Any, kept: dict[str, str]) -> None:
    """Take what names the model; everything else of this kind is Ostler's to say."""
    owned = next(one for one in table.owned if name_of(name) in {*map(name_of, one.flags), *one.names})
    if _fetches(owned) and value is not False:
        raise Unsupported(
            f"{name} would have llama-server fetch a model by itself",
            hint="Pull it (hf_repo and hf_file are fetched at a start) and name the file in model.",
        )
    if owned.meaning is not None:
        kept[owned.meaning] = str(value)
    elif _HUB_TOKEN in owned.flags:
        kept[_HUB_TOKEN] = str(value)


def _fetches(owned: Owned) -> bool:
    return bool(set(_ELSEWHERE) & set(owned.flags)) or "--embd-gemma-default" in owned.flags


def _argument(name: str, value: Any) -> list[str]:
    """An option that no table knows, as it goes to the engine: a bare flag for what is only true."""
    flag = f"--{name_of(name).replace('_', '-')}"
    if value is False:
        return []
    if value is True or value == "true":
        return [flag]
    if isinstance(value, Mapping):
        raise InvalidField(f"backend_options.{name}", f"{name} must be a text, a number or a list")
    values = value if isinstance(value, list) else [value]
    return [part for one in values for part in (flag, str(one))]


def _expanded(row: Option, value: Any) -> Any:
    if row.type != "path":
        return value
    return [_home(one) for one in value] if isinstance(value, list) else _home(value)


def _home(value: Any) -> Any:
    """The path with `~` replaced; text that names nobody's home stays as it is."""
    if not isinstance(value, str) or not value.startswith("~"):
        return value
    try:
        return str(Path(value).expanduser())
    except RuntimeError:
        return value


def written(
    table: OptionTable, options: Mapping[str, OptionValue], extra_args: Sequence[str]
) -> dict[str, Any]:
    """The same in llamactl's names, by name; arguments for the engine under `extra_args`."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        row = table.get(name)
        if name == "load_mode" and (mode := _LOAD_MODES.get(value)) is not None:
            found |= mode
        elif value is False and row.negative_flags:
            found["no_webui" if name == "ui" else name_of(row.negative_flags[0])] = True
        else:
            found[_WRITTEN.get(name) or (name_of(row.flags[0]) if row.flags else name)] = value
    extra = _paired(extra_args)
    return {**dict(sorted(found.items())), **({EXTRA: extra} if extra else {})}


def _paired(extra_args: Sequence[str]) -> dict[str, str]:
    """Arguments by their names; a bare flag is `true`, as llamactl's own reader has it."""
    found: dict[str, str] = {}
    words = list(extra_args)
    while words:
        flag, equals, value = words.pop(0).partition("=")
        if not equals:
            value = words.pop(0) if words and not is_flag(words[0]) else "true"
        found[name_of(flag)] = value
    return dict(sorted(found.items()))


def without_secrets(backend_options: Mapping[str, Any]) -> dict[str, Any]:
    """The same with every value hidden whose name looks secret."""
    return {
        name: without_secrets(value)
        if isinstance(value, Mapping)
        else (HIDDEN if value and names_secret(name) else value)
        for name, value in backend_options.items()
    }


def never_kept(backend_options: Mapping[str, Any]) -> dict[str, Any]:
    """The same without those values."""
    kept = {
        name: never_kept(value) if isinstance(value, Mapping) else value
        for name, value in backend_options.items()
    }
    return {name: value for name, value in kept.items() if not names_secret(name)}

"""Fields of Cortex that only make sense together: each group says how it is written to our record and read.

A record is seen here as its documents by name (`Documents`); what is one value, such as the task, is a
document with the one key "".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ostler.api.dialects.cortex.fields import (
    ARGUMENTS,
    DEFAULTS,
    DEVICES,
    ENVIRONMENT,
    IDENTITY,
    LLAMACPP,
    LOADING,
    LORA,
    SAMPLING,
    TRACING,
)
from ostler.api.dialects.cortex.translations import inside, shown
from ostler.api.dialects.cortex.words import EMBED, task_word
from ostler.core.errors import InvalidField
from ostler.models.records import HOST_DEVICE

Documents = dict[str, dict[str, Any]]
Values = Mapping[str, Any]
TOKEN = "HF_TOKEN"
SYSTEM_PROMPT = "system_prompt"
TRACES = ("trace_functions", "cuda_launch_blocking")
"""What Cortex's `trace_mode` turns on: a fault is told where it happens, and everything becomes slow."""
_PENALTY = ("repetition_penalty", "repeat_penalty")
"""One thing: as Cortex and vLLM call it, and as llama-server does."""


@dataclass(frozen=True, slots=True)
class Group:
    """`write` puts the fields into documents, `read` gives those that the documents say."""

    write: Callable[[Values, str, Path, Documents], None]
    read: Callable[[Documents, str, Path], dict[str, Any]]


def json_of(field: str, value: Any, kind: type) -> Any:
    """JSON that is a text, or was read already; None where there is none. Raises InvalidField."""
    if value in (None, "", [], {}):
        return None
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise InvalidField(field, f"{field} is not valid JSON: {error}") from error
    if not isinstance(found, kind):
        raise InvalidField(field, f"{field} must be {'a list' if kind is list else 'an object'}")
    return found


def _write_identity(values: Values, engine: str, _: Path, documents: Documents) -> None:
    task = str(values.get("task") or "")
    documents["task"][""] = task
    documents["name"][""] = values.get("served_model_name") or values.get("name") or None
    if task.startswith(EMBED):
        documents["options"].update({"embeddings": True} if engine == LLAMACPP else {"runner": "pooling"})


def _read_identity(documents: Documents, engine: str, models_dir: Path) -> dict[str, Any]:
    source = documents["source"][""]
    is_hub = source.kind == "hub"
    return {
        "mode": "online" if is_hub else "offline",
        "repo_id": source.label if is_hub else None,
        "local_path": None if is_hub else shown(source.path, models_dir),
        "task": task_word(documents["task"][""], documents["options"]),
        "engine_type": engine,
        "served_model_name": documents["name"][""],
    }


def _write_devices(values: Values, _: str, __: Path, documents: Documents) -> None:
    if values.get("device") == HOST_DEVICE:
        documents["policy"]["devices"] = [HOST_DEVICE]
    elif gpus := json_of("selected_gpus", values.get("selected_gpus"), list):
        documents["policy"]["devices"] = [f"cuda:{number}" for number in gpus]


def _read_devices(documents: Documents, engine: str, __: Path) -> dict[str, Any]:
    devices = documents["policy"].get("devices") or ()
    numbers = [id.removeprefix("cuda:") for id in devices]
    are_gpus = bool(numbers) and all(number.isdecimal() for number in numbers)
    is_cpu = list(devices) == [HOST_DEVICE] and engine != LLAMACPP
    return {
        "selected_gpus": [int(number) for number in numbers] if are_gpus else None,
        "device": HOST_DEVICE if is_cpu else None,
    }


def _write_loading(values: Values, _: str, __: Path, documents: Documents) -> None:
    mlock, no_mmap = values.get("mlock"), values.get("no_mmap")
    if mlock:
        documents["options"]["load_mode"] = "mlock" if no_mmap else "mmap+mlock"
    elif no_mmap:
        documents["options"]["load_mode"] = "none"


def _read_loading(documents: Documents, _: str, __: Path) -> dict[str, Any]:
    mode = documents["options"].get("load_mode")
    return {
        "mlock": True if mode in ("mlock", "mmap+mlock") else None,
        "no_mmap": True if mode in ("mlock", "none") else None,
    }


def _write_tracing(values: Values, engine: str, __: Path, documents: Documents) -> None:
    if engine != LLAMACPP and values.get("trace_mode") is not None:
        for option in TRACES if values["trace_mode"] else TRACES[:1]:
            documents["options"][option] = values["trace_mode"]


def _read_tracing(documents: Documents, engine: str, __: Path) -> dict[str, Any]:
    traces = documents["options"].get(TRACES[0])
    return {} if engine == LLAMACPP else {"trace_mode": traces}


def _write_lora(values: Values, _: str, models_dir: Path, documents: Documents) -> None:
    field = "lora_adapters_json"
    for entry in json_of(field, values.get(field), list) or ():
        entry = {"path": entry} if isinstance(entry, str) else entry
        if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
            raise InvalidField(field, f"{field} must be a list of paths, or of objects with path and scale")
        path, scale = inside(entry["path"], models_dir, field), entry.get("scale")
        if scale is None:
            documents["options"].setdefault("lora", []).append(path)
        else:
            documents["options"].setdefault("lora_scaled", []).append(f"{path}:{scale}")


def _read_lora(documents: Documents, _: str, models_dir: Path) -> dict[str, Any]:
    entries: list[dict[str, Any]] = [
        {"path": shown(path, models_dir)} for path in documents["options"].get("lora") or ()
    ]
    for text in documents["options"].get("lora_scaled") or ():
        path, _, scale = str(text).rpartition(":")
        entries.append({"path": shown(path, models_dir), "scale": _number(scale)})
    return {"lora_adapters_json": json.dumps(entries) if entries else None}


def arguments_of(value: Any) -> tuple[str, ...]:
    """`[{flag, type, value}]` as arguments; a switch that is off is left out. Raises InvalidField."""
    field, found = "engine_startup_args_json", []
    for entry in json_of(field, value, list) or ():
        if not isinstance(entry, Mapping) or not str(entry.get("flag") or "").startswith("-"):
            raise InvalidField(field, f"{field} must be a list of objects with a flag that begins with '-'")
        flag, kind, given = str(entry["flag"]), entry.get("type"), entry.get("value")
        if kind == "flag" or given is None:
            found.append(flag)
        elif kind == "bool" or isinstance(given, bool):
            found += [flag] if given not in (False, 0, "false", "False", "0") else []
        else:
            found += [flag, *map(str, given if isinstance(given, list) else [given])]
    return tuple(found)


def _write_arguments(values: Values, _: str, __: Path, documents: Documents) -> None:
    documents["extra_args"][""] = arguments_of(values.get("engine_startup_args_json"))


def _read_arguments(documents: Documents, _: str, __: Path) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    for argument in documents["extra_args"][""]:
        if argument.startswith("-") and _number(argument) == argument:
            entries.append({"flag": argument, "type": "flag", "value": None})
            continue
        last = entries[-1] if entries else {}
        value, before = _number(argument), last.get("value")
        if not last:
            entries.append({"flag": argument, "type": "flag", "value": None})
        elif before is None:
            kind = {int: "int", float: "float"}.get(type(value), "string")
            last.update({"type": kind, "value": value})
        else:
            texts = before if isinstance(before, list) else [str(before)]
            last.update({"type": "string_list", "value": [*texts, argument]})
    return {"engine_startup_args_json": json.dumps(entries) if entries else None}


def environment_of(value: Any) -> dict[str, str]:
    """`[{key, value}]` as variables. Raises InvalidField."""
    field, found = "engine_startup_env_json", {}
    for entry in json_of(field, value, list) or ():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("key"), str):
            raise InvalidField(field, f"{field} must be a list of objects with key and value")
        found[entry["key"]] = str(entry.get("value", ""))
    return found


def _write_environment(values: Values, _: str, __: Path, documents: Documents) -> None:
    documents["env"].update(environment_of(values.get("engine_startup_env_json")))


def _read_environment(documents: Documents, _: str, __: Path) -> dict[str, Any]:
    entries = [{"key": name, "value": value} for name, value in documents["env"].items() if name != TOKEN]
    return {"engine_startup_env_json": json.dumps(entries) if entries else None}


def _write_defaults(values: Values, engine: str, _: Path, documents: Documents) -> None:
    stored = json_of("request_defaults_json", values.get("request_defaults_json"), dict) or {}
    custom = json_of("custom_request_json", values.get("custom_request_json"), dict) or {}
    named = {name: values[name] for name in SAMPLING if values.get(name) is not None}
    if prompt := values.get(SYSTEM_PROMPT):
        named[SYSTEM_PROMPT] = prompt
    together = {**stored, **custom, **named}
    limit_s = together.pop("request_timeout_sec", None)
    if limit_s and not documents["policy"].get("request_timeout_s"):
        documents["policy"]["request_timeout_s"] = limit_s
    documents["request_defaults"].update(_renamed(together, *_PENALTY) if engine == LLAMACPP else together)


def _read_defaults(documents: Documents, engine: str, _: Path) -> dict[str, Any]:
    every = dict(documents["request_defaults"])
    if engine == LLAMACPP:
        every = _renamed(every, *reversed(_PENALTY))
    prompt = every.pop(SYSTEM_PROMPT, None)
    custom = {name: value for name, value in every.items() if name not in SAMPLING}
    return {
        **{name: every.get(name) for name in SAMPLING},
        SYSTEM_PROMPT: prompt,
        "custom_request_json": json.dumps(custom) if custom else None,
        "request_defaults_json": json.dumps(every) if every else None,
    }


def _renamed(values: Mapping[str, Any], before: str, after: str) -> dict[str, Any]:
    return {after if name == before else name: value for name, value in values.items()}


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


GROUPS: Mapping[str, Group] = {
    IDENTITY: Group(_write_identity, _read_identity),
    DEVICES: Group(_write_devices, _read_devices),
    LOADING: Group(_write_loading, _read_loading),
    TRACING: Group(_write_tracing, _read_tracing),
    LORA: Group(_write_lora, _read_lora),
    ARGUMENTS: Group(_write_arguments, _read_arguments),
    ENVIRONMENT: Group(_write_environment, _read_environment),
    DEFAULTS: Group(_write_defaults, _read_defaults),
}

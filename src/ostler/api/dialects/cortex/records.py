"""A model as Cortex's bodies have it, as a record of ours, and back.

The rows of `fields.py` are written into the documents of our record and read from them again. What is said
by our record is shown from it, also where somebody changed it by another way. What a record cannot say (a
switch that is off, how a list was spaced, fields that mean nothing here) is kept as it was sent, together
with what the record said then: it is given back for as long as the record still says that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ostler.api.dialects.base import Refused
from ostler.api.dialects.cortex.fields import BY_NAME, DEFAULTS, FIELDS, LLAMACPP, LORA, PLACES, VLLM
from ostler.api.dialects.cortex.groups import GROUPS, Documents, arguments_of, environment_of
from ostler.api.dialects.cortex.translations import PATH, inside, shown
from ostler.api.shapes import hide_args, hide_env
from ostler.core.launch import HIDDEN
from ostler.hub.specs import parse_spec
from ostler.models.records import HOST_DEVICE, Model, NewModel, Policy, Source
from ostler.models.sources import source_of

ORIGIN, SHOWN = "cortex", "cortex_shown"
"""Keys of `dialect_data`: what is kept as it was sent, and what the record said instead then."""

SHARE = "gpu_memory_utilization"
_DOCUMENTS = ("options", "env", "request_defaults", "policy", "runtime_options")
_SINGLE = ("engine_command", "extra_args", "task", "name", "source")
_NEVER_KEPT = frozenset({"mode", "engine_type", "served_model_name", "hf_token", "engine_startup_env_json"})
_FORBIDDEN_FLAGS = frozenset(
    {
        *("--host", "--port", "-h", "-p", "--api-key", "--root-path", "--env-vars", "--load-format"),
        *("--ssl-keyfile", "--ssl-certfile", "--ssl-ca-certs"),
        *("--disable-log-requests", "--uvicorn-log-level", "--log-level"),
    }
)
_OPTION = "It is the option {}, over Ostler's own API: PATCH /ostler/v1/models/NAME."
_PROTECTED_VARIABLES = {
    "CUDA_VISIBLE_DEVICES": "Send selected_gpus.",
    "HF_HUB_OFFLINE": "Engines load what is on disk; Ostler fetches the files of online models.",
    "VLLM_API_KEY": "Each engine has a key of its own.",
    "NCCL_P2P_DISABLE": _OPTION.format("nccl_p2p_disable"),
    "NCCL_IB_DISABLE": _OPTION.format("nccl_ib_disable"),
    "NCCL_SHM_DISABLE": _OPTION.format("nccl_shm_disable"),
    "PYTORCH_CUDA_ALLOC_CONF": _OPTION.format("cuda_alloc_conf"),
}
"""Variables that are not for custom environments, and what is instead of each."""
_PATHS = frozenset(field.name for field in FIELDS if field.translation is PATH or field.place == LORA)


def new_model_of(
    values: Mapping[str, Any], models_dir: Path, runtime: str, *, has_gpus: bool = True
) -> NewModel:
    """The record of a body that makes a model, or of a row of Cortex's own table.

    What is absent has no default here: the body's shape gives them. Such a model runs when somebody starts
    it, not when a request comes, as with Cortex. What is about GPUs alone is only kept where there are none.
    Raises Refused for what Cortex refuses with a word of its own, and InvalidField.
    """
    engine, mode = _engine_and_mode(values)
    _refuse_forbidden(values)
    written = _written(_meant(values, has_gpus), engine, models_dir)
    written["source"][""] = _source(values, mode, models_dir)
    return NewModel(
        source=written["source"][""],
        name=written["name"][""],
        engine=engine,
        runtime=runtime,
        task=written["task"][""],
        engine_command=written["engine_command"].get(""),
        extra_args=written["extra_args"][""],
        origin=ORIGIN,
        dialect_data=_with_kept({}, values, _read(written, engine, models_dir), engine),
        options=written["options"],
        env=written["env"],
        request_defaults=written["request_defaults"],
        policy={"on_demand": False, **written["policy"]},
        runtime_options=written["runtime_options"],
    )


def at_file(new: NewModel, path: Path, models_dir: Path) -> NewModel:
    """The same for a file inside the folder that was sent as local_path, which is still what is shown."""
    kept, instead = (dict(new.dialect_data.get(name) or {}) for name in (ORIGIN, SHOWN))
    folder = new.source.path if isinstance(new.source, Source) else None
    kept.setdefault("local_path", shown(folder, models_dir))
    instead["local_path"] = shown(str(path), models_dir)
    data = {**new.dialect_data, ORIGIN: kept, SHOWN: instead}
    return replace(new, source=Source("file", path=str(path)), dialect_data=data)


def changes_of(
    patch: Mapping[str, Any], model: Model, models_dir: Path, *, has_gpus: bool = True
) -> dict[str, Any]:
    """The changes of our record that a body means which changes a model.

    Only what belongs to the fields in it is touched. Hidden secrets that come back stay as they are. Raises
    as `new_model_of` does.
    """
    given = {name: value for name, value in patch.items() if name in BY_NAME and BY_NAME[name].can_change}
    if given.get("hf_token") == HIDDEN:
        del given["hf_token"]
    if "engine_startup_env_json" in given:
        variables = environment_of(given["engine_startup_env_json"])
        real = {name: model.env.get(name, "") if v == HIDDEN else v for name, v in variables.items()}
        given["engine_startup_env_json"] = [{"key": name, "value": v} for name, v in real.items()]
    _refuse_forbidden(given)
    documents = _documents_of(model)
    read = _read(documents, model.engine, models_dir)
    kept, instead = _kept(model, read)
    untouched = _PATHS - given.keys()  # they may lie outside the base folder of today
    before = {name: value for name, value in read.items() if name not in untouched}
    before[SHARE] = kept.get(SHARE, read.get(SHARE))
    after = {**before, **given, **_replaced_defaults(given)}
    counts = has_gpus or SHARE in documents["options"]
    old, new = (_written(_meant(values, counts), model.engine, models_dir) for values in (before, after))
    changes: dict[str, Any] = {}
    for name in _DOCUMENTS:
        gone = {key: None for key in old[name] if key not in new[name]}
        changed = {key: value for key, value in new[name].items() if old[name].get(key) != value}
        if gone or changed:
            changes[name] = {**gone, **changed}
            documents[name] = {k: v for k, v in {**documents[name], **changes[name]}.items() if v is not None}
    for name in ("engine_command", "extra_args", "name"):
        if old[name].get("") != new[name].get(""):
            changes[name] = new[name].get("")
            documents[name][""] = changes[name]
    shown_then = _read(documents, model.engine, models_dir)
    still = {name: value for name, value in kept.items() if shown_then.get(name) == instead.get(name)}
    data = _with_kept(model.dialect_data, {**still, **given}, shown_then, model.engine)
    if data != model.dialect_data:
        changes["dialect_data"] = data
    changes.update({name: patch[name] for name in ("archived", "runtime") if patch.get(name) is not None})
    return changes


def model_fields(model: Model, models_dir: Path) -> dict[str, Any]:
    """Every field of Cortex's for a model, with its secrets hidden; None for what is not set."""
    documents = _documents_of(model)
    documents["env"] = hide_env(documents["env"])
    documents["extra_args"] = {"": tuple(hide_args(documents["extra_args"][""]))}
    read = _read(documents, model.engine, models_dir)
    kept, _ = _kept(model, read)
    if model.engine == LLAMACPP:
        split = model.options.get("tensor_split")
        kept["tp_size"] = len(split) if isinstance(split, list) else 1
    return {**_NOTHING, "name": model.name, **read, **kept}


_NOTHING: Mapping[str, Any] = {field.name: None for field in FIELDS}


def _engine_and_mode(values: Mapping[str, Any]) -> tuple[str, str]:
    engine = values.get("engine_type") or VLLM
    if engine not in (VLLM, LLAMACPP):
        raise Refused(
            "unknown_engine_type", f"there is no engine {str(engine)[:80]!r}", hint="One of: vllm, llamacpp."
        )
    mode = values.get("mode", "offline" if values.get("local_path") else "online")
    if mode not in ("online", "offline"):
        raise Refused("invalid_mode", f"mode must be online or offline, not {str(mode)[:80]!r}")
    if engine == LLAMACPP and mode != "offline":
        raise Refused(
            "llamacpp requires offline mode",
            "a model of llama.cpp is a file in the models folder",
            hint="Send mode=offline with local_path; POST /ostler/v1/downloads fetches files of the hub.",
        )
    return engine, mode


def _source(values: Mapping[str, Any], mode: str, models_dir: Path) -> Source:
    repo, path = (str(values.get(name) or "").strip() for name in ("repo_id", "local_path"))
    if mode == "online":
        if not repo:
            raise Refused("repo_id_required", "an online model needs a repo_id", hint="Such as org/name.")
        return source_of(parse_spec(repo))
    if not path:
        is_llama = values.get("engine_type") == LLAMACPP
        word = "llamacpp requires local_path" if is_llama else "local_path_required"
        raise Refused(word, "an offline model needs a local_path", hint="A path inside the models folder.")
    return Source("file", path=inside(path, models_dir, "local_path"))


def _refuse_forbidden(values: Mapping[str, Any]) -> None:
    for argument in arguments_of(values.get("engine_startup_args_json")):
        flag = argument.partition("=")[0]
        if flag in _FORBIDDEN_FLAGS:
            raise Refused(
                "forbidden_argument", f"{flag} is not for custom arguments: Ostler sets it", flag=flag
            )
    for name in environment_of(values.get("engine_startup_env_json")):
        if name in _PROTECTED_VARIABLES:
            raise Refused(
                "protected_variable",
                f"the variable {name} is not for custom environments",
                hint=_PROTECTED_VARIABLES[name],
                variable=name,
            )


def _replaced_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Which of the fields that end in one document give way to those that are given."""
    together = {field.name for field in FIELDS if field.place == DEFAULTS} - {"system_prompt"}
    if not together & given.keys():
        return {}
    if "request_defaults_json" in given:
        return dict.fromkeys(together - given.keys())
    return {"request_defaults_json": None}


def _meant(values: Mapping[str, Any], has_gpus: bool) -> Mapping[str, Any]:
    """Without the share of a GPU's memory where there is none: vLLM would take it of the host's."""
    if has_gpus and values.get("device") != HOST_DEVICE:
        return values
    return {name: value for name, value in values.items() if name != SHARE}


def _written(values: Mapping[str, Any], engine: str, models_dir: Path) -> Documents:
    documents: Documents = {name: {} for name in (*_DOCUMENTS, *_SINGLE)}
    for field, document, key in PLACES[engine]:
        value = values.get(field.name)
        if value is not None and value != "":
            ours = field.translation.to_ours(value, models_dir)
            if ours is not None:
                documents[document][key] = ours
    for group in GROUPS.values():
        group.write(values, engine, models_dir, documents)
    return documents


def _documents_of(model: Model) -> Documents:
    documents = {name: dict(getattr(model, name)) for name in _DOCUMENTS if name != "policy"}
    documents["policy"] = {name: getattr(model.policy, name) for name in Policy.__slots__}
    return {**documents, **{name: {"": getattr(model, name)} for name in _SINGLE}}


def _read(documents: Documents, engine: str, models_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for group in GROUPS.values():
        found.update(group.read(documents, engine, models_dir))
    for field, document, key in PLACES.get(engine, ()):
        ours = documents[document].get(key)
        found[field.name] = None if ours is None else field.translation.to_theirs(ours, models_dir)
    return found


def _kept(model: Model, read: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """What was kept as it was sent and still counts, and what the record said instead."""
    kept, instead = model.dialect_data.get(ORIGIN) or {}, model.dialect_data.get(SHOWN) or {}
    return {name: value for name, value in kept.items() if read.get(name) == instead.get(name)}, instead


def _with_kept(
    data: Mapping[str, Any], sent: Mapping[str, Any], read: Mapping[str, Any], engine: str
) -> dict[str, Any]:
    """`dialect_data` with all that was sent and the record does not give back."""
    never = _NEVER_KEPT | ({"tp_size"} if engine == LLAMACPP else frozenset())
    arguments = list(arguments_of(sent.get("engine_startup_args_json")))
    if arguments != hide_args(arguments):
        never |= {"engine_startup_args_json"}
    kept = {
        name: value
        for name, value in sent.items()
        if name in BY_NAME and name not in never and value is not None and read.get(name) != value
    }
    if kept.get("name") in ("", read["served_model_name"]):
        kept.pop("name", None)
    instead = {name: read[name] for name in kept if read.get(name) is not None}
    others = {name: value for name, value in data.items() if name not in (ORIGIN, SHOWN)}
    return {**others, **({ORIGIN: kept} if kept else {}), **({SHOWN: instead} if instead else {})}

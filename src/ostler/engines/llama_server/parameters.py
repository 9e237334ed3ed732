"""From arguments to llama.cpp's parameters."""

from __future__ import annotations

import os
from typing import Any

from ostler.core.comma_lists import comma_list
from ostler.engines.llama_server.arguments import Arguments, BadArgument, keys_of, read_file
from ostler.engines.llama_server.fields import ENUMS, FIELDS, FILES, FLIPPED, FOLDERS, REFUSED, SAMPLED
from ostler.engines.llama_server.special import SPECIAL
from ostler.engines.llamacpp_options import TABLE
from ostler.engines.options import OptionValue

HONOURED_OWNED = frozenset(
    {
        "--host",
        "--port",
        "--reuse-port",
        "--api-prefix",
        "--ssl-key-file",
        "--ssl-cert-file",
        "--api-key",
        "--api-key-file",
        "--model",
        "--alias",
        "--offline",
    }
)
DEFAULT_PORT = 8080
AUTO_SLOTS = 4


def make_parameters(arguments: Arguments, x: Any) -> Any:
    """xllamacpp's CommonParams that do what the arguments say. Raises BadArgument.

    `x` is the module xllamacpp, handed in because importing it takes longer than all else here.
    """
    params = x.CommonParams()
    _apply_owned(arguments, params)
    params.n_parallel = -1
    for option in TABLE:
        if option.name in arguments.options:
            apply_option(option.name, arguments.options[option.name], params, x)
    if params.n_parallel < 0:
        params.n_parallel = AUTO_SLOTS
        if "kv_unified" not in arguments.options:
            params.kv_unified = True
    if params.kv_unified_per_slot > 0 and "context_length" not in arguments.options:
        params.n_ctx = params.n_parallel * params.kv_unified_per_slot
    if params.embedding and params.n_batch > params.n_ubatch:
        params.n_batch = params.n_ubatch
    if "preserve_reasoning" not in params.default_template_kwargs:
        params.default_template_kwargs = {**params.default_template_kwargs, "preserve_reasoning": "true"}
    unsafe = params.server_tools or params.mcp_servers_config or params.mcp_servers_json
    if unsafe and not params.cors_origins_explicit:
        params.cors_origins = "localhost"
    return params


def apply_option(name: str, value: OptionValue, params: Any, x: Any) -> None:
    """Set what one option stands for. Raises BadArgument where it cannot be honoured."""
    flag = TABLE.get(name).flag or name
    if name in REFUSED:
        raise BadArgument(f"{flag} cannot be honoured by the built-in engine: {REFUSED[name]}")
    if name in SPECIAL:
        SPECIAL[name](params, value, x)
    elif name in FIELDS:
        _set(params, FIELDS[name], value)
    elif name in FLIPPED:
        _set(params, FLIPPED[name], not value)
    elif name in SAMPLED:
        field, mark = SAMPLED[name]
        setattr(params.sampling, field, value)
        member = x.common_params_sampling_config[f"COMMON_PARAMS_SAMPLING_CONFIG_{mark}"]
        params.sampling.user_sampling_config |= member.value
        if name == "repeat_last_n":
            params.sampling.n_prev = max(params.sampling.n_prev, value)
    elif name in ENUMS:
        path, enumeration, prefix = ENUMS[name]
        _set(params, path, getattr(x, enumeration)[prefix + str(value).upper().replace("-", "_")])
    elif name in FILES:
        _set(params, FILES[name], read_file(flag, str(value)))
    elif name in FOLDERS:
        _set(params, FOLDERS[name], _folder(flag, str(value)))
    else:
        raise BadArgument(f"{flag} cannot be honoured by the built-in engine")


def _set(params: Any, path: str, value: object) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        params = getattr(params, parent)
    setattr(params, name, value)


def _folder(flag: str, path: str) -> str:
    if not os.path.isdir(path):  # noqa: PTH112 - pathlib would be one more import
        raise BadArgument(f"{flag}: {path} is not a folder")
    return path if path.endswith("/") else path + "/"


def _apply_owned(arguments: Arguments, params: Any) -> None:
    owned = arguments.owned
    for flag in owned:
        if flag not in HONOURED_OWNED:
            raise BadArgument(f"{flag} cannot be honoured by the built-in engine")
    if not owned.get("--model"):
        raise BadArgument("--model is required")
    params.model.path = owned["--model"]
    params.hostnames = _words("--host", owned.get("--host", "127.0.0.1"))
    params.port = _port(owned.get("--port", str(DEFAULT_PORT)))
    params.reuse_port = "--reuse-port" in owned
    params.api_prefix = owned.get("--api-prefix", "")
    params.ssl_file_key = owned.get("--ssl-key-file", "")
    params.ssl_file_cert = owned.get("--ssl-cert-file", "")
    params.api_keys = keys_of(arguments)
    params.model_alias = set(_words("--alias", owned["--alias"])) if "--alias" in owned else set()


def _words(flag: str, text: str) -> list[str]:
    words = comma_list(text)
    if not words:
        raise BadArgument(f"{flag} needs a value")
    return words


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) <= 65535:
        return int(text)
    raise BadArgument(f"--port must be a whole number from 0 to 65535, not {text!r}")

"""Where the values of the settings come from, and how they are put together.

Strongest first: command line, environment, a change made at run time (kept in the database), the
configuration file, the default.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Any

import platformdirs
from pydantic import BaseModel, ConfigDict, ValidationError

from ostler.core.comma_lists import comma_list
from ostler.core.near import near_names
from ostler.core.settings import BadSetting, Settings, environment_names


class Origin(StrEnum):
    """Where a setting's value came from."""

    COMMAND_LINE = "command line"
    ENVIRONMENT = "environment"
    RUN_TIME = "changed at run time"
    FILE = "file"
    DEFAULT = "default"


class LoadedSettings(BaseModel):
    """Settings together with the origin of each."""

    model_config = ConfigDict(frozen=True)

    values: Settings
    origins: dict[str, Origin]
    config_file: Path | None = None


def load_settings(
    *,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
    run_time: Mapping[str, Any] | None = None,
) -> LoadedSettings:
    """Put the settings together from all sources.

    `config` names a TOML file; without it `config.toml` in the user's configuration folder is read
    where there is one. Raises BadSetting naming the setting, the source and what is wrong.
    """
    environ = os.environ if environ is None else environ
    path, from_file = _read_file(config, environ)
    layers: list[tuple[Origin, dict[str, Any]]] = [
        (Origin.FILE, from_file),
        (Origin.RUN_TIME, dict(run_time or {})),
        (Origin.ENVIRONMENT, _from_environment(environ)),
        (Origin.COMMAND_LINE, {k: v for k, v in (flags or {}).items() if v is not None}),
    ]
    merged: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, Origin.DEFAULT)
    for origin, values in layers:
        for name, value in values.items():
            if name not in Settings.model_fields:
                near = near_names(name, Settings.model_fields)
                raise BadSetting(
                    f"unknown setting {name!r} ({origin})",
                    hint=f"Did you mean {near[0]}?" if near else None,
                    setting=name,
                )
            merged[name] = value
            origins[name] = origin
    try:
        settings = Settings(**merged)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "?"
        origin = origins.get(name, Origin.DEFAULT)
        raise BadSetting(f"setting {name} ({origin}): {first['msg']}", setting=name) from error
    return LoadedSettings(values=settings, origins=origins, config_file=path)


def _read_file(config: Path | None, environ: Mapping[str, str]) -> tuple[Path | None, dict[str, Any]]:
    named = config or (Path(environ["OSTLER_CONFIG"]) if environ.get("OSTLER_CONFIG") else None)
    path = named or Path(platformdirs.user_config_dir("ostler")) / "config.toml"
    try:
        return path, tomllib.loads(path.read_text())
    except FileNotFoundError:
        if named is not None:
            raise BadSetting(f"the configuration file {path} does not exist") from None
        return None, {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadSetting(f"the configuration file {path} is not valid TOML: {error}") from error
    except OSError as error:
        raise BadSetting(f"the configuration file {path} cannot be read: {error.strerror}") from error


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, field in Settings.model_fields.items():
        for variable in environment_names(name):
            if text := environ.get(variable):
                is_list = str(field.annotation).startswith("tuple")
                found[name] = tuple(comma_list(text)) if is_list else text
                break
    return found

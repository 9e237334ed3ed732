"""What of a recipe only an administrator may say.

An engine runs with the rights of the server. Who chooses its program, the code that it loads, the
files that it writes or the folders that it opens to requests has those rights too, so that is for
administrators. Others may name files to read inside the library.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ostler.core.errors import InvalidField
from ostler.core.principals import Principal, Role
from ostler.engines.command_line import is_flag
from ostler.engines.options import Option, OptionTable
from ostler.models.records import Model, NewModel
from ostler.runtimes.container_options import ADMIN_ONLY

_LOADS_CODE = ("LD_", "DYLD_", "PYTHON", "PATH", "GGML_BACKEND", "VLLM_", "NCCL_", "TORCH", "TRITON_")
"""How variables begin that name code or files; those that are options are judged as options."""


def refuse_untrusted(
    new: NewModel, before: Model | None, table: OptionTable, roots: Sequence[Path], principal: Principal
) -> None:
    """Refuse what this principal may not say; what stood in the recipe before may stay.

    `roots` are the folders of the library. Raises InvalidField, NotAllowed and what the table raises
    for unknown options.
    """
    command = new.engine_command
    if command is not None and (not isinstance(command, str) or not command.strip()):
        raise InvalidField("engine_command", "engine_command must be a text that is not empty, or null")
    if principal.role >= Role.ADMIN:
        return
    if command is not None and command != (before.engine_command if before else None):
        principal.require(Role.ADMIN, "choose the program that an engine runs")
    wishes = _changed(new.runtime_options, before.runtime_options if before else {})
    if beyond := sorted(ADMIN_ONLY & set(wishes)):
        principal.require(
            Role.ADMIN, f"set {', '.join(beyond)} of a container, which reaches beyond the model"
        )
    _refuse_variables(_changed(new.env, before.env if before else {}), table, principal)
    options = table.validate(new.options)
    refuse_untrusted_options(options, before.options if before else {}, table, roots, principal)
    if list(new.extra_args) != list(before.extra_args if before else ()):
        _refuse_arguments(new.extra_args, table, principal)


def refuse_untrusted_options(
    options: Mapping[str, Any],
    before: Mapping[str, Any],
    table: OptionTable,
    roots: Sequence[Path],
    principal: Principal,
) -> None:
    """Refuse canonical options that this principal may not say, other than those `before`. Blocking.

    Raises NotAllowed.
    """
    if principal.role >= Role.ADMIN:
        return
    for name, value in _changed(options, before).items():
        _refuse_option(table.get(name), value, roots, principal)


def _changed(after: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in after.items() if name not in before or before[name] != value}


def _refuse_variables(changed: Mapping[str, Any], table: OptionTable, principal: Principal) -> None:
    for name in changed:
        option = table.for_env(name)
        if option is None and name.startswith(_LOADS_CODE):
            principal.require(Role.ADMIN, f"set the variable {name}, which decides what code an engine loads")
        if option is not None and (option.admin_only or option.type == "path"):
            principal.require(Role.ADMIN, f"set the variable {name}, which names programs or files")


def _refuse_option(option: Option, value: Any, roots: Sequence[Path], principal: Principal) -> None:
    if option.admin_only:
        principal.require(Role.ADMIN, f"set the option {option.name}, which reaches beyond the model")
    paths = [path for path in _paths(value) if path not in option.words]
    if option.type == "path" and not all(_is_inside(path, roots) for path in paths):
        principal.require(Role.ADMIN, f"set the option {option.name} to a path outside the library")


def _paths(value: Any) -> Iterator[str]:
    yield from map(str, value) if isinstance(value, list | tuple) else (str(value),)


def _is_inside(text: str, roots: Sequence[Path]) -> bool:
    path = Path(text)
    if not path.is_absolute() or ".." in path.parts:
        return False
    # A link inside may point outside: what counts is where it leads.
    return any(path.is_relative_to(root) and path.resolve().is_relative_to(root.resolve()) for root in roots)


def _refuse_arguments(arguments: Sequence[str], table: OptionTable, principal: Principal) -> None:
    """An argument that the table knows is as safe as its option; of another nobody knows."""
    for argument in arguments:
        if not is_flag(argument):
            continue
        row = table.for_flag(argument.partition("=")[0])
        option = table.get(row[0].name) if row else None
        if option is None or option.admin_only or option.type == "path":
            principal.require(Role.ADMIN, f"pass {argument.partition('=')[0]} to an engine as it is")

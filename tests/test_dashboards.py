"""The dashboards draw what is really exported: by this server, and by the engines (as real ones said it)."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.server import running_ostler

CHECKOUT = Path(__file__).parents[1]
FOLDER = CHECKOUT / "deploy" / "grafana"
RECORDED = CHECKOUT / "tests" / "engines" / "recorded"
_NAME = re.compile(r"\b(?:ostler_|gateway_|vllm:|llamacpp:)[a-z0-9_:]+")


def _tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("dashboards", CHECKOUT / "tools" / "dashboards.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TOOL = _tool()


def drawn(dashboard: str) -> set[str]:
    """Every metric that the queries of a dashboard name."""
    whole = json.loads((FOLDER / f"{dashboard}.json").read_text())
    found = [target["expr"] for panel in whole["panels"] for target in panel["targets"]]
    found += [variable["query"] for variable in whole["templating"]["list"]]
    return {name for text in found for name in _NAME.findall(text)}


def exported(text: str) -> set[str]:
    """The names of an exposition, those of families that have no sample yet too."""
    names = {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        names |= {f"{name}_bucket", f"{name}_count", f"{name}_sum"} if kind == "histogram" else {name}
    return names


@pytest.mark.parametrize("name", TOOL.DASHBOARDS)
def test_each_dashboard_is_as_the_tool_writes_it(name: str) -> None:
    assert (FOLDER / f"{name}.json").read_text() == TOOL.text_of(name), "run: python tools/dashboards.py"


async def test_every_metric_that_is_drawn_is_exported(tmp_path: Path) -> None:
    async with running_ostler(tmp_path / "data") as server:
        await server.ostler.services.host.latest()
        async with httpx2.AsyncClient(base_url=server.url) as client:
            ours = exported((await client.get("/metrics")).text)
    engines = {name for file in RECORDED.glob("*.txt") for name in exported(file.read_text())}
    for name in TOOL.DASHBOARDS:
        assert drawn(name), name
        assert drawn(name) <= ours | engines, (name, drawn(name) - ours - engines)

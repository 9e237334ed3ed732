"""The documentation says what the code does."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from fastapi.routing import APIRoute

from ostler.api.dialects.cortex.mounted import CORTEX
from ostler.api.dialects.llamactl import backends, instances, keys, routers, system

CHECKOUT = Path(__file__).parents[1]


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", CHECKOUT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PAGES = _generator().pages()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_generated_page_is_current(page: Path) -> None:
    assert page.read_text() == PAGES[page](), "run: make docs"


@pytest.mark.parametrize(
    "page",
    [CHECKOUT / "README.md", CHECKOUT / "CONTRIBUTING.md", *sorted((CHECKOUT / "docs").rglob("*.md"))],
    ids=lambda page: str(page.relative_to(CHECKOUT)),
)
def test_every_link_between_our_pages_leads_somewhere(page: Path) -> None:

    for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


@pytest.mark.parametrize("noun", [backends, instances, keys, routers, system])
def test_the_page_of_llamactls_api_has_every_path_of_its_instances(noun: ModuleType) -> None:
    page = (CHECKOUT / "docs/llamactl.md").read_text()
    for route in noun.routes.routes:
        if route.include_in_schema:
            (method,) = route.methods
            assert f"`{method} {route.path.replace(':path}', '}')}`" in page


def test_the_page_of_cortexs_api_has_every_path_that_is_served() -> None:
    rows = set(
        re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^`]*)`", (CHECKOUT / "docs/cortex.md").read_text())
    )
    served = {
        (method, route.path.replace(":path}", "}"))
        for router in CORTEX.routers
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert served <= rows
    outside = {path for _, path in rows - served}
    assert outside <= {"/v1/models", "/v1/chat/completions", "/health", "/metrics"}

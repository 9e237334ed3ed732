"""The documentation says what the code does."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
from fastapi.routing import APIRoute

from ostler.api.dialects.base import Dialect
from ostler.api.dialects.bodhi.mounted import BODHI
from ostler.api.dialects.cortex.mounted import CORTEX
from ostler.api.dialects.llamactl.mounted import LLAMACTL
from ostler.api.dialects.ollama.mounted import OLLAMA

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


DIALECT_PAGES: tuple[tuple[Dialect, str, set[str]], ...] = (
    (CORTEX, "cortex.md", {"/v1/models", "/v1/chat/completions", "/health", "/metrics"}),
    (BODHI, "bodhi.md", {"/ostler/v1/predefined", "/ostler/v1/settings"}),
    (LLAMACTL, "llamactl.md", {"/v1/models", "/llama-cpp/{name}/"}),
    (
        OLLAMA,
        "ollama.md",
        {"/", "/api/chat", "/api/generate", "/api/embed", "/api/embeddings", "/ostler/v1/predefined"},
    ),
)
"""Each dialect's page, and the paths that it may name beside its own."""


@pytest.mark.parametrize(("dialect", "page", "others"), DIALECT_PAGES, ids=[row[1] for row in DIALECT_PAGES])
def test_the_page_of_a_dialect_has_every_path_that_is_served(
    dialect: Dialect, page: str, others: set[str]
) -> None:
    text = (CHECKOUT / "docs" / page).read_text()
    rows = set(re.findall(r"`(GET|HEAD|POST|PUT|PATCH|DELETE) (/[^`]*)`", text))
    served = {
        (method, route.path.replace(":path}", "}"))
        for router in dialect.routers
        for route in router.routes
        if isinstance(route, APIRoute) and route.include_in_schema
        for method in route.methods or ()
    }
    assert served <= rows
    assert {path for _, path in rows - served} <= others

"""The API's documentation at /docs, without any call to the outside.

Swagger UI comes from the package `fastapi-offline`; of it only the static files are used. Nothing
is inline, so the page runs under a strict Content-Security-Policy.
"""

from __future__ import annotations

from importlib import resources

from fastapi import APIRouter, Path, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from ostler.api.door import Door, open_to_all
from ostler.core.errors import NotFound

routes = APIRouter(include_in_schema=False, route_class=Door)

DOCS_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_ASSETS = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}

_RUNNING = "Ostler is running"

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Ostler API</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="docs/favicon.png">
</head>
<body>
<div id="api"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""

_START = """SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#api",
  deepLinking: true,
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: false,
  validatorUrl: null,
});
"""


@routes.head("/", **open_to_all())
async def running() -> Response:
    """Clients of Ollama's API look here whether somebody answers."""
    return Response(_RUNNING, media_type="text/plain")


@routes.get("/", **open_to_all())
async def root(request: Request) -> Response:
    """There is no page of its own yet: a browser is led on, others hear that somebody is here."""
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse("docs", 307)
    return Response(_RUNNING, media_type="text/plain")


@routes.get("/docs", **open_to_all())
async def docs() -> Response:
    """The reference, made from /openapi.json in the browser."""
    return HTMLResponse(_PAGE, headers={"Content-Security-Policy": DOCS_CSP})


@routes.get("/docs/{name}", **open_to_all())
async def asset(name: str = Path(max_length=50)) -> Response:
    """A file that the page loads."""
    if name == "start.js":
        return Response(_START, media_type="text/javascript", headers={"Cache-Control": "max-age=3600"})
    if name not in _ASSETS:
        raise NotFound(f"there is no file {name!r} here")
    content = (resources.files("fastapi_offline") / "static" / name).read_bytes()
    return Response(content, media_type=_ASSETS[name], headers={"Cache-Control": "max-age=86400"})

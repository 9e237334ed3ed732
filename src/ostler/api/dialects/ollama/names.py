"""Names as Ollama's users write them, and the models that they mean.

`demo` and `demo:latest` are one name; upper and lower case do not matter where only one model can be meant;
`hf.co/org/repo:Q4` is a repo of the hub.
"""

from __future__ import annotations

from collections.abc import Iterable

from ostler.access.names import may_use
from ostler.api.dialects.ollama.errors import ModelMissing
from ostler.api.services import Services
from ostler.core.errors import InvalidField
from ostler.core.principals import Principal
from ostler.hub.errors import BadSpec
from ostler.hub.specs import parse_spec
from ostler.library.finding import choose_by_repo
from ostler.models.automatic import AutomaticModel
from ostler.models.records import Model
from ostler.models.sources import source_of

LATEST = ":latest"
MAX_NAME = 512
HUB = ("hf.co/", "huggingface.co/", "www.huggingface.co/")
LIBRARY = ("registry.ollama.ai/library/", "registry.ollama.ai/", "library/")


def check(name: str) -> str:
    """The name, if it can be one. Raises InvalidField."""
    if not name.strip():
        raise InvalidField("model", "model is required", hint="See what there is: GET /api/tags")
    if len(name) > MAX_NAME:
        raise InvalidField("model", f"a model's name has at most {MAX_NAME} characters")
    return name.strip()


def own_name(name: str) -> str:
    """The name that a new model gets: `demo:latest` is `demo`."""
    return _bare(check(name))


def on_hub(name: str) -> str | None:
    """The spec of a repo of the hub, where the name can be one: it has an owner."""
    plain = _bare(name)
    return plain if "/" in plain else None


async def find(rooms: Services, name: str) -> Model | None:
    """The model that a name means; one that lies in a cache and is not stored yet has the id 0."""
    for candidate in _spellings(check(name)):
        if (model := rooms.models.find(candidate)) is not None and not model.archived:
            return model
    if (model := _in_another_case(rooms.models.all(), name)) is not None:
        return model
    found = await _in_a_cache(rooms, name)
    return found.as_model(rooms.node) if found else None


async def named(rooms: Services, name: str, principal: Principal) -> Model:
    """The model that a name means and that this principal may use. Raises ModelMissing, InvalidField."""
    model = await find(rooms, name)
    if model is None or not may_use(principal, *model.listed_as):
        raise missing(rooms, name, principal)
    return model


async def stored(rooms: Services, name: str, principal: Principal) -> Model:
    """As `named`, and made a stored model now where it was none."""
    model = await named(rooms, name, principal)
    return model if model.id else await rooms.automatic.adopt(model.name, principal)


async def served_name(rooms: Services, name: str, principal: Principal) -> str:
    """The name under which the gateway finds what is meant, an upstream's model too. Raises ModelMissing."""
    model = await find(rooms, name)
    if model is not None:
        return model.name
    for candidate in _spellings(check(name)):
        if rooms.pools.find(candidate) is not None:
            return candidate
    raise missing(rooms, name, principal)


def missing(rooms: Services, name: str, principal: Principal) -> ModelMissing:
    """There is no such model, with those that look like it and that this principal may see."""
    near = []
    for other in (*rooms.models.near(_bare(name)), *rooms.automatic.near(_bare(name))):
        model = rooms.models.find(other)
        names = (other,) if model is None else model.listed_as
        if not (model and model.archived) and may_use(principal, *names) and other not in near:
            near.append(other)
    hint = f"Did you mean {' or '.join(near)}?" if near else "Try pulling it first: hf.co/org/repo:Q4_K_M"
    return ModelMissing(f"model '{name[:200]}' not found", hint=hint, model=name[:200], near=near)


async def _in_a_cache(rooms: Services, name: str) -> AutomaticModel | None:
    """What lies in a cache of the hub by that name, or by what a pull of that name would have fetched."""
    spec = on_hub(name)
    if spec is None:
        return None
    if (found := await rooms.automatic.find(spec)) is not None:
        return found
    try:
        wanted = source_of(parse_spec(spec))
    except BadSpec:
        return None
    of_repo = [
        model
        for model in await rooms.automatic.list(with_used=True)
        if (model.file_set.repo or "").lower() == (wanted.repo or "").lower()
    ]
    files = choose_by_repo(
        (model.file_set for model in of_repo), file=wanted.file, tag=wanted.tag, revision=wanted.revision
    )
    return next((model for model in of_repo if model.file_set is files), None)


def _plain(name: str) -> str:
    for prefix in ("https://", "http://", *HUB, *LIBRARY):
        if name.lower().startswith(prefix):
            name = name[len(prefix) :]
    return name


def _bare(name: str) -> str:
    plain = _plain(name)
    return plain[: -len(LATEST)] if plain.lower().endswith(LATEST) else plain


def _spellings(name: str) -> Iterable[str]:
    plain = _plain(name)
    bare = _bare(name)
    return dict.fromkeys((name, plain, bare, f"{bare}{LATEST}"))


def _in_another_case(models: Iterable[Model], name: str) -> Model | None:
    wanted = {spelling.lower() for spelling in _spellings(name)}
    found = [m for m in models if not m.archived and any(own.lower() in wanted for own in m.names)]
    return found[0] if len(found) == 1 else None

"""What the gateway asks of other rooms: exactly this, and nothing more."""

from __future__ import annotations

import builtins
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Protocol

from ostler.core.errors import OstlerError
from ostler.core.principals import Principal
from ostler.instances.keep_alive import KeepAlive
from ostler.models.automatic import AutomaticModel
from ostler.models.records import Model
from ostler.upstreams.pools import ExternalModel
from ostler.usage import RequestRecord

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


class Doorkeeper(Protocol):
    """Who knows keys, people and the rules for this machine (access)."""

    def admit(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        method: str = "GET",
        peer: str | None = None,
        *,
        trust_origin: bool = False,
    ) -> Principal:
        """Who is asking; with `trust_origin` also pages of ours by their session. Raises Unauthenticated,
        NotAllowed."""

    def may_read(self, origin: str) -> bool:
        """True for a page that may read what its session may ask."""

    @property
    def has_foreign_keys(self) -> bool:
        """True while there are keys of another system of which only a slow hash is known."""

    async def recognise(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Before `admit`, where `has_foreign_keys`."""


class Ticket(Protocol):
    """One admitted request."""

    def begin_stream(self) -> None:
        """Its answer will be a stream. Raises RateLimited."""

    def spend(self, tokens: int) -> None:
        """So many tokens were used by it."""

    def release(self) -> None:
        """It is over."""


class RequestLimits(Protocol):
    """Who counts requests per key (access)."""

    def admit(self, principal: Principal) -> Ticket:
        """Let one in. Raises RateLimited."""


class ModelNames(Protocol):
    """Who knows the models (models)."""

    @property
    def find(self) -> Callable[[str], Model | None]:
        """The model with this name or alias."""

    @property
    def near(self) -> Callable[[str], list[str]]:
        """Names that look like this one."""

    @property
    def all(self) -> Callable[[], list[Model]]:
        """Every model, by name."""


class AutomaticNames(Protocol):
    """Who knows the models that are there because their files are (models)."""

    async def list(self) -> list[AutomaticModel]:
        """Every one by name."""

    async def find(self, name: str) -> AutomaticModel | None:
        """The one of that name."""

    async def adopt(self, name: str, principal: Principal) -> Model:
        """Make a stored model of it. Raises ModelNotFound."""

    def near(self, name: str) -> builtins.list[str]:
        """Names that look like this one."""


class Destination(Protocol):
    """Where one request may be sent."""

    @property
    def engine(self) -> str:
        """Which program it is: `llamacpp`, `vllm`."""

    @property
    def base_url(self) -> str:
        """Where its engine listens, without a slash at the end."""

    @property
    def api_key(self) -> str | None:
        """The engine's internal key; never shown to a client."""

    @property
    def served_name(self) -> str | None:
        """What the engine calls its model in every answer; None where that is what was asked for."""


class Lease(Destination, Protocol):
    """The right to send one request to one running engine of ours."""

    @property
    def instance_id(self) -> int:
        """Which instance it is."""

    def keep_alive(self, wish: KeepAlive) -> None:
        """How long the client wants the model to stay after this request."""

    def release(self, *, broken: bool = False, is_use: bool = True) -> None:
        """The request is over; `broken` when the engine could not be reached or broke off.

        `is_use`: the model was used by it, not only looked at.
        """


class SeenInstance(Protocol):
    """What the model list says about an instance."""

    @property
    def state(self) -> str:
        """`running`, `stopped`, ..."""

    @property
    def context_length(self) -> int | None:
        """Tokens that one request may have now; None where nothing runs."""


class EngineLeases(Protocol):
    """Who hands out leases (instances)."""

    def try_lease(self, model_id: int) -> Lease | None:
        """A lease if the model runs right now."""

    async def lease(
        self, model_id: int, *, principal: Principal, timeout_s: float, is_batch: bool = False
    ) -> Lease:
        """Wait until it runs, starting it where the policy allows. Raises Busy, EngineError, ...

        `is_batch`: a start for it may come after those of others.
        """

    async def context_length(self, model_id: int) -> int | None:
        """The tokens that one request to its running engine may have; None where nobody says."""

    def view(self, model_id: int) -> SeenInstance:
        """What is known of its instance; one that never ran is stopped."""


class Address(Protocol):
    """A request of another system's API that names its model in its path, and goes to the engine as it is."""

    @property
    def model(self) -> str:
        """The name of the model that is meant."""

    @property
    def engine_path(self) -> str:
        """The path for the engine, clean and quoted."""

    @property
    def may_start(self) -> bool:
        """May it start the model?"""

    @property
    def is_look(self) -> bool:
        """Does it only look how the engine is?"""

    def let_in(self, principal: Principal) -> None:
        """Raise an error unless this one may ask it."""

    def expect(self, model: Model) -> None:
        """Raise an error unless the path is one for this model."""

    def tell(self, error: OstlerError) -> tuple[int, bytes]:
        """The status and the body that tell the client what went wrong."""


class Addresses(Protocol):
    """Who reads such paths."""

    def read(self, scope: Scope) -> Address | None:
        """What an HTTP request's path means; None where it names no model."""


class Accounts(Protocol):
    """Who keeps what was counted (usage)."""

    def record(self, record: RequestRecord) -> None:
        """Take one record, without waiting and without raising."""


class Translation(Protocol):
    """One request of another system's API, on its way to an engine and back.

    Its pieces are whole messages of that API as they go to the client: lines, or server-sent events.
    """

    @property
    def model(self) -> str:
        """The name of the model that is meant, as Ostler knows it."""

    @property
    def wants_stream(self) -> bool:
        """Does the client want the answer piece by piece?"""

    @property
    def media_type(self) -> bytes:
        """What the answer is."""

    @property
    def keep_alive(self) -> Any:
        """The client's wish how long the model should stay, as it was sent; None where it has none."""

    async def without_engine(self, model: Model | ExternalModel, principal: Principal) -> bytes | None:
        """The whole answer, where the request is not for an engine. Raises NotAllowed and the like."""

    def call(
        self, model: Model | ExternalModel, engine: str, context_length: int | None
    ) -> tuple[str, dict[str, Any]] | None:
        """With a lease: the path and the body that the engine gets, None where it is asked for nothing.

        Raises InvalidField for what this engine cannot do.
        """

    def event(self, data: bytes) -> list[bytes]:
        """The pieces that the data of one event of the engine's stream make. Raises EngineError."""

    def end(self, body: bytes = b"") -> bytes:
        """The last piece, or the whole answer where no stream is wanted. `body`: what an engine answered
        that sent no stream. Raises EngineError.
        """

    def framed(self, message: bytes) -> bytes:
        """A message (an error, say) as a piece of this answer."""


class Translator(Protocol):
    """One path of another system's API, whose requests engines answer."""

    @property
    def scope(self) -> str:
        """Which kind of inference it is (`principals.SCOPES`)."""

    async def read(
        self, body: Mapping[str, Any], accept: str, principal: Principal, began: float
    ) -> Translation:
        """Understand a request; `began` is monotonic. Raises Invalid, ModelNotFound."""

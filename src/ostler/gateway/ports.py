"""What the gateway asks of other rooms: exactly this, and nothing more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, Protocol

from ostler.core.principals import Principal
from ostler.instances.keep_alive import KeepAlive
from ostler.models.records import Model
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


class Lease(Destination, Protocol):
    """The right to send one request to one running engine of ours."""

    @property
    def instance_id(self) -> int:
        """Which instance it is."""

    def keep_alive(self, wish: KeepAlive) -> None:
        """How long the client wants the model to stay after this request."""

    def release(self, *, broken: bool = False) -> None:
        """The request is over; `broken` when the engine could not be reached or broke off."""


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

    def view(self, model_id: int) -> SeenInstance:
        """What is known of its instance; one that never ran is stopped."""


class Accounts(Protocol):
    """Who keeps what was counted (usage)."""

    def record(self, record: RequestRecord) -> None:
        """Take one record, without waiting and without raising."""

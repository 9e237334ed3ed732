"""Gateway: the hot path between a client and an engine.

A plain ASGI application in front of the API on the same port. It takes `/v1/*` and hands everything
else to the inner application. For each request it asks who is there (access), which model is meant
(models) and where it runs (instances), sends the same bytes to the engine and the engine's bytes back
as they come, and writes down what it cost (usage). No framework, no queries and no rules about models,
keys or engines in here: those belong to their rooms; `ports.py` says exactly what is asked of them.
Start reading at `app.py`, then `forward.py`.
"""

from ostler.gateway.app import Gateway
from ostler.gateway.metrics import GatewayMetrics

__all__ = ["Gateway", "GatewayMetrics"]

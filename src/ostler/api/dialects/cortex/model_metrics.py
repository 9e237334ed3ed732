"""The numbers of each model that is not stopped, for the system monitor."""

from __future__ import annotations

from typing import Any

from ostler.api.dialects.cortex.door import router
from ostler.api.door import needs
from ostler.api.services import Rooms, Services
from ostler.core.principals import Role
from ostler.usage.engine_numbers import EngineNumbers

routes = router("model metrics")


@routes.get("/admin/models/metrics", **needs(Role.ADMIN))
async def list_model_metrics(rooms: Rooms) -> list[dict[str, Any]]:
    """Both engines' numbers. Cache use is a share from 0 to 1, as Cortex's pages expect it."""
    return [_item(rooms, one) for one in await rooms.numbers.read(rooms.instances.views())]


def _item(rooms: Services, one: EngineNumbers) -> dict[str, Any]:
    model = rooms.models.find(one.model_name)
    cortex = model.dialect_data.get("cortex") if model is not None else None
    title = cortex.get("name") if isinstance(cortex, dict) else None
    return {
        "model_id": one.model_id,
        "model_name": title or one.model_name,
        "served_name": one.model_name,
        "engine_type": one.engine,
        "status": one.state.value,
        "error": one.error,
        "num_requests_running": one.requests_running,
        "num_requests_waiting": one.requests_waiting,
        "num_requests_swapped": one.requests_swapped,
        "prompt_tokens_total": one.prompt_tokens_total,
        "generation_tokens_total": one.generation_tokens_total,
        "prompt_tokens_per_sec": one.prompt_tokens_per_second,
        "generation_tokens_per_sec": one.generation_tokens_per_second,
        "time_to_first_token_p50_ms": _ms(one.first_token_p50_s),
        "time_to_first_token_p95_ms": _ms(one.first_token_p95_s),
        "request_latency_p50_ms": _ms(one.request_p50_s),
        "request_latency_p95_ms": _ms(one.request_p95_s),
        "gpu_cache_usage_pct": one.kv_cache_usage_ratio,
        "cpu_cache_usage_pct": one.cpu_kv_cache_usage_ratio,
        "memory_bytes": one.memory_bytes,
    }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000

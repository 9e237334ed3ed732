"""Cortex's usage: filters, sums, series, quantiles and the export."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import insert

from ostler.core.principals import Role
from ostler.usage.tables import RequestRow
from tests.api.conftest import Api
from tests.api.dialects.cortex.shapes import envelope

NOW = datetime.now(UTC)
PATHS = (
    "/admin/usage",
    "/admin/usage/aggregate",
    "/admin/usage/series",
    "/admin/usage/latency",
    "/admin/usage/ttft",
    "/admin/usage/export",
)


async def put(api: Api, *rows: dict[str, Any]) -> None:
    whole = {
        "at": NOW, "model_id": 1, "model_name": "tiny", "instance_id": 1, "key_id": 3, "user_id": 4,
        "org_id": 5, "principal": "ci", "path": "/v1/chat/completions", "status": 200, "streamed": False,
        "prompt_tokens": 3, "completion_tokens": 4, "first_token_s": None, "duration_s": 0.5, "error": None,
        "request_id": "mine-7",
    }  # fmt: skip
    async with api.services.database.write() as session:
        await session.execute(insert(RequestRow), [{**whole, **row} for row in rows])


@pytest.fixture
async def used(api: Api) -> Api:
    await put(
        api,
        {},
        {"path": "/v1/embeddings", "model_name": "emb", "key_id": 9, "duration_s": 1.5},
        {"status": 503, "error": "gone", "duration_s": 30.0, "prompt_tokens": None, "user_id": 6},
        {"at": NOW - timedelta(hours=30), "org_id": 7, "streamed": True, "first_token_s": 0.25},
    )
    return api


async def names(api: Api, **query: Any) -> list[int]:
    answer = await api.get("//admin/usage", **query)
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()]


async def test_requests_are_listed_with_every_field_newest_first(used: Api) -> None:
    first = (await used.get("//admin/usage", status="5xx")).json()[0]
    assert first == {
        "id": 3, "key_id": 3, "user_id": 6, "org_id": 5, "model_name": "tiny", "task": "generate",
        "prompt_tokens": 0, "completion_tokens": 4, "total_tokens": 4, "latency_ms": 30000,
        "status_code": 503, "req_id": "mine-7", "created_at": pytest.approx(NOW.timestamp()),
    }  # fmt: skip
    assert await names(used) == [3, 2, 1, 4]


async def test_every_filter_leaves_out_what_is_not_meant(used: Api) -> None:
    assert await names(used, hours=24) == [3, 2, 1]
    assert await names(used, model="emb") == await names(used, task="embeddings") == [2]
    assert await names(used, task="embed") == await names(used, key_id=9) == [2]
    assert await names(used, task="chat") == await names(used, task="generate") == [3, 1, 4]
    assert await names(used, user_id=6) == await names(used, status="503") == [3]
    assert await names(used, org_id=7) == [4]
    assert await names(used, status="2xx") == [2, 1, 4]
    assert await names(used, limit=1, offset=1) == [2]
    assert await names(used, limit=10**30) == [3, 2, 1, 4]
    for query in ({"status": "many"}, {"task": "dance"}, {"key_id": 0}, {"hours": "x"}, {"key_id": 10**20}):
        assert (await used.get("//admin/usage", **query)).status_code == 422, query


async def test_sums_quantiles_and_series_are_true(used: Api) -> None:
    aggregate = (await used.get("//admin/usage/aggregate")).json()
    assert aggregate[0] == {
        "model_name": "tiny", "requests": 2, "prompt_tokens": 3, "completion_tokens": 8, "total_tokens": 11,
    }  # fmt: skip
    latency = (await used.get("//admin/usage/latency")).json()
    assert latency == {
        "p50_ms": pytest.approx(1000), "p95_ms": pytest.approx(1450), "avg_ms": 1000, "samples": 2,
    }  # fmt: skip
    ttft = (await used.get("//admin/usage/ttft", hours=48)).json()
    assert ttft == {"p50_s": 0.25, "p95_s": 0.25, "samples": 1}
    assert (await used.get("//admin/usage/ttft")).json()["samples"] == 0
    for bucket, least in (("minute", 24 * 60), ("hour", 24), ("day", 2)):
        series = (await used.get("//admin/usage/series", bucket=bucket)).json()
        assert len(series) in (least, least + 1) and sum(point["requests"] for point in series) == 3
        assert [point["ts"] for point in series] == sorted(point["ts"] for point in series)
    week = (await used.get("//admin/usage/series", bucket="day", hours=168)).json()
    assert sum(point["total_tokens"] for point in week) == 25
    envelope(await used.get("//admin/usage/series", bucket="year"), 400, "invalid_bucket")


async def test_the_export_is_csv_that_no_spreadsheet_takes_for_a_formula(used: Api) -> None:
    await put(used, {"model_name": '=cmd("x"),a', "at": NOW})
    answer = await used.get("//admin/usage/export")
    assert answer.headers["content-type"].startswith("text/csv")
    assert "usage_export.csv" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["id"] for row in rows] == ["5", "4", "3", "2", "1"]
    assert rows[0]["model"] == '\'=cmd("x"),a' and rows[3]["task"] == "embed"
    assert list(rows[0]) == [
        "id", "created_at", "key_id", "model", "task", "prompt_tokens", "completion_tokens", "total_tokens",
        "latency_ms", "status_code", "req_id",
    ]  # fmt: skip
    assert len((await used.get("//admin/usage/export", status="503")).text.splitlines()) == 2


@pytest.mark.parametrize("path", PATHS)
async def test_usage_is_for_administrators(guarded: Api, path: str) -> None:
    envelope(await guarded.get(f"/{path}"), 401)
    manager = await guarded.as_role(Role.MANAGER)
    envelope(await guarded("GET", f"/{path}", headers=manager), 403, "forbidden")
    admin = await guarded.as_role(Role.ADMIN)
    assert (await guarded("GET", f"/{path}", headers=admin)).status_code == 200


async def test_the_native_api_tells_the_same(used: Api) -> None:
    latency = (await used.get("/usage/latency", status=200)).json()
    assert latency["request"]["samples"] == 3 and latency["first_token"]["p95_s"] == 0.25
    series = (await used.get("/usage/series", bucket="day", model="tiny")).json()
    assert sum(point["requests"] for point in series["points"]) == 3
    assert (await used.get("/usage", by="model", task="embed")).json()["total"] == 1
    assert (await used.get("/usage/series", bucket="year")).status_code == 422
    assert (await used.get("/requests", request_id="mine-7")).json()["total"] == 4
    assert (await used.get("/requests", request_id="other")).json()["total"] == 0

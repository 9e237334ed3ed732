"""Servers elsewhere over HTTP."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.api.conftest import Api, problem


async def test_a_model_elsewhere_is_entered_listed_and_taken_out(api: Api, demo_model: Path) -> None:
    body = {"name": "org/big:Q4", "url": "http://gpu-1:8000/v1/", "engine": "vllm"}
    made = await api.post("/upstreams/models", body)
    assert made.status_code == 201 and made.json()["url"] == "http://gpu-1:8000"
    problem(await api.post("/upstreams/models", body), 409, "external_name_taken")
    await api.model(demo_model, "mine")
    problem(await api.post("/upstreams/models", {**body, "name": "mine"}), 409)
    listed = (await api.get("/upstreams")).json()["items"]
    assert [(one["url"], one["models"], one["breaker"]) for one in listed] == [
        ("http://gpu-1:8000", ["org/big:Q4"], "closed")
    ]
    await api.services.externals.start()
    assert (await api.get("/upstreams/models")).json()["total"] == 1
    assert (await api("DELETE", "/upstreams/models/org/big:Q4")).status_code == 200
    problem(await api("DELETE", "/upstreams/models/org/big:Q4"), 404)
    assert (await api.get("/upstreams")).json()["items"] == []


@pytest.mark.parametrize(
    "change",
    [
        {"url": "gpu-1:8000"},
        {"url": "file:///etc/passwd"},
        {"url": "http://user:pass@gpu-1"},
        {"url": "http://gpu-1:0"},
        {"url": "http://gpu 1"},
        {"url": "http://gpu-1:99999"},
        {"task": "dance"},
        {"name": "a "},
        {"name": "../up"},
    ],
)
async def test_what_cannot_be_an_upstream_is_refused(api: Api, change: dict[str, str]) -> None:
    body = {"name": "big", "url": "http://gpu-1:8000", "engine": "llamacpp", **change}
    problem(await api.post("/upstreams/models", body), 422)

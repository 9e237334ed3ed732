from __future__ import annotations

from prometheus_client import generate_latest

from tests.gateway.conftest import Seen, Stand

CHAT = "/v1/chat/completions"


async def test_what_happened_can_be_scraped(stand: Stand) -> None:
    async def reply(seen: Seen) -> None:
        await seen.start(content_type="text/event-stream")
        await seen.end(b'data: {"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n')

    stand.engine.reply = reply
    await stand.post(CHAT, '{"model":"demo","stream":true}')
    await stand.post(CHAT, '{"model":"nobody"}')
    text = generate_latest(stand.registry).decode()
    for line in (
        'gateway_requests_total{route="/v1/chat/completions",status="200"} 1.0',
        'gateway_request_latency_seconds_count{route="/v1/chat/completions"} 2.0',
        'gateway_request_latency_seconds_bucket{le="+Inf",route="/v1/chat/completions"} 2.0',
        'gateway_upstream_latency_seconds_count{path="/v1/chat/completions"} 1.0',
        'gateway_stream_ttft_seconds_count{path="/v1/chat/completions"} 1.0',
        'gateway_requests_blocked_total{reason="model_not_found"} 1.0',
        'ostler_tokens_total{kind="completion",model="demo"} 4.0',
        "ostler_requests_in_flight 0.0",
    ):
        assert line in text.splitlines(), text


async def test_made_up_paths_and_models_make_no_new_series(stand: Stand) -> None:
    await stand.post(CHAT, '{"model":"demo"}')
    for number in range(5):
        await stand.post(f"/v1/made/up/{number}", '{"model":"demo"}')
        await stand.post(CHAT, f'{{"model":"made-up-{number}"}}')
    text = generate_latest(stand.registry).decode()
    assert "made" not in text
    assert 'gateway_requests_total{route="other",status="200"} 5.0' in text

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


async def test_the_door_and_the_engines_are_counted_by_what_happened(stand: Stand) -> None:
    await stand.post(CHAT, '{"model":"demo"}')

    async def fail(seen: Seen) -> None:
        await seen.json(b"{}", 500)

    stand.engine.reply = fail
    await stand.post(CHAT, '{"model":"demo"}')
    await stand.post(CHAT, '{"model":"demo"}', host="evil.example")
    lines = generate_latest(stand.registry).decode().splitlines()
    where = f'{{base_url="{stand.engine.url}",path="{CHAT}"}}'
    for line in (
        f"gateway_upstream_selected_total{where} 2.0",
        f"gateway_upstream_success_total{where} 1.0",
        f"gateway_upstream_latency_by_upstream_seconds_count{where} 2.0",
        'gateway_key_auth_allowed_total{reason="local"} 2.0',
        'gateway_key_auth_blocked_total{reason="foreign_host"} 1.0',
        "gateway_stream_blocked_total 0.0",
    ):
        assert line in lines, [found for found in lines if line.split("{")[0] in found]


async def test_series_of_addresses_where_nothing_listens_any_more_are_taken_out(stand: Stand) -> None:
    await stand.post(CHAT, '{"model":"demo"}')
    known = {stand.engine.url}
    stand.metrics.known_urls = lambda: known
    assert stand.engine.url in generate_latest(stand.registry).decode()
    known.clear()
    text = generate_latest(stand.registry).decode()
    assert stand.engine.url not in text
    assert 'gateway_upstream_latency_by_engine_seconds_count{engine_type="llamacpp"' in text


async def test_an_engine_that_says_nothing_is_counted_as_a_timeout(stand: Stand) -> None:
    async def wait(seen: Seen) -> None:
        await seen.until_gone()

    stand.engine.reply = wait
    stand.settings.change(upstream_timeout_s=0.05)
    assert (await stand.post(CHAT, '{"model":"demo"}')).status == 504
    labels = f'error_type="engine_silent",model="demo",path="{CHAT}"'
    assert f"gateway_timeout_errors_total{{{labels}}} 1.0" in generate_latest(stand.registry).decode()

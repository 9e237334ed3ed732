from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ostler.usage import TokenCounts, read_counts

CHAT = (
    b'{"choices":[],"usage":{"completion_tokens":4,"prompt_tokens":5,"total_tokens":9},'
    b'"timings":{"prompt_n":1}}'
)
LLAMA_STREAM = (
    b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
    b'data: {"choices":[],"timings":{"cache_n":3,"prompt_n":1,"prompt_ms":0.6,"predicted_n":7}}\n\n'
    b"data: [DONE]\n\n"
)
ANTHROPIC_HEAD = (
    b'event: message_start\ndata: {"type":"message_start","message":{"usage":'
    b'{"cache_read_input_tokens":3,"input_tokens":1,"output_tokens":0}}}\n\n'
)
ANTHROPIC_TAIL = (
    b'event: message_delta\ndata: {"type":"message_delta","usage":{"output_tokens":2}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)
ANTHROPIC = b'{"type":"message","usage":{"cache_read_input_tokens":3,"input_tokens":1,"output_tokens":2}}'
RESPONSES = (
    b'data: {"response":{"usage":{"input_tokens":4,"output_tokens":2,"input_tokens_details":'
    b'{"cached_tokens":3}}},"timings":{"prompt_n":1,"predicted_n":2}}\n\n'
)
EMBEDDINGS = b'{"data":[{"embedding":[0.1]}],"usage":{"prompt_tokens":8,"total_tokens":8}}'
VLLM = (
    b'data: {"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\ndata: {"usage":null}\n\ndata: [DONE]\n\n'
)


@pytest.mark.parametrize(
    ("tail", "head", "counts"),
    [
        (CHAT, b"", (5, 4)),
        (LLAMA_STREAM, b"", (4, 7)),
        (ANTHROPIC_TAIL, ANTHROPIC_HEAD, (4, 2)),
        (ANTHROPIC_TAIL, ANTHROPIC_HEAD + ANTHROPIC_TAIL, (4, 2)),
        (ANTHROPIC, b"", (4, 2)),
        (RESPONSES, b"", (4, 2)),
        (EMBEDDINGS, b"", (8, None)),
        (VLLM, b"", (1, 2)),
        (CHAT.replace(b":", b" : "), b"", (5, 4)),
    ],
)
def test_counts_are_found_in_every_shape_of_answer(
    tail: bytes, head: bytes, counts: tuple[int | None, int | None]
) -> None:
    assert read_counts(tail, head) == counts
    assert read_counts(b"x" * 100_000 + tail, head) == counts


@pytest.mark.parametrize(
    "said",
    [
        b'{"content":"\\"usage\\":{\\"prompt_tokens\\":1}"}',
        b'{"usage":{"prompt_tokens":-1,"completion_tokens":1.5}}',
        b'{"usage":{"prompt_tokens":true,"completion_tokens":"7"}}',
        b'{"usage":{"prompt_tokens":99999999999999}}',
        b'{"usage":{"prompt_tok',
        b'{"usage":' + b"[" * 5000,
        b"",
        b"data: [DONE]\n\n",
    ],
)
def test_what_is_no_count_is_not_taken_for_one(said: bytes) -> None:
    assert read_counts(said, said) == TokenCounts(None, None)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_no_answer_makes_the_reader_fail(before: bytes, after: bytes) -> None:
    read_counts(before + b'"usage":{' + after, after + b'"timings" : {' + before)

"""The model of the engine's graph allocator, on graphs small enough to check by hand."""

from __future__ import annotations

from ostler.fit.graph_memory import Graph


def test_a_chain_needs_two_results_at_a_time() -> None:
    graph = Graph(32)
    piece = graph.input(64)
    for _ in range(5):
        piece = graph.op(64, piece)
    assert graph.peak_bytes() == 128


def test_a_step_in_place_needs_nothing_more() -> None:
    graph = Graph(32)
    graph.change(graph.change(graph.input(64)))
    assert graph.peak_bytes() == 64


def test_a_source_that_is_still_needed_is_not_overwritten() -> None:
    graph = Graph(32)
    source = graph.input(64)
    graph.change(graph.change(source), source)
    assert graph.peak_bytes() == 128


def test_what_a_view_shows_is_not_overwritten() -> None:
    graph = Graph(32)
    graph.change(graph.view(graph.input(64)))
    assert graph.peak_bytes() == 128


def test_an_output_is_never_given_back() -> None:
    graph = Graph(32)
    source = graph.input(64)
    kept = graph.op(64, source, kept=True)
    graph.op(64, graph.op(64, kept))
    assert graph.peak_bytes() == 192


def test_a_gap_that_is_too_small_grows_the_buffer() -> None:
    graph = Graph(32)
    small, other = graph.input(32), graph.input(32)
    graph.op(64, graph.op(32, small), other)
    assert graph.peak_bytes() == 3 * 32 + 64


def test_sizes_are_rounded_up_to_the_alignment() -> None:
    graph = Graph(128)
    graph.input(1)
    assert graph.peak_bytes() == 128

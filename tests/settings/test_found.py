"""Joining what sources know."""

from __future__ import annotations

from meshaware.settings.found import Found, first_wins


def test_of_two_sources_that_know_a_field_the_first_is_right() -> None:
    """With its origin; what only one knows is kept."""
    first = {"timeout": Found("1s", "env MESHAWARE_TIMEOUT")}
    second = {"timeout": Found("2s", "file x"), "mesh": Found("istio", "file x")}
    assert first_wins([first, second]) == {
        "timeout": Found("1s", "env MESHAWARE_TIMEOUT"),
        "mesh": Found("istio", "file x"),
    }


def test_no_source_knows_nothing() -> None:
    """The empty case."""
    assert first_wins([]) == {}

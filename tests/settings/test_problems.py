"""A value that cannot be used, in words."""

from __future__ import annotations

import pytest

from meshaware.settings.found import Found
from meshaware.settings.problems import describe, nearest, show


@pytest.mark.parametrize(
    ("origin", "sentence"),
    [
        ("argument", "argument timeout is 'x'; accepted: seconds"),
        ("env MESHAWARE_TIMEOUT", "env MESHAWARE_TIMEOUT is 'x'; accepted: seconds"),
        ("computed from label app", "timeout, computed from label app, is 'x'; accepted: seconds"),
    ],
)
def test_a_problem_names_place_value_and_what_is_accepted(origin: str, sentence: str) -> None:
    """In one line."""
    assert describe("timeout", Found("x", origin), "seconds") == sentence


def test_a_long_value_is_cut() -> None:
    """With its length."""
    assert show("x" * 500) == "'" + "x" * 79 + "... (502 characters)"


def test_a_value_cannot_break_the_line() -> None:
    """It is shown as its repr."""
    assert show("a\nb") == r"'a\nb'"


def test_user_and_password_of_a_url_are_not_shown() -> None:
    """Errors go to logs."""
    assert show("http://user:secret@proxy:3128") == "'http://***@proxy:3128'"


@pytest.mark.parametrize(("name", "guess"), [("isto", "istio"), ("kumma", "kuma"), ("zzz", None), ("", None)])
def test_the_nearest_name_is_guessed_if_one_is_near(name: str, guess: str | None) -> None:
    """No guess is better than a wild one."""
    assert nearest(name, ["istio", "kuma", "linkerd"]) == guess

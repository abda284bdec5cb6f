"""Messages of Envoy's in JSON: read in both spellings, checked, and never trusted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from meshaware.budgets.envoy_json import Message
from meshaware.errors import ConfigDumpError


def message(**fields: Any) -> Message:
    return Message(fields, "route")


def test_fields_are_found_in_snake_and_camel_case() -> None:
    """The admin port writes one, `istioctl` the other."""
    for it in (message(per_try_timeout="1s", name="a"), message(perTryTimeout="1s", name="a")):
        assert it.seconds("per_try_timeout") == 1.0
        assert it.has("timeout", "per_try_timeout", "name") == "per_try_timeout"
        assert it.only("name", "per_try_timeout")
        assert not it.only("name")
    assert message().has("timeout") == ""


def test_what_is_not_there_has_the_default_of_protobuf() -> None:
    """As Envoy leaves it out."""
    it = message(nothing=None)
    assert it.text("name") == ""
    assert it.texts("domains") == ()
    assert it.flag("invert_match") is False
    assert (it.whole("num_retries"), it.whole("num_retries", 1)) == (0, 1)
    assert it.wholes("codes") == ()
    assert it.seconds("timeout") is None
    assert it.message("route") is None
    assert list(it.messages("routes")) == []
    assert list(it.entries("metadata")) == []
    assert it.raw("nothing") is None


def test_what_is_there_is_read() -> None:
    """Numbers of 64 bits are texts; durations have up to nine digits."""
    it = message(
        a="x",
        b=["x", "y"],
        c=True,
        d=3,
        e="-5",
        f=[503, 504],
        g="2.500s",
        h={"i": 1},
        j=[{"k": 2}],
        m={"n": {"o": "p"}},
    )
    assert (it.text("a"), it.texts("b"), it.flag("c"), it.whole("d"), it.whole("e")) == ("x", ("x", "y"), True, 3, -5)
    assert (it.wholes("f"), it.seconds("g")) == ((503, 504), 2.5)
    inner = it.message("h")
    assert inner is not None
    assert (inner.path, inner.whole("i")) == ("route.h", 1)
    assert [(each.path, each.whole("k")) for each in it.messages("j")] == [("route.j[0]", 2)]
    assert [(key, each.path, each.text("o")) for key, each in it.entries("m")] == [("n", "route.m['n']", "p")]


WRONG: list[tuple[Callable[[Message], Any], Any, str]] = [
    (lambda it: it.text("x"), 5, "route.x: 5: must be text"),
    (lambda it: it.texts("x"), "a", "route.x: 'a': must be a list"),
    (lambda it: it.texts("x"), [1], "route.x: a list: must be texts"),
    (lambda it: it.flag("x"), "true", "route.x: 'true': must be true or false"),
    (lambda it: it.whole("x"), True, "route.x: True: must be a whole number"),
    (lambda it: it.whole("x"), 1.5, "route.x: 1.5: must be a whole number"),
    (lambda it: it.whole("x"), "9" * 100, f"route.x: '{'9' * 79}...: must be a whole number"),
    (lambda it: it.wholes("x"), [True], "route.x: a list: must be whole numbers"),
    (lambda it: it.seconds("x"), 5, "route.x: 5: must be a duration"),
    (lambda it: it.seconds("x"), "-5s", "route.x: '-5s': must be a duration such as \"2.500s\""),
    (lambda it: it.message("x"), "a", "route.x: 'a': must be an object"),
    (lambda it: list(it.messages("x")), {}, "route.x: an object: must be a list"),
    (lambda it: list(it.messages("x")), [1], "route.x[0]: 1: must be an object"),
    (lambda it: list(it.entries("x")), {"a": 1}, "route.x['a']: 1: must be an object"),
]


@pytest.mark.parametrize(("read", "value", "said"), WRONG)
def test_anything_else_is_no_reply_of_envoys(read: Callable[[Message], Any], value: Any, said: str) -> None:
    """The error names the place and the value, bounded."""
    with pytest.raises(ConfigDumpError) as raised:
        read(message(x=value))
    assert str(raised.value) == said

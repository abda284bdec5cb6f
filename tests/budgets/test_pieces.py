"""JSON read piece by piece says what `json.loads` says, however small the pieces are."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.budgets.pieces import Cursor
from meshaware.errors import ConfigDumpError

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
_DEPTH = 3


def walked(cursor: Cursor, depth: int = _DEPTH) -> Any:
    """Read a value by walking through it, some way down."""
    stands = cursor.peek()
    if depth and stands == "{":
        return {name: walked(cursor, depth - 1) for name in cursor.members()}
    if depth and stands == "[":
        return [walked(cursor, depth - 1) for _ in cursor.elements()] if depth % 2 else list(cursor.values())
    return cursor.value()


def read(data: bytes | str, window: int) -> Any:
    cursor = Cursor(data, window=window)
    value = walked(cursor)
    cursor.finish()
    return value


@given(_JSON, st.sampled_from([None, 1]), st.booleans(), st.integers(1, 40))
def test_a_document_says_the_same_in_pieces_of_any_size(
    value: Any, indent: int | None, as_text: bool, window: int
) -> None:
    """Numbers, escapes and characters of several bytes may be cut in two."""
    text = json.dumps(value, indent=indent, ensure_ascii=as_text)
    assert read(text if as_text else text.encode(), window) == value


@given(_JSON, st.integers(0, 200), st.integers(1, 40))
def test_a_document_that_is_cut_off_is_never_taken_for_a_whole_one(value: Any, at: int, window: int) -> None:
    """Unless what is left is JSON too, as of a number."""
    text = json.dumps(value)[:at]
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ConfigDumpError, match=r"is cut off|is not JSON"):
            read(text, window)
    else:
        assert read(text, window) == expected


@given(st.text(alphabet='{}[]",:0123456789.eE+-truefalsn\\ \n', max_size=60), st.integers(1, 20))
def test_anything_else_is_refused_where_json_refuses_it(text: str, window: int) -> None:
    """No more and no less is JSON."""
    expected: list[Any] = []
    with contextlib.suppress(ValueError):
        expected.append(json.loads(text))
    found: list[Any] = []
    with contextlib.suppress(ConfigDumpError):
        found.append(read(text, window))
    assert repr(found) == repr(expected)


@pytest.mark.parametrize("window", [1, 7, 1 << 18])
def test_an_error_names_the_line_of_the_whole_document(window: int) -> None:
    """Wherever the pieces end."""
    text = '{\n"configs": [\n1,\n2,\n3 4]}'
    with pytest.raises(ConfigDumpError, match=r"Expecting ',' or ']' at line 5; begins '\{\\n"):
        read(text, window)
    with pytest.raises(ConfigDumpError, match=r"is cut off after 21 bytes, at line 5"):
        read(text[:21], window)
    with pytest.raises(ConfigDumpError, match="is not UTF-8: byte 9"):
        read(b'["aaaaaa"\xff]', window)


def test_a_value_can_be_skipped() -> None:
    """With all that is in it."""
    cursor = Cursor('{"a": [1, {"b": []}], "c": "d", "e": 5}', window=3)
    names: list[str] = []
    for name in cursor.members():
        names.append(name)
        cursor.skip()
    cursor.finish()
    assert names == ["a", "c", "e"]

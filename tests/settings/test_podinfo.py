"""The text of downward-API files."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.settings.podinfo import BadLine, parse_pairs, unquote

_KEYS = st.from_regex(r"[a-z0-9./_-]{1,40}", fullmatch=True)
_VALUES = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.mark.parametrize(
    ("quoted", "value"),
    [
        ('""', ""),
        ('"shop"', "shop"),
        (r'"a \"b\" c"', 'a "b" c'),
        (r'"back\\slash"', "back\\slash"),
        (r'"\a\b\f\n\r\t\v"', "\a\b\f\n\r\t\v"),  # \a and \v are no JSON
        (r'"\x00\x7f"', "\x00\x7f"),
        (r'"\101\060"', "A0"),
        (r'"\u00e4\u2028"', "ä\u2028"),
        (r'"\U0001f600"', "😀"),
        ('"ä 😀"', "ä 😀"),
        (r'"\xc3\xa4"', "ä"),  # bytes, which together are a character
        (r'"\xff\377"', "\ufffd\ufffd"),  # bytes that are none
        ('"{\\"containers\\":[\\"istio-proxy\\"]}"', '{"containers":["istio-proxy"]}'),
        ('"it\'s"', "it's"),
    ],
)
def test_a_go_string_is_read_as_go_reads_it(quoted: str, value: str) -> None:
    """Every escape of Go's specification."""
    assert unquote(quoted) == value


@pytest.mark.parametrize(
    "quoted",
    [
        "",
        '"',
        "shop",
        "'shop'",
        '"shop',
        'shop"',
        '"a"b"',
        '"a\nb"',
        r'"\q"',
        r'"\'"',  # only in single quotes
        r'"\x1"',
        r'"\400"',  # more than a byte
        r'"\18"',
        r'"\u12"',
        r'"\ud800"',  # half a character
        r'"\U00110000"',  # beyond Unicode
        r'"\U0011000"',
        '"\\',
        '"abc\\"',  # the closing quote is escaped
    ],
)
def test_what_go_would_not_write_is_refused(quoted: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError):
        unquote(quoted)


@given(_VALUES)
def test_every_value_that_go_quotes_is_read_back(go_quote: Callable[[str], str], value: str) -> None:
    """`unquote` is the inverse of Go's `%q`."""
    assert unquote(go_quote(value)) == value


@given(st.dictionaries(_KEYS, _VALUES))
def test_every_map_that_the_kubelet_writes_is_read_back(
    kubelet_lines: Callable[[Mapping[str, str]], str], pairs: dict[str, str]
) -> None:
    """Labels and annotations of any content."""
    assert parse_pairs(kubelet_lines(pairs)) == (pairs, [])


@given(st.text())
def test_no_text_does_more_than_have_bad_lines(text: str) -> None:
    """Each line is a pair, empty, or reported."""
    pairs, bad = parse_pairs(text)
    lines = [line for line in text.split("\n") if line.strip()]
    assert len(pairs) + len(bad) <= len(lines)
    assert all(line.text == text.split("\n")[line.number - 1] for line in bad)


def test_bad_lines_are_named_and_the_others_kept() -> None:
    """By number, from 1, with their text."""
    text = 'app="shop"\nversion=v1\n\n="x"\nno equals sign\na b="c"\ntier="backend"'
    assert parse_pairs(text) == (
        {"app": "shop", "tier": "backend"},
        [BadLine(2, "version=v1"), BadLine(4, '="x"'), BadLine(5, "no equals sign"), BadLine(6, 'a b="c"')],
    )


def test_a_file_may_end_with_a_newline_or_have_windows_line_ends() -> None:
    """People write such files by hand, for a laptop."""
    assert parse_pairs('app="shop"\r\nversion="v1"\r\n') == ({"app": "shop", "version": "v1"}, [])


def test_of_a_key_that_comes_twice_the_last_line_counts() -> None:
    """As in Istio's own reader."""
    assert parse_pairs('app="a"\napp="b"') == ({"app": "b"}, [])


def test_line_separators_within_a_value_do_not_end_the_line() -> None:
    """Only `\\n` does."""
    assert parse_pairs('note="a\u2028b\x85c"') == ({"note": "a\u2028b\x85c"}, [])

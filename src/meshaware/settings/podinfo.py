r"""
The text of downward-API files: one `key="value"` a line, the value quoted as Go does.

The kubelet writes `labels` and `annotations` with `%v=%q` (`pkg/fieldpath` of Kubernetes). JSON would read
most of it, but not `\x00`, `\a`, `\v` or `\U0001f600`, which Go writes too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

__all__ = ["BadLine", "parse_pairs", "unquote"]

_TOKEN = re.compile(
    rb"""[^"\\\n]+
    |\\(?:(?P<simple>[abfnrtv\\"])|(?P<octal>[0-3][0-7]{2})|x(?P<hex>[0-9a-fA-F]{2})
         |u(?P<short>[0-9a-fA-F]{4})|U(?P<long>[0-9a-fA-F]{8}))""",
    re.VERBOSE,
)
_KEY = re.compile(r"[^\s\"=]+")
_SIMPLE = {b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_MAX_CODE_POINT = 0x10FFFF
_SURROGATES = range(0xD800, 0xE000)


class BadLine(NamedTuple):
    """A line that is not `key="value"`: its number, from 1, and its text."""

    number: int
    text: str


def parse_pairs(text: str) -> tuple[dict[str, str], list[BadLine]]:
    """
    Read a file of labels or annotations; return the pairs, and the lines that are none.

    Of a key that comes twice the last line counts, as in Istio's own reader. Empty lines are skipped.
    """
    pairs: dict[str, str] = {}
    bad: list[BadLine] = []
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped:
            continue
        key, _, quoted = stripped.partition("=")
        try:
            value = unquote(quoted)
        except ValueError:
            bad.append(BadLine(number, line))
            continue
        if _KEY.fullmatch(key):
            pairs[key] = value
        else:
            bad.append(BadLine(number, line))
    return pairs, bad


def unquote(quoted: str) -> str:
    r"""
    Read a Go string literal in double quotes, as `strconv.Unquote` does.

    Bytes that are not UTF-8, which Go writes as `\xff`, become U+FFFD.

    Raises:
        ValueError: It is no such literal: no quotes, an unknown escape, a bare quote or newline within.
    """
    raw = quoted.encode("utf-8", "surrogateescape")
    if len(raw) < len('""') or raw[:1] != b'"' or raw[-1:] != b'"':
        raise ValueError("not in double quotes")
    body, end, pieces = raw[1:-1], 0, list[bytes]()
    while end < len(body):
        token = _TOKEN.match(body, end)
        if token is None:
            raise ValueError(f"not a Go string at byte {end + 1}")
        pieces.append(_unescape(token))
        end = token.end()
    return b"".join(pieces).decode("utf-8", "replace")


def _unescape(token: re.Match[bytes]) -> bytes:
    simple, octal, hexadecimal, short, long = token.groups()
    if simple is not None:
        return _SIMPLE.get(simple, simple)
    if octal is not None:
        return bytes((int(octal, 8),))
    if hexadecimal is not None:
        return bytes((int(hexadecimal, 16),))
    digits = short or long
    if digits is None:
        return token[0]
    code_point = int(digits, 16)
    if code_point > _MAX_CODE_POINT or code_point in _SURROGATES:
        raise ValueError(f"{token[0].decode()} is not a character")
    return chr(code_point).encode()

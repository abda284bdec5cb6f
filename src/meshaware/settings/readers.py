"""
How a field reads its value, be it an argument or the text of a variable.

Each reader takes what it was given and returns what the field holds, or raises a `ValueError` whose message
is what is accepted: the sentence in which `SettingsError` names place and value is made elsewhere.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, cast
from urllib.parse import urlsplit

from meshaware.durations import parse_duration
from meshaware.settings.addresses import parse_loopback
from meshaware.settings.problems import nearest
from meshaware.settings.upstreams import parse_upstream

__all__ = [
    "read_choice",
    "read_count",
    "read_domain",
    "read_flag",
    "read_headers",
    "read_hosts",
    "read_loopback_origin",
    "read_loopback_url",
    "read_path",
    "read_positive_seconds",
    "read_proxy_url",
    "read_routes",
    "read_sampling",
    "read_seconds",
    "read_text",
    "read_upstreams",
    "read_why_not",
    "unpath",
]

_YEAR = 365 * 86_400.0
_MAX_COUNT = 1000
_MAX_TEXT = 1024
_TRUE = frozenset({"true", "1", "yes", "on"})
_FALSE = frozenset({"false", "0", "no", "off"})
_SAMPLING: tuple[Literal["mesh", "always"], ...] = ("mesh", "always")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}", re.ASCII)
_HOST = re.compile(r"[^\s/@,]{1,255}(/[0-9]{1,3})?", re.ASCII)
_HOST_AND_PORT = re.compile(r"[^\s/@,]{1,255}")
_DOMAIN = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_RATIO = re.compile(r"\d{0,20}\.?\d{1,20}(?:e-?\d{1,3})?", re.ASCII | re.IGNORECASE)
_PATH = re.compile(r"/[\x21-\x7e]{1,255}")


def read_seconds(value: object) -> float:
    """Seconds as a number, or a duration; from 0 to a year."""
    accepted = 'a duration such as "250ms", "1.5s" or "1h30m", or a number of seconds; at most a year'
    return _seconds(value, accepted)


def read_positive_seconds(value: object) -> float:
    """As `read_seconds`, but not 0, which could mean "at once" as well as "never"."""
    accepted = (
        'a duration such as "250ms", "1.5s" or "1h30m", or a number of seconds; more than 0, at most a year; '
        "leave it out for the built-in default"
    )
    seconds = _seconds(value, accepted)
    if seconds == 0:
        raise ValueError(accepted)
    return seconds


def read_count(value: object) -> int:
    """A whole number from 0 to 1000."""
    accepted = f"a whole number from 0 to {_MAX_COUNT}"
    if isinstance(value, str) and value.strip().isascii() and value.strip().isdigit():
        value = int(value) if len(value.strip()) <= len(str(_MAX_COUNT)) else -1
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_COUNT:
        raise ValueError(accepted)
    return value


def read_flag(value: object) -> bool:
    """Yes or no."""
    if isinstance(value, bool):
        return value
    text = value.strip().lower() if isinstance(value, str) else ""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise ValueError("true or false (also 1 or 0, yes or no, on or off)")


def read_choice(*choices: str) -> Callable[[object], str]:
    """One of some words, in any case."""

    def read(value: object) -> str:
        text = value.strip().lower() if isinstance(value, str) else ""
        if text in choices:
            return text
        guess = nearest(text, choices)
        raise ValueError(f"{', '.join(choices[:-1])} or {choices[-1]}" + (f" (did you mean {guess}?)" if guess else ""))

    return read


def unpath(value: object) -> object:
    """The text of a `pathlib.Path` or the like; anything else as it is."""
    return os.fspath(cast("os.PathLike[str]", value)) if isinstance(value, os.PathLike) else value


def read_text(value: object) -> str:
    """A name: printable, not empty, on one line."""
    text = value.strip() if isinstance(value, str) else ""
    if not text or len(text) > _MAX_TEXT or not text.isprintable():
        raise ValueError(f"printable text on one line, at most {_MAX_TEXT} characters")
    return text


def read_why_not(value: object) -> str | None:
    """Why something is switched off: any text; `False` and the words for it: it is not, which is None."""
    if value is False or (isinstance(value, str) and value.strip().lower() in _FALSE):
        return None
    return "true" if value is True else read_text(value)


def read_upstreams(value: object) -> tuple[str, ...]:
    """Hosts with their ports."""
    accepted = "upstreams as host:port, such as inventory:8080, comma-separated"
    try:
        return tuple(str(parse_upstream(item)) for item in _items(value, accepted))
    except ValueError:
        raise ValueError(accepted) from None


def read_routes(value: object) -> tuple[str, ...]:
    """Files and directories, and the word `sidecar`."""
    return _items(value, "files or directories, comma-separated, or sidecar")


def read_hosts(value: object) -> tuple[str, ...]:
    """Hosts, suffixes with a leading dot, addresses or networks; `HostPolicy` looks at them more closely."""
    accepted = (
        "hosts, suffixes (.corp.example), addresses or networks (10.0.0.0/8), comma-separated, without scheme or path"
    )
    return _items(value, accepted, _HOST)


def read_headers(value: object) -> tuple[str, ...]:
    """Names of headers or of sets of them."""
    accepted = (
        "names of headers (x-tenant), prefixes (x-shop-*) or sets (w3c, b3, envoy, routing, vendors), comma-separated"
    )
    return _items(value, accepted, _HEADER)


def read_domain(value: object) -> str:
    """A DNS domain, without the dot at its end."""
    text = value.strip().rstrip(".").lower() if isinstance(value, str) else ""
    if not _DOMAIN.fullmatch(text) or ".." in text:
        raise ValueError("a DNS domain such as cluster.local")
    return text


def read_sampling(value: object) -> Literal["mesh", "always"] | float:
    """`mesh`, `always`, or a ratio: a number from 0 to 1, also as text."""
    text = value.strip().lower() if isinstance(value, str) else ""
    for word in _SAMPLING:
        if text == word:
            return word
    if _RATIO.fullmatch(text):
        value = float(text)
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
        guess = nearest(text, _SAMPLING)
        hint = f" (did you mean {guess}?)" if guess else ""
        raise ValueError(f"mesh, always, or a ratio from 0 to 1 such as 0.01, which is one trace in a hundred{hint}")
    return float(value)


def read_path(value: object) -> str:
    """The path of an endpoint of this service."""
    text = value.strip() if isinstance(value, str) else ""
    if not _PATH.fullmatch(text) or "?" in text or "#" in text:
        raise ValueError("a path such as /livez, without a query")
    return text


def read_loopback_url(value: object) -> str:
    """A URL of the proxy, on this host."""
    text = value.strip() if isinstance(value, str) else ""
    parse_loopback(text)
    return text


def read_loopback_origin(value: object) -> str:
    """As `read_loopback_url`, without a path: meshaware adds its own."""
    text = read_loopback_url(value).rstrip("/")
    if parse_loopback(text).target != "/" or "?" in text:
        raise ValueError("a URL such as http://127.0.0.1:15000 without a path: meshaware adds its own")
    return text


def read_proxy_url(value: object) -> str:
    """The address of a proxy: scheme, host and port, nothing else."""
    text = value.strip().rstrip("/") if isinstance(value, str) else ""
    accepted = "http://host:port, without a user, path or query"
    try:
        parts = urlsplit(text)
        complete = bool(parts.hostname) and bool(parts.port)
    except ValueError:
        raise ValueError(accepted) from None
    if not complete or text != f"http://{parts.netloc}" or not _HOST_AND_PORT.fullmatch(parts.netloc):
        raise ValueError(accepted)
    return text


def _seconds(value: object, accepted: str) -> float:
    if isinstance(value, str):
        try:
            value = parse_duration(value, bare_seconds=True)
        except ValueError:
            raise ValueError(accepted) from None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= _YEAR:
        raise ValueError(accepted)
    return float(value)


def _items(value: object, accepted: str, pattern: re.Pattern[str] | None = None) -> tuple[str, ...]:
    if isinstance(value, str):
        items = [item.strip() for item in value.split(",")]
        items = [item for item in items if item]
    elif isinstance(value, os.PathLike):
        items = [_item(cast("object", value), accepted)]
    elif isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
        items = [_item(item, accepted) for item in cast("Iterable[object]", value)]
    else:
        raise ValueError(accepted)  # noqa: TRY004  pydantic collects value errors, and lets type errors through
    if any(not item or (pattern is not None and not pattern.fullmatch(item)) for item in items):
        raise ValueError(accepted)
    return tuple(items)


def _item(value: object, accepted: str) -> str:
    value = unpath(value)
    if not isinstance(value, str):
        raise ValueError(accepted)  # noqa: TRY004  as in _items
    return value.strip()

"""
How a sidecar rewrites a path before it looks for a route.

Istio has Envoy normalise paths (`pathNormalization: BASE`, its default); a mesh may switch that off, and its routes do
not tell. So a path that normalisation changes is matched both ways. Envoy 1.36.10, 1.37.6, 1.38.4, 1.39.1 and later
also take a dot segment with parameters (`/..;v=1`) for one, and leave parameters out of each segment rather than with
all that follows the first of them (CVE-2026-73551): then both ways count too.
"""

from __future__ import annotations

import re

__all__ = ["variants", "without_parameters"]

_CHANGED = re.compile(r'[%\\|^"<>`{} ]|/\.|[^\x00-\x7f]')
_UNRESERVED = re.compile(r"%(2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])", re.ASCII)
_DOTS_WITH_PARAMETERS = re.compile(r"(/\.{1,2});[^/]*")
_PARAMETERS = re.compile(r";[^/]*")
_ESCAPED = re.compile(r'[|^"<>`{} ]|[^\x00-\x7f]')


def variants(path: str) -> tuple[str, ...]:
    """
    The path as it is, and as Envoy's `normalize_path` makes it where that is another one, or several.

    Dot segments are resolved, backslashes become slashes, escapes of unreserved characters are undone, and a few
    characters are escaped. Slashes are neither merged nor unescaped, which Istio does only if told to.
    """
    if _CHANGED.search(path) is None:
        return (path,)
    unescaped = _UNRESERVED.sub(_unescape, path.replace("\\", "/"))
    ways = {path: None, _ESCAPED.sub(_escape, _without_dots(unescaped)): None}
    if ";" in path:
        ways[_ESCAPED.sub(_escape, _without_dots(_DOTS_WITH_PARAMETERS.sub(r"\1", unescaped)))] = None
    return tuple(ways)


def without_parameters(path: str) -> tuple[str, ...]:
    """The path as an Envoy compares it that is told to ignore path parameters; more than one where Envoys differ."""
    first = path.partition(";")[0]
    return (path,) if first == path else tuple(dict.fromkeys((first, _PARAMETERS.sub("", path))))


def _unescape(found: re.Match[str]) -> str:
    return chr(int(found[1], 16))


def _escape(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in found[0].encode())


def _without_dots(path: str) -> str:
    first, *segments = path.split("/")
    kept = [first]
    for number, segment in enumerate(segments, 1):
        if segment not in (".", ".."):
            kept.append(segment)
            continue
        if segment == ".." and len(kept) > 1:
            kept.pop()
        if number == len(segments):
            kept.append("")
    return "/".join(kept)

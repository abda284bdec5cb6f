"""
How a sidecar rewrites a path before it looks for a route.

Istio has Envoy normalise paths (`pathNormalization: BASE`, its default); a mesh may switch that off, and its routes do
not tell. So a path that normalisation changes is matched both ways.
"""

from __future__ import annotations

import re

__all__ = ["variants"]

_CHANGED = re.compile(r'[%\\|^"<>`{} ]|/\.|[^\x00-\x7f]')
_UNRESERVED = re.compile(r"%(2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])", re.ASCII)
_ESCAPED = re.compile(r'[|^"<>`{} ]|[^\x00-\x7f]')


def variants(path: str) -> tuple[str, ...]:
    """
    The path as it is, and as Envoy's `normalize_path` makes it where that is another one.

    Dot segments are resolved, backslashes become slashes, escapes of unreserved characters are undone, and a few
    characters are escaped. Slashes are neither merged nor unescaped, which Istio does only if told to.
    """
    if _CHANGED.search(path) is None:
        return (path,)
    normal = _without_dots(_UNRESERVED.sub(_unescape, path.replace("\\", "/")))
    normal = _ESCAPED.sub(_escape, normal)
    return (path,) if normal == path else (path, normal)


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

"""
Regular expressions as the mesh understands them: RE2, run by google-re2 where that is installed, else by an automaton.

`pip install meshaware[re2]` brings the very library that Envoy has. Without it `automaton.py` runs what ordinary
patterns use. Both take time linear in the text, and neither runs a pattern that is too large for that to be little.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cache
from typing import Any

from meshaware.budgets.automaton import MAX_TEXT, Pattern, beginning
from meshaware.budgets.re2 import MAX_LENGTH, Unsupported

__all__ = ["Matches", "compile_by_google", "compile_pattern", "google_re2"]

Matches = Callable[[str], bool | None]
"""Whether a whole text matches; None where that is not judged."""

_MAX_PROGRAM = 1500
_MAX_MEMORY = 1 << 20


def compile_pattern(pattern: str) -> Matches:
    """
    Make a pattern ready.

    Raises:
        Unsupported: It is no RE2, is too large, or needs google-re2, which is not installed; the message says which.
    """
    engine = google_re2()
    return Pattern(pattern).match if engine is None else compile_by_google(engine, pattern)


@cache
def google_re2() -> Any:
    """The module, or None; another distribution has one of the same name, which falls back to Python's own `re`."""
    try:
        module = importlib.import_module("re2")
    except ImportError:
        return None
    return module if hasattr(module, "Options") and hasattr(module, "Set") else None


def compile_by_google(engine: Any, pattern: str) -> Matches:
    """
    Make a pattern ready with google-re2.

    Raises:
        Unsupported: It is no RE2, or too large.
    """
    if len(pattern) > MAX_LENGTH:
        raise Unsupported(f"is longer than {MAX_LENGTH} characters")
    options = engine.Options()
    options.log_errors = False
    options.never_capture = True
    options.max_mem = _MAX_MEMORY
    try:
        compiled = engine.compile(pattern.encode(), options=options)
    except (engine.error, UnicodeEncodeError) as error:
        raise Unsupported(f"is no RE2: {_reason(error)}") from error
    if compiled.programsize > _MAX_PROGRAM:
        raise Unsupported("is too large")
    fullmatch: Callable[[bytes], object] = compiled.fullmatch
    begin = _begin(pattern)

    def match(text: str) -> bool | None:
        if not text.startswith(begin):
            return False
        if len(text) > MAX_TEXT or not text.isascii():
            return None
        return fullmatch(text.encode()) is not None

    return match


def _begin(pattern: str) -> str:
    try:
        return beginning(pattern)
    except Unsupported:
        return ""


def _reason(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return (said.decode(errors="replace") if isinstance(said, bytes) else str(said))[:80]

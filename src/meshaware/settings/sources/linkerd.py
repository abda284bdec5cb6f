"""The variables by which Linkerd's own `linkerd-await` is told not to wait; images that have it keep their meaning."""

from __future__ import annotations

from collections.abc import Mapping

from meshaware.settings.found import Found

__all__ = ["find_linkerd"]

# In the order in which it asks for them. Any text is a reason, `false` and `0` too.
_VARIABLES = ("LINKERD_AWAIT_DISABLED", "LINKERD_DISABLED")
_SHOWN = 200


def find_linkerd(environ: Mapping[str, str]) -> dict[str, Found]:
    """Whether waiting is disabled, and why."""
    for name in _VARIABLES:
        if reason := environ.get(name):
            shown = "".join(char if char.isprintable() else "?" for char in reason[:_SHOWN])
            return {"wait_disabled": Found(f"{name}={shown}", f"env {name}")}
    return {}

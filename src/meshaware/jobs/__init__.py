"""
Work that comes to an end, beside a sidecar that does not.

    job       Job and AsyncJob: wait, run, flush, let the sidecar go
    sigterm   SIGTERM as an error that ends the work, so that the rest still happens
    leaving   the last step: whether the sidecar is let go, and what came of it

The package itself loads nothing: import from the modules.
"""

from __future__ import annotations

__all__: list[str] = []

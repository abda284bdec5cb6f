"""
The proxy beside this process.

    admin        the only socket to the proxy
    workload     what it knows about this pod
    readiness    waiting until it is ready
    shutdown     telling it to go when a job is over; farewell reads its answers
    replies      which answers of a call are its own

The package itself loads nothing: import from the modules.
"""

from __future__ import annotations

__all__: list[str] = []

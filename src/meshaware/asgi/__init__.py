"""
What stands between the server and the application.

    types        ASGI's own words
    middleware   MeshMiddleware: carries headers from a request to its calls
    peers        whose word about the caller counts
    health       livez and readyz
    drain        from SIGTERM to the stop
    errors       replies for upstream failures that nothing handled
    install      puts them around an application
"""

from __future__ import annotations

__all__: list[str] = []

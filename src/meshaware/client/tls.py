"""
TLS contexts shared between like clients.

Loading the system's certificates takes tens of milliseconds, and httpx does it for each client and again for each
proxy. Contexts for HTTP/1.1 and for HTTP/2 are kept apart: httpcore sets the protocols it offers on the context itself.
What names files (a CA bundle, a client certificate) is loaded anew each time, because such files are rotated.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import Any

__all__ = ["shared_context"]

_contexts: dict[tuple[object, ...], ssl.SSLContext] = {}


def shared_context(
    make: Callable[..., ssl.SSLContext],
    verify: ssl.SSLContext | str | bool,  # noqa: FBT001 (as httpx has it)
    cert: Any,
    *,
    trust_env: bool,
    http2: bool,
) -> ssl.SSLContext:
    """
    The context for these arguments: shared where only the system's certificates are in it.

    Args:
        make: The client library's `create_ssl_context`.
        verify: As httpx takes it.
        cert: As httpx takes it.
        trust_env: Whether SSL_CERT_FILE and SSL_CERT_DIR count.
        http2: Whether HTTP/2 is offered.
    """
    if cert is not None or not isinstance(verify, bool):
        return make(verify=verify, cert=cert, trust_env=trust_env)
    named = [os.environ.get(name) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR")] if trust_env else []
    key = (make, verify, http2, *named)
    context = _contexts.get(key)
    if context is None:
        context = _contexts[key] = make(verify=verify, trust_env=trust_env)
    return context

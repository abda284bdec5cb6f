"""What every test has: both event loops, and an environment with nothing of this machine's in it."""

from __future__ import annotations

import itertools
import os
import signal
from typing import Any

import pytest
from hypothesis import settings

from meshaware.settings import addresses

# Examples are counted, not timed: a busy machine is no failure.
settings.register_profile("meshaware", deadline=None)
settings.load_profile("meshaware")

# A job in the background of a shell is started with SIGINT ignored, and so would be every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_CLEARED_PREFIXES = ("MESHAWARE_", "OTEL_", "ISTIO_", "POD_", "KUBERNETES_", "LINKERD_")
_CLEARED = (
    "INSTANCE_IP",
    "NODE_NAME",
    "SERVICE_ACCOUNT",
    "TRUST_DOMAIN",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
)


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
        pytest.param(("trio", dict[str, Any]()), id="trio"),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Each asynchronous test runs on asyncio and on trio."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(_CLEARED_PREFIXES) or name.upper() in _CLEARED:
            monkeypatch.delenv(name)


_HOSTS = itertools.count(1)


@pytest.fixture
def own_host(monkeypatch: pytest.MonkeyPatch) -> str:
    """
    A loopback address of the test's own, which `localhost` stands for in this process.

    The ports of meshes are fixed; all of 127.0.0.0/8 is this host, so each test can have them all.
    """
    process, test = os.getpid() % 0xFFFF, next(_HOSTS) % 0xFE
    host = f"127.{1 + process // 0xFF % 0xFE}.{process % 0xFF}.{1 + test}"
    monkeypatch.setattr(addresses, "LOCALHOST", (host,))
    return host

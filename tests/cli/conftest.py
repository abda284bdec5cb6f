"""The command as a process and in this one, in a directory with manifests and no pod around it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent

import pytest

from meshaware.cli import main
from meshaware.settings.sources import kubernetes, podinfo

_INVENTORY = """
    apiVersion: networking.istio.io/v1
    kind: VirtualService
    metadata: {name: inventory, namespace: shop}
    spec:
      hosts: [inventory]
      http:
        - name: admin
          match:
            - uri: {prefix: /admin}
          timeout: 30s
          route: [{destination: {host: inventory}}]
        - name: premium
          match:
            - uri: {prefix: /items/}
              headers: {x-user-type: {exact: premium}}
          timeout: 1s
          route: [{destination: {host: inventory}}]
        - name: everyone
          timeout: 3s
          retries: {attempts: 2, perTryTimeout: 1s, retryOn: 5xx}
          route: [{destination: {host: inventory}}]
"""

Ran = tuple[int, str, str]


@pytest.fixture(name="inventory", scope="session")
def _inventory() -> str:
    """The text of `inventory.yaml`: three routes, of which the last takes every call."""
    return dedent(_INVENTORY).lstrip()


@pytest.fixture(name="directory", autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inventory: str) -> Path:
    """Where commands run, with `inventory.yaml`; no file of this machine's tells of a pod, and 100 columns."""
    monkeypatch.setattr(podinfo, "USUAL_PLACES", ())
    monkeypatch.setattr(kubernetes, "SERVICE_ACCOUNT_DIRECTORY", str(tmp_path / "none"))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inventory.yaml").write_text(inventory)
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Run the command in this process: exit code, standard output, standard error."""

    def run(*arguments: str) -> Ran:
        code = main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def process(directory: Path) -> Callable[..., Ran]:
    """Run the command as a process of its own."""

    def process(*arguments: str, **environment: str) -> Ran:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", "meshaware", *arguments],
            cwd=directory,
            env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
            capture_output=True,
            encoding="utf-8",
            timeout=50,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return process

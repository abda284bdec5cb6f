"""The settings of the gate, read without pydantic: the same as `MeshSettings` reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from meshaware.errors import SettingsError
from meshaware.settings import MeshSettings
from meshaware.settings.gate import GateSettings, read_gate_settings

GOOD = [
    {},
    {"MESHAWARE_MESH": "Linkerd"},
    {"MESHAWARE_ADMIN_URL": "http://127.0.0.1:15000/"},
    {"MESHAWARE_READY_URL": "http://[::1]:15021/healthz/ready"},
    {"MESHAWARE_READY_TIMEOUT": "1m30s", "MESHAWARE_READY_FATAL": "no"},
    {"MESHAWARE_IN_KUBERNETES": "yes"},
    {"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
    {"MESHAWARE_WORKLOAD__LABELS": "app=shop,security.istio.io/tlsMode=istio"},
    {"MESHAWARE_WORKLOAD__ANNOTATIONS": "linkerd.io/proxy-version=edge"},
]
BAD = [
    {"MESHAWARE_MESH": "osm"},
    {"MESHAWARE_ADMIN_URL": "http://127.0.0.1:15000/ready"},
    {"MESHAWARE_READY_URL": "http://example.com"},
    {"MESHAWARE_READY_TIMEOUT": "soon", "MESHAWARE_READY_FATAL": "perhaps"},
    {"MESHAWARE_IN_KUBERNETES": "2"},
    {"MESHAWARE_WORKLOAD__LABELS": "app"},
    {"MESHAWARE_PODINFO": "/nowhere"},
]


@pytest.mark.parametrize("environment", GOOD, ids=str)
def test_both_read_the_same(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Value by value, defaults included."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert read_gate_settings(os.environ) == MeshSettings().for_gate


@pytest.mark.parametrize("environment", BAD, ids=str)
def test_both_refuse_the_same(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same words."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as light:
        read_gate_settings(os.environ)
    with pytest.raises(SettingsError) as whole:
        MeshSettings()
    assert sorted(str(light.value).splitlines()) == sorted(str(whole.value).splitlines())


def test_the_pod_s_files_are_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They tell the mesh where the application mounts them."""
    (tmp_path / "labels").write_text('linkerd.io/control-plane-ns="linkerd"\n')
    monkeypatch.setenv("MESHAWARE_PODINFO", str(tmp_path))
    settings = read_gate_settings(os.environ)
    assert settings == MeshSettings().for_gate
    assert settings.detected.flavour.name == "linkerd"


def test_a_malformed_file_is_named_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its line."""
    (tmp_path / "labels").write_text("app=shop\n")
    monkeypatch.setenv("MESHAWARE_PODINFO", str(tmp_path))
    with pytest.raises(SettingsError, match=r"labels:1 is 'app=shop'"):
        read_gate_settings(os.environ)


def test_a_setting_that_no_gate_needs_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong budget is for the application to refuse."""
    monkeypatch.setenv("MESHAWARE_TIMEOUT", "soon")
    assert read_gate_settings(os.environ) == GateSettings(in_kubernetes=read_gate_settings({}).in_kubernetes)

"""The variables by which Linkerd's own tool is told not to wait."""

from __future__ import annotations

import pytest

from meshaware.settings import MeshSettings
from meshaware.settings.found import Found
from meshaware.settings.sources.linkerd import find_linkerd


@pytest.mark.parametrize("reason", ["no proxy in CI", "1", "false", "0"])
def test_any_text_disables_as_it_does_for_linkerd_await(reason: str) -> None:
    """It is a reason, not a flag: `false` and `0` are reasons too."""
    found = find_linkerd({"LINKERD_AWAIT_DISABLED": reason})
    assert found == {"wait_disabled": Found(f"LINKERD_AWAIT_DISABLED={reason}", "env LINKERD_AWAIT_DISABLED")}


def test_the_more_special_one_is_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the settings name the origin."""
    monkeypatch.setenv("LINKERD_DISABLED", "all of it")
    assert MeshSettings().wait_disabled == "LINKERD_DISABLED=all of it"
    monkeypatch.setenv("LINKERD_AWAIT_DISABLED", "waiting")
    settings = MeshSettings()
    assert settings.wait_disabled == "LINKERD_AWAIT_DISABLED=waiting"
    assert settings.origins["wait_disabled"] == "env LINKERD_AWAIT_DISABLED"


def test_nothing_is_not_a_reason() -> None:
    """Empty counts as unset."""
    assert find_linkerd({"LINKERD_AWAIT_DISABLED": "", "LINKERD_DISABLED": ""}) == {}


def test_a_reason_is_made_fit_for_a_log() -> None:
    """It is somebody's text: on one line, and not endless."""
    (found,) = find_linkerd({"LINKERD_DISABLED": "a\nb\x1b" + "c" * 10_000}).values()
    assert str(found.value).startswith("LINKERD_DISABLED=a?b?ccc")
    assert len(str(found.value)) < 300


def test_meshaware_s_own_variable_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """And there `false` means no."""
    monkeypatch.setenv("LINKERD_AWAIT_DISABLED", "yes")
    monkeypatch.setenv("MESHAWARE_WAIT_DISABLED", "false")
    assert MeshSettings().wait_disabled is None
    monkeypatch.setenv("MESHAWARE_WAIT_DISABLED", "the mesh is being moved")
    assert MeshSettings().wait_disabled == "the mesh is being moved"

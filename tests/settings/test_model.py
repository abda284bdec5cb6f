"""`MeshSettings` as users meet it."""

from __future__ import annotations

import copy
import inspect
import pickle
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings

from meshaware.errors import SettingsError
from meshaware.settings import MeshSettings, UnknownVariableWarning, Workload

Write = Callable[[str, str | bytes], Path]


def _refused(**arguments: Any) -> list[str]:
    with pytest.raises(SettingsError) as refused:
        MeshSettings(**arguments)
    return str(refused.value).split("\n  ")


def test_without_anything_the_defaults_hold() -> None:
    """And each says so."""
    settings = MeshSettings()
    assert settings.model_dump(exclude={"workload"}) == {
        "mesh": "auto",
        "routes": (),
        "timeout": None,
        "attempts": 0,
        "per_try_timeout": None,
        "buffer": 0.25,
        "budget_policy": "ceiling",
        "deadlines": "enforce",
        "deadline_header": "x-mesh-deadline-ms",
        "deadline_floor": 0.005,
        "deadline_cancel": False,
        "mesh_hosts": (),
        "trace_hosts": (),
        "headers": (),
        "sampling": "mesh",
        "cluster_domain": "cluster.local",
        "admin_url": None,
        "ready_url": None,
        "outbound_proxy": None,
        "podinfo": None,
        "ready_timeout": 60.0,
        "ready_fatal": True,
        "wait_for": (),
        "wait_disabled": None,
        "livez_path": "/livez",
        "readyz_path": "/readyz",
        "drain": None,
        "quit": "success",
        "quit_shared": False,
        "quit_url": None,
        "in_kubernetes": False,
    }
    assert settings.workload == Workload()
    assert set(settings.origins.values()) == {"default"}
    assert repr(settings) == "MeshSettings(workload=Workload())"


def test_every_field_has_an_origin() -> None:
    """Facts of the workload by their dotted names."""
    facts = {f"workload.{name}" for name in Workload.model_fields if name != "origins"}
    assert set(MeshSettings().origins) == (set(MeshSettings.model_fields) - {"workload"}) | facts


def test_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Durations, numbers, words, lists."""
    for name, value in {
        "MESHAWARE_MESH": "istio",
        "MESHAWARE_ROUTES": "routes/,sidecar",
        "MESHAWARE_TIMEOUT": "1m",
        "MESHAWARE_ATTEMPTS": "2",
        "MESHAWARE_PER_TRY_TIMEOUT": "1.5",
        "MESHAWARE_BUFFER": "100ms",
        "MESHAWARE_BUDGET_POLICY": "tight",
        "MESHAWARE_DEADLINES": "observe",
        "MESHAWARE_DEADLINE_HEADER": "Deadline-Budget",
        "MESHAWARE_DEADLINE_FLOOR": "20ms",
        "MESHAWARE_DEADLINE_CANCEL": "true",
        "MESHAWARE_MESH_HOSTS": "payments, .corp.example",
        "MESHAWARE_TRACE_HOSTS": "partner.example,10.1.0.0/16",
        "MESHAWARE_SAMPLING": "0.01",
        "MESHAWARE_READY_FATAL": "false",
        "MESHAWARE_DRAIN": "500ms",
        "MESHAWARE_QUIT": "Always",
        "MESHAWARE_QUIT_SHARED": "yes",
        "MESHAWARE_QUIT_URL": "http://127.0.0.1:15020/quitquitquit",
        "POD_NAMESPACE": "shop",
    }.items():
        monkeypatch.setenv(name, value)
    settings = MeshSettings()
    assert (settings.mesh, settings.routes, settings.timeout) == ("istio", ("routes/", "sidecar"), 60.0)
    assert (settings.attempts, settings.per_try_timeout, settings.buffer) == (2, 1.5, 0.1)
    assert (settings.budget_policy, settings.deadlines) == ("tight", "observe")
    assert (settings.deadline_header, settings.deadline_floor, settings.deadline_cancel) == (
        "deadline-budget",
        0.02,
        True,
    )
    assert settings.mesh_hosts == ("payments", ".corp.example")
    assert (settings.trace_hosts, settings.sampling) == (("partner.example", "10.1.0.0/16"), 0.01)
    assert settings.ready_fatal is False
    assert (settings.drain, settings.quit, settings.quit_shared) == (0.5, "always", True)
    assert settings.quit_url == "http://127.0.0.1:15020/quitquitquit"
    assert settings.workload.namespace == "shop"
    assert settings.origins["timeout"] == "env MESHAWARE_TIMEOUT"
    assert settings.origins["workload.namespace"] == "env POD_NAMESPACE"


def test_an_argument_wins_over_everything(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    """For each fact by itself: the others are found as always."""
    monkeypatch.setenv("MESHAWARE_TIMEOUT", "9s")
    monkeypatch.setenv("POD_NAMESPACE", "elsewhere")
    labels = write("/etc/podinfo/labels", 'app="inventory"')
    settings = MeshSettings(timeout="2s", workload={"namespace": "shop"})
    assert (settings.timeout, settings.workload.namespace, settings.workload.service) == (
        2.0,
        "shop",
        "inventory",
    )
    assert settings.origins["timeout"] == settings.origins["workload.namespace"] == "argument"
    assert settings.origins["workload.labels"] == f"file {labels}"
    assert settings.origins["workload.service"] == "computed from label app"


def test_none_as_an_argument_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The default holds, whatever variables say; where `None` is no value, it is refused."""
    monkeypatch.setenv("MESHAWARE_TIMEOUT", "9s")
    monkeypatch.setenv("MESHAWARE_ATTEMPTS", "3")
    settings = MeshSettings(timeout=None)
    assert (settings.timeout, settings.origins["timeout"], settings.attempts) == (None, "argument", 3)
    assert _refused(attempts=None)[1] == "argument attempts is None; accepted: a whole number from 0 to 1000"


def test_an_empty_variable_is_none_and_a_valid_lower_source_is_heard(
    monkeypatch: pytest.MonkeyPatch, write: Write
) -> None:
    """The downward API writes empty strings."""
    monkeypatch.setenv("MESHAWARE_TIMEOUT", "")
    monkeypatch.setenv("POD_NAMESPACE", "")
    write("/etc/podinfo/namespace", "shop")
    settings = MeshSettings(admin_url="")
    assert (settings.timeout, settings.workload.namespace, settings.admin_url) == (None, "shop", None)


def test_all_that_is_wrong_is_in_one_error(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    """Argument, variable, fact and file, each with value and what is accepted."""
    monkeypatch.setenv("MESHAWARE_BUFFER", "a while")
    monkeypatch.setenv("POD_IP", "inventory-0")
    labels = write("/etc/podinfo/labels", 'app="x"\nversion=v1')
    head, *problems = _refused(mesh="isto", workload={"namespace": "Shop"})
    assert head == "5 settings cannot be used:"
    assert [problem.split("; accepted: ") for problem in problems] == [
        [f"file {labels}:2 is 'version=v1'", 'key="value", the value quoted as Go does'],
        [
            "argument mesh is 'isto'",
            "auto, istio, ambient, linkerd, consul, kuma or none (did you mean istio?)",
        ],
        [
            "env MESHAWARE_BUFFER is 'a while'",
            'a duration such as "250ms", "1.5s" or "1h30m", or a number of seconds; at most a year',
        ],
        [
            "argument workload.namespace is 'Shop'",
            "the name of a namespace: lower-case letters, digits and dashes, at most 63",
        ],
        ["env POD_IP is 'inventory-0'", "an IP address, or several with commas between them"],
    ]


def test_a_bad_value_that_nobody_asks_for_is_no_problem(monkeypatch: pytest.MonkeyPatch, write: Write) -> None:
    """Only the value that wins is looked at."""
    monkeypatch.setenv("INSTANCE_IP", "nonsense")
    monkeypatch.setenv("POD_IP", "10.0.0.1")
    write("/etc/podinfo/labels", "nonsense")
    settings = MeshSettings(workload={"labels": {"app": "shop"}})
    assert (settings.workload.pod_ip, settings.workload.service) == ("10.0.0.1", "shop")


def test_the_error_is_a_value_error_without_a_tail_of_others() -> None:
    """What pydantic says names fields, not variables, and would only stand in the way."""
    with pytest.raises(ValueError) as refused:
        MeshSettings(timeout="soon")
    assert refused.value.__suppress_context__
    assert isinstance(pickle.loads(pickle.dumps(refused.value)), SettingsError)


@pytest.mark.parametrize(
    ("value", "hint"), [("alwys", " (did you mean always?)"), ("1.5", ""), ("1%", ""), (True, ""), (None, "")]
)
def test_a_sampling_that_is_none_is_refused(value: object, hint: str) -> None:
    """With both words, the range, and the word that was meant."""
    accepted = "mesh, always, or a ratio from 0 to 1 such as 0.01, which is one trace in a hundred"
    assert _refused(sampling=value)[1] == f"argument sampling is {value!r}; accepted: {accepted}{hint}"


def test_the_two_lists_of_hosts_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are written alike; the error names the one that is wrong."""
    monkeypatch.setenv("MESHAWARE_TRACE_HOSTS", "https://partner.example")
    (problem,) = _refused(mesh_hosts="payments")[1:]
    assert problem.startswith("env MESHAWARE_TRACE_HOSTS is 'https://partner.example'; accepted: hosts, suffixes")


def test_secrets_in_urls_are_not_shown() -> None:
    """Errors go to logs."""
    assert "secret" not in "".join(_refused(outbound_proxy="http://user:secret@proxy:3128"))


@pytest.mark.parametrize("name", ["admin_url", "ready_url"])
@pytest.mark.parametrize("url", ["http://10.0.0.1:15000", "https://localhost:15000", "http://example.com"])
def test_the_proxy_is_never_looked_for_beyond_loopback(name: str, url: str) -> None:
    """Whoever sets a variable must not be able to make meshaware call another host."""
    assert _refused(**{name: url})[1].startswith(
        f"argument {name} is {url!r}; accepted: a URL such as http://127.0.0.1"
    )


def test_the_two_health_paths_must_differ() -> None:
    """Or readiness would always say yes."""
    assert _refused(livez_path="/health", readyz_path="/health") == [
        "1 setting cannot be used:",
        "livez_path and readyz_path are both '/health'; accepted: two different paths",
    ]


def test_help_shows_what_is_left_out_as_unset() -> None:
    """Not as the repr of some object."""
    parameters = inspect.signature(MeshSettings).parameters.values()
    assert {repr(parameter.default) for parameter in parameters} == {"unset"}


def test_a_misspelled_argument_is_refused() -> None:
    """Never silently ignored, as pydantic-settings would with some configurations."""
    with pytest.raises(TypeError, match="timout"):
        MeshSettings(timout=2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert _refused(workload={"namspace": "shop"})[1].endswith("(did you mean namespace?)")
    assert (
        _refused(workload="shop")[1] == "argument workload is 'shop'; accepted: a Workload, or a mapping of its facts"
    )


def test_a_misspelled_variable_is_a_warning_that_points_at_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It must be seen, but a variable of a newer version must not keep a pod from starting."""
    monkeypatch.setenv("MESHAWARE_TIMOUT", "2s")
    with pytest.warns(UnknownVariableWarning) as seen:
        MeshSettings()
    (warning,) = seen
    assert str(warning.message).endswith("means nothing to meshaware: did you mean MESHAWARE_TIMEOUT?")
    assert warning.filename == __file__


def test_that_warning_can_be_made_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own class."""
    monkeypatch.setenv("MESHAWARE_TIMOUT", "2s")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UnknownVariableWarning)
        with pytest.raises(UnknownVariableWarning):
            MeshSettings()


def test_settings_are_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """They compare, hash, copy, pickle, and cannot be changed; nothing is read again on the way."""
    monkeypatch.setenv("MESHAWARE_TIMEOUT", "2s")
    settings = MeshSettings(workload={"namespace": "shop", "labels": {"app": "x"}})
    monkeypatch.setenv("MESHAWARE_TIMEOUT", "9s")
    for other in (pickle.loads(pickle.dumps(settings)), copy.deepcopy(settings), copy.copy(settings)):
        assert other == settings
        assert hash(other) == hash(settings)
        assert (other.timeout, other.origins) == (2.0, settings.origins)
    with pytest.raises(ValidationError):
        settings.timeout = 3  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(TypeError):
        settings.origins["timeout"] = "x"  # type: ignore[index]  # pyright: ignore[reportIndexIssue]


def test_the_repr_shows_what_was_said() -> None:
    """Not two dozen defaults."""
    settings = MeshSettings(mesh="istio", timeout="2s", workload={"namespace": "shop"})
    assert repr(settings) == "MeshSettings(mesh='istio', timeout=2.0, workload=Workload(namespace='shop'))"


def test_a_workload_can_be_an_argument() -> None:
    """Made by hand, or what `load_workload` returned, whose origins are kept."""
    by_hand = MeshSettings(workload=Workload(namespace="shop", labels={"app": "x"}))
    assert (by_hand.workload.namespace, by_hand.workload.service) == ("shop", "x")
    assert by_hand.origins["workload.namespace"] == "argument"
    loaded = Workload(namespace="shop", origins={"namespace": "sidecar /server_info node.metadata.NAMESPACE"})
    assert MeshSettings(workload=loaded).origins["workload.namespace"].startswith("sidecar")


def test_more_may_become_known_of_the_workload() -> None:
    """New settings; origins follow."""
    settings = MeshSettings(timeout=2)
    more = settings.with_workload(Workload(mesh_id="mesh1", origins={"mesh_id": "sidecar"}))
    assert (more.timeout, more.workload.mesh_id, more.origins["workload.mesh_id"]) == (
        2.0,
        "mesh1",
        "sidecar",
    )
    assert more.origins["timeout"] == "argument"
    assert settings.workload.mesh_id is None


def test_settings_can_be_a_field_of_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """By factory, or from a mapping; what is wrong is said in the same words."""

    class App(BaseSettings):
        mesh: MeshSettings = Field(default_factory=MeshSettings)

    monkeypatch.setenv("MESHAWARE_TIMEOUT", "2s")
    assert App().mesh.timeout == 2.0
    assert App.model_validate({"mesh": {"timeout": "3s"}}).mesh.timeout == 3.0
    with pytest.raises(ValidationError, match="argument timeout is 'soon'; accepted: a duration"):
        App.model_validate({"mesh": {"timeout": "soon"}})


def test_pydantic_settings_own_sources_are_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A JSON text in MESHAWARE_WORKLOAD would be read by them, and a .env file."""
    (tmp_path / ".env").write_text("MESHAWARE_TIMEOUT=9s")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MESHAWARE_WORKLOAD", '{"namespace": "shop"}')
    with pytest.warns(UnknownVariableWarning, match="MESHAWARE_WORKLOAD is set"):
        settings = MeshSettings()
    assert (settings.timeout, settings.workload.namespace) == (None, None)


def test_a_pod_is_recognised(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the API server's variable; an argument may say otherwise."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    assert MeshSettings().in_kubernetes is True
    assert MeshSettings().origins["in_kubernetes"] == "env KUBERNETES_SERVICE_HOST"
    assert MeshSettings(in_kubernetes=False).in_kubernetes is False


def test_making_settings_opens_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor asks for a name."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("settings must not touch the network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    MeshSettings(mesh="istio", admin_url="http://localhost:15000")

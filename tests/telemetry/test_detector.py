"""Plain OpenTelemetry gets the same resource by an entry point."""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable
from importlib.metadata import entry_points

import pytest
from opentelemetry.sdk.resources import OTELResourceDetector, Resource, ResourceDetector, get_aggregated_resources

from meshaware.errors import SettingsError
from meshaware.telemetry import detector
from meshaware.telemetry.detector import MeshResourceDetector

Python = Callable[..., subprocess.Popen[str]]

POD = {
    "POD_NAME": "inventory-0",
    "POD_UID": "0f0c3b5e",
    "POD_NAMESPACE": "shop",
    "MESHAWARE_MESH": "istio",
    "MESHAWARE_WORKLOAD__SERVICE": "inventory",
}


@pytest.fixture(autouse=True)
def _nothing_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "_told", set[str]())


def plain(python: Python, **environ: str) -> tuple[dict[str, str], str]:
    """The resource of a process that knows nothing of meshaware, and what it said."""
    script = (
        "import json; from opentelemetry.sdk.resources import Resource;"
        "print(json.dumps(dict(Resource.create().attributes)))"
    )
    process = python("-c", script, env=environ)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0, err
    return json.loads(out), err


def test_the_entry_point_leads_to_a_detector_that_needs_no_argument() -> None:
    (point,) = entry_points(group="opentelemetry_resource_detector", name="meshaware")
    made = point.load()()
    assert isinstance(made, MeshResourceDetector)
    assert isinstance(made, ResourceDetector)


@pytest.mark.parametrize("detectors", ["meshaware,otel", "service_instance,meshaware,otel"])
def test_plain_opentelemetry_has_the_resource_that_setup_telemetry_makes(python: Python, detectors: str) -> None:
    """Both in a process of their own; SDKs before 1.45 would put their own random instance id after ours."""
    script = "import json, meshaware; print(json.dumps(dict(meshaware.setup_telemetry().resource)))"
    own = python("-c", script, env=POD | {"OTEL_TRACES_EXPORTER": "console"})
    out, err = own.communicate(timeout=30)
    assert own.returncode == 0, err

    attributes, said = plain(python, **POD, OTEL_EXPERIMENTAL_RESOURCE_DETECTORS=detectors)

    expected = json.loads(out)
    if detectors == "meshaware,otel":
        expected["service.instance.id"] = attributes["service.instance.id"]
    assert attributes == expected
    assert attributes["service.name"] == "inventory"
    assert attributes["k8s.pod.uid"] == "0f0c3b5e"
    assert attributes["meshaware.mesh.name"] == "istio"
    assert said == ""


@pytest.mark.parametrize(
    "detectors", ["meshaware", "service_instance,meshaware,otel", "service_instance,otel,meshaware", "*"]
)
def test_what_variables_declare_wins_in_any_order(python: Python, detectors: str) -> None:
    declared = {
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": detectors,
        "OTEL_SERVICE_NAME": "stock",
        "OTEL_RESOURCE_ATTRIBUTES": "service.name=x,k8s.pod.name=other,k8s.container.name=app,team=t%201",
    }

    attributes, _ = plain(python, **{**POD, **declared})

    assert (attributes["service.name"], attributes["team"]) == ("stock", "t 1")
    assert attributes["k8s.pod.name"] == "other"
    assert attributes["k8s.namespace.name"] == "shop"
    if detectors.startswith("service_instance"):
        assert attributes["service.instance.id"] == "shop.inventory-0.app"


def test_settings_that_cannot_be_read_do_not_keep_a_process_from_starting(python: Python) -> None:
    """It has the resource that it would have without meshaware."""
    attributes, said = plain(
        python,
        **{**POD, "MESHAWARE_TIMEOUT": "soon", "OTEL_SERVICE_NAME": "stock"},
        OTEL_EXPERIMENTAL_RESOURCE_DETECTORS="meshaware,otel",
    )

    assert attributes["service.name"] == "stock"
    assert "k8s.pod.name" not in attributes
    assert said.startswith("telemetry: the resource lacks what meshaware knows: 1 setting cannot be used:\n")
    assert "env MESHAWARE_TIMEOUT is 'soon'" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("variable", "value"), [("MESHAWARE_TIMEOUT", "soon"), ("OTEL_RESOURCE_ATTRIBUTES", "service.version")]
)
def test_it_is_said_once_however_often_it_is_asked(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK asks for traces, metrics and logs each."""
    monkeypatch.setenv(variable, value)
    for _ in range(3):
        assert get_aggregated_resources([MeshResourceDetector()], Resource.get_empty()) == Resource.get_empty()
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("meshaware.telemetry", logging.WARNING)
    assert variable in record.getMessage()


def test_who_wants_errors_gets_them(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """As with OpenTelemetry's own detectors."""
    monkeypatch.setenv("MESHAWARE_TIMEOUT", "soon")
    with pytest.raises(SettingsError, match="MESHAWARE_TIMEOUT"):
        get_aggregated_resources([MeshResourceDetector(raise_on_error=True)], Resource.get_empty())
    assert not caplog.records


def test_it_goes_together_with_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema URL would have the SDK throw one of two resources away."""
    monkeypatch.setenv("POD_NAME", "inventory-0")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "stock")
    theirs = Resource({"cloud.region": "eu"}, "https://opentelemetry.io/schemas/1.21.0")
    merged = get_aggregated_resources([MeshResourceDetector(), OTELResourceDetector()], theirs)
    assert merged.schema_url == theirs.schema_url
    assert (merged.attributes["cloud.region"], merged.attributes["k8s.pod.name"]) == ("eu", "inventory-0")


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("meshaware.telemetry", ["opentelemetry", "pydantic", "anyio", "fastapi", "httpx"]),
        (
            "meshaware.telemetry.detector",
            [
                "opentelemetry.propagate",
                "opentelemetry.sdk.trace",
                "opentelemetry.instrumentation",
                "anyio",
                "fastapi",
                "httpx",
            ],
        ),
    ],
)
def test_an_early_import_loads_only_what_it_needs(python: Python, module: str, unwanted: list[str]) -> None:
    """OpenTelemetry loads entry points while it is being imported: no ring of imports may come of it."""
    script = f"import sys, {module}; print([name for name in {unwanted!r} if name in sys.modules])"
    out, err = python("-c", script).communicate(timeout=30)
    assert (out.strip(), err) == ("[]", "")


def test_the_rooms_names_are_there_when_asked_for() -> None:
    """And no others."""
    from meshaware import telemetry

    assert {getattr(telemetry, name).__name__ for name in telemetry.__all__} == {
        "Outlet",
        "Telemetry",
        "setup_telemetry",
    }
    assert set(telemetry.__all__) <= set(dir(telemetry))
    with pytest.raises(AttributeError, match=r"'meshaware\.telemetry' has no attribute 'nope'"):
        getattr(telemetry, "nope")  # noqa: B009 (what a type checker refuses is what is tried)

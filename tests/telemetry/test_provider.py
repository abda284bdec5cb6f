"""A provider of our own names the workload, and is never put over somebody else's."""

from __future__ import annotations

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from meshaware.settings import Workload
from meshaware.telemetry.provider import install_provider, make_provider
from meshaware.telemetry.sampling import MeshSampler, Sampling
from meshaware.telemetry.variables import Plan

NOTHING = Plan((), "because")


def attributes(workload: Workload, environ: dict[str, str]) -> dict[str, object]:
    return dict(make_provider(NOTHING, workload, environ).resource.attributes)


def test_the_resource_is_made_from_the_workload() -> None:
    resource = attributes(Workload(service="inventory", namespace="shop", pod_name="inventory-0"), {})

    assert resource["service.name"] == "inventory"
    assert resource["service.instance.id"] == "shop.inventory-0"
    assert resource["telemetry.sdk.name"] == "opentelemetry"


def test_what_variables_declare_wins_over_the_workload(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = {
        "OTEL_SERVICE_NAME": "stock",
        "OTEL_RESOURCE_ATTRIBUTES": "service.version=2,service.name=x,team=t",
    }
    for name, value in declared.items():
        monkeypatch.setenv(name, value)
    resource = attributes(Workload(service="inventory", version="1"), declared)

    assert (resource["service.name"], resource["service.version"], resource["team"]) == ("stock", "2", "t")


def test_an_empty_declaration_does_not_take_a_name_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=")
    resource = attributes(Workload(service="inventory"), {"OTEL_RESOURCE_ATTRIBUTES": "service.name="})

    assert resource["service.name"] == "inventory"


def test_a_process_that_is_no_pod_has_an_instance_of_its_own() -> None:
    resource = attributes(Workload(), {})

    assert len(str(resource["service.instance.id"])) == 36


def test_the_sampler_is_the_one_that_was_chosen(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the variable only if that decides: the SDK complains of one that is there and empty."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "")
    assert isinstance(make_provider(NOTHING, Workload(), {}).sampler, MeshSampler)
    assert make_provider(NOTHING, Workload(), {}, Sampling("always")).sampler is ALWAYS_ON
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    assert make_provider(NOTHING, Workload(), {}, Sampling(None)).sampler is ALWAYS_OFF
    assert not caplog.records


def test_the_mesh_stands_in_the_resource() -> None:
    provider = make_provider(NOTHING, Workload(), {}, Sampling(), "istio")
    assert provider.resource.attributes["meshaware.mesh.name"] == "istio"


def test_the_first_provider_becomes_the_processs() -> None:
    provider = make_provider(NOTHING, Workload(), {})

    assert install_provider(provider)
    assert trace.get_tracer_provider() is provider


def test_somebody_who_was_faster_keeps_the_place(caplog: pytest.LogCaptureFixture) -> None:
    theirs = TracerProvider(shutdown_on_exit=False)
    trace.set_tracer_provider(theirs)

    assert not install_provider(make_provider(NOTHING, Workload(), {}))
    assert trace.get_tracer_provider() is theirs

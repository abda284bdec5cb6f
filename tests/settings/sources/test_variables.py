"""Environment variables."""

from __future__ import annotations

import pytest

from meshaware.settings.found import Found
from meshaware.settings.sources.variables import find_conventional, find_own, unknown_variables
from meshaware.settings.variables import VARIABLES


@pytest.mark.parametrize(("name", "field"), [(variable.name, variable.field) for variable in VARIABLES])
def test_each_field_is_read_from_its_variable(name: str, field: str) -> None:
    """Under meshaware's own name."""
    assert find_own({name: "x"}) == {field: Found("x", f"env {name}")}


@pytest.mark.parametrize(
    ("name", "field"), [(name, variable.field) for variable in VARIABLES for name in variable.conventional]
)
def test_each_conventional_name_is_read(name: str, field: str) -> None:
    """Under the name that others already use."""
    assert find_conventional({name: "x"}) == {field: Found("x", f"env {name}")}


def test_of_several_conventional_names_the_first_that_is_set_counts() -> None:
    """In the order of the table; an empty one is not set."""
    environ = {"INSTANCE_IP": "10.0.0.2", "MY_POD_IP": "10.0.0.3"}
    assert find_conventional(environ)["workload.pod_ip"] == Found("10.0.0.2", "env INSTANCE_IP")
    assert find_conventional(environ | {"POD_IP": ""})["workload.pod_ip"] == Found("10.0.0.2", "env INSTANCE_IP")
    assert find_conventional(environ | {"POD_IP": "10.0.0.1"})["workload.pod_ip"] == Found("10.0.0.1", "env POD_IP")


def test_an_empty_variable_counts_as_unset() -> None:
    """The downward API writes one where a pod has no such value."""
    assert find_own({"MESHAWARE_TIMEOUT": ""}) == {}


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("MESHAWARE_TIMOUT", "did you mean MESHAWARE_TIMEOUT?"),
        ("MESHAWARE_ADMINURL", "did you mean MESHAWARE_ADMIN_URL?"),
        ("meshaware_timeout", "did you mean MESHAWARE_TIMEOUT?"),  # variables are as they are written
        ("MESHAWARE_NAMESPACE", "did you mean MESHAWARE_WORKLOAD__NAMESPACE?"),
        ("MESHAWARE_WORKLOAD_POD_NAME", "did you mean MESHAWARE_WORKLOAD__POD_NAME?"),
        ("MESHAWARE_VERSION", "did you mean MESHAWARE_WORKLOAD__VERSION?"),
        ("MESHAWARE_XYZZY", "no variable has a similar name"),
        ("MESHAWARE_", "no variable has a similar name"),
    ],
)
def test_a_variable_that_does_not_exist_is_reported_with_the_nearest(name: str, hint: str) -> None:
    """Its value is not: it may be anything."""
    assert unknown_variables({name: "secret"}) == [
        f"the variable {name} is set, but means nothing to meshaware: {hint}"
    ]


@pytest.mark.parametrize(
    "name",
    [
        "MESHAWARE_SERVICE_HOST",
        "MESHAWARE_SERVICE_PORT",
        "MESHAWARE_PORT",
        "MESHAWARE_PORT_8080_TCP",
        "MESHAWARE_DEMO_SERVICE_HOST",
        "MESHAWARE_DEMO_SERVICE_PORT_HTTP_WEB",
        "MESHAWARE_DEMO_PORT",
        "MESHAWARE_DEMO_PORT_8080_TCP_ADDR",
        "MESHAWARE_DEMO_PORT_53_UDP_PROTO",
    ],
)
def test_the_links_to_a_service_called_meshaware_are_not_reported(name: str) -> None:
    """Kubernetes makes them for every Service of the namespace."""
    assert unknown_variables({name: "x"}) == []


def test_right_and_foreign_variables_are_not_reported() -> None:
    """Nothing is said of what is right, or of others' names."""
    assert (
        unknown_variables(
            {
                "MESHAWARE_MESH": "istio",
                "MESHAWARE_ENVOY": "/envoy",
                "PATH": "/bin",
                "XMESHAWARE_X": "x",
                "MESHAWARE": "x",
            }
        )
        == []
    )

"""The static configuration, with redirection and without; what Envoys make of it is in the tests of meshes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from meshaware.testing.bootstrap import Ports, bootstrap, port_listener
from meshaware.testing.redirect import Exemption

PORTS = Ports(15001, 15006, 15000, 15021, 8080)


def made(exemption: Exemption | None, app: str = "127.0.0.1") -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The configuration, and its listeners by name."""
    config = bootstrap({"id": "x"}, PORTS, Path("/mesh"), 8080, None, exemption=exemption, app=app)
    return config, {listener["name"]: listener for listener in config["static_resources"]["listeners"]}


def test_on_loopback_nothing_is_redirected() -> None:
    """One outbound listener for all ports, and no listener from elsewhere."""
    config, listeners = made(None)
    assert set(listeners) == {"outbound", "ready", "inbound"}
    addresses = {listener["address"]["socket_address"]["address"] for listener in listeners.values()}
    assert addresses == {"127.0.0.1"}
    assert list(config["dynamic_resources"]) == ["cds_config"]
    assert not {"use_original_dst", "listener_filters", "default_filter_chain"} & set().union(*listeners.values())


def test_in_a_pod_outbound_connections_are_handed_on_and_inbound_ones_are_not() -> None:
    """As Istio's virtualOutbound and virtualInbound: the listener of a port is for what goes out."""
    config, listeners = made("user", "10.244.0.2")
    outbound, inbound = listeners["virtualOutbound"], listeners["virtualInbound"]
    assert outbound["use_original_dst"] is True
    assert "use_original_dst" not in inbound
    assert [each["name"] for each in inbound["listener_filters"]] == ["envoy.filters.listener.original_dst"]
    assert outbound["default_filter_chain"]["filters"][0]["typed_config"]["cluster"] == "BlackHoleCluster"
    assert "lds_config" in config["dynamic_resources"]
    # The admin stays on loopback.
    assert config["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"
    (cluster,) = (each for each in config["static_resources"]["clusters"] if each["name"].startswith("inbound"))
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    assert endpoint["address"]["socket_address"] == {"address": "10.244.0.2", "port_value": 8080}


def test_connections_are_marked_where_no_user_tells_them() -> None:
    """SO_MARK needs no root, but a network namespace of one's own."""
    assert "cluster_manager" not in made("user")[0]
    (option,) = made("mark")[0]["cluster_manager"]["upstream_bind_config"]["socket_options"]
    assert (option["name"], option["int_value"]) == (36, 1337)


def test_the_listener_of_a_port_binds_none() -> None:
    """Its connections come from the one that has the socket; its routes are those of the port."""
    listener = port_listener(Path("/mesh"), 9090)
    assert (listener["name"], listener["bind_to_port"]) == ("0.0.0.0_9090", False)
    routes = listener["filter_chains"][0]["filters"][0]["typed_config"]["rds"]
    assert routes["route_config_name"] == "9090"
    assert routes["config_source"]["path_config_source"]["path"] == "/mesh/routes-9090.json"

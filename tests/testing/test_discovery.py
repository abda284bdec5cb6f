"""Configuration through files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from meshaware.testing.discovery import CLUSTERS, ROUTES, Resources, accepted_version, publish, refusals


def test_the_version_follows_the_content_and_nothing_else(tmp_path: Path) -> None:
    """Envoy keeps the old version of what did not change."""
    one = publish(tmp_path, CLUSTERS, [{"name": "a", "type": "STATIC"}])
    assert publish(tmp_path, CLUSTERS, [{"type": "STATIC", "name": "a"}]) == one
    assert publish(tmp_path, CLUSTERS, [{"name": "b"}]) != one
    assert [file.name for file in tmp_path.iterdir()] == ["clusters.json"]


def test_resources_are_written_with_their_type(tmp_path: Path) -> None:
    """As a DiscoveryResponse."""
    version = publish(tmp_path, ROUTES, [{"name": "http_proxy"}])
    assert json.loads((tmp_path / "routes.json").read_text()) == {
        "version_info": version,
        "resources": [{"@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "name": "http_proxy"}],
    }


@pytest.mark.parametrize(
    ("resources", "body", "version"),
    [
        (CLUSTERS, '{"configs": [{"@type": "x/a.ClustersConfigDump", "version_info": "1"}]}', "1"),
        (CLUSTERS, '{"configs": [{"@type": "x/a.ListenersConfigDump", "version_info": "2"}]}', None),
        (CLUSTERS, '{"configs": [{"@type": "x/a.ClustersConfigDump"}]}', None),
        (ROUTES, "{}", None),
    ],
)
def test_what_envoy_has_taken_is_read_from_its_dump(resources: Resources, body: str, version: str | None) -> None:
    """None, where it has taken nothing yet."""
    assert accepted_version(resources, body.encode()) == version


def test_refusals_are_added_up() -> None:
    body = b'{"stats": [{"name": "cds.update_rejected", "value": 2}, {"name": "rds.update_rejected", "value": 1}, {}]}'
    assert refusals(body) == 3

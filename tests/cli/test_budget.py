"""`meshaware budget`: what it answers, in words and in JSON, and how it fails."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshaware import RouteTable
from meshaware.client.outgoing import Outgoing
from meshaware.settings import MeshSettings

Run = Callable[..., tuple[int, str, str]]

URL = "http://inventory:8080/items/42"
HERE = ("--manifests", "inventory.yaml", "--namespace", "shop")


def answered(run: Run, *arguments: str) -> Any:
    """The JSON of an answer."""
    code, out, err = run("budget", *arguments, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_the_answer_tells_route_conditions_numbers_totals_and_course(process: Run) -> None:
    """As a process, on a terminal of ASCII."""
    assert process("budget", "get", URL, *HERE, PYTHONIOENCODING="ascii") == (
        0,
        """\
GET http://inventory:8080/items/42
routes   inventory.yaml, seen from the namespace shop

route    everyone
origin   inventory.yaml, document 1, line 18, spec.http[2]
host     inventory.shop.svc.cluster.local

virtual host inventory.shop.svc.cluster.local: its domain inventory fits inventory (exact)
  1  admin: no  (inventory.yaml, document 1, line 7, spec.http[0])
       uri prefix /admin: no, the path is /items/42
  2  premium: no  (inventory.yaml, document 1, line 12, spec.http[1])
       uri prefix /items/: yes, the path is /items/42
       header x-user-type exact premium: no, there is none
  3  everyone: yes  (inventory.yaml, document 1, line 18, spec.http[2])
       asks for nothing

budget   timeout 3s, attempts 2 (3 tries), perTryTimeout 1s, retryOn 5xx, back-off from 25ms
totals   ceiling 5.25s, tight 3.25s, each with 250ms of buffer
client   waits 5.25s (the ceiling total)

the longest course of the call, from the end of the request:
  try 1        |###########                                               | 0s to 1s
  back-off     |           .                                              | 1s to 1.025s
  try 2        |           ###########                                    | 1.025s to 2.025s
  back-off     |                      .                                   | 2.025s to 2.075s
  try 3        |                      ###########                         | 2.075s to 3s, timeout
  tight        |====================================                      | 3.25s
  ceiling      |==========================================================| 5.25s
""",
        "",
    )


def test_a_header_decides(run: Run) -> None:
    """Its name in any case, spaces around its value aside."""
    found = answered(run, "GET", URL, *HERE, "--header", "X-User-Type:  premium ")
    assert found["route"]["name"] == "premium"
    assert found["searches"][0]["candidates"][-1]["conditions"][-1] == {
        "asks": "header x-user-type exact premium",
        "verdict": "yes",
        "compared": "it is premium",
    }


def test_a_header_on_several_lines_may_be_read_in_several_ways(run: Run) -> None:
    """By the version of Envoy: the note says so."""
    twice = ("--header", "x-user-type: premium", "--header", "x-user-type: basic")
    found = answered(run, "GET", URL, *HERE, *twice)
    assert found["searches"][0]["candidates"][1]["conditions"][-1]["compared"] == (
        "it is premium,basic, or premium, or basic"
    )
    assert "the largest budget of premium, everyone holds" in found["notes"][0]
    assert "premium: maybe" in run("budget", "GET", URL, *HERE, *twice)[1]


def test_the_json_has_this_shape(run: Run) -> None:
    """It is documented, and only grows."""
    found = answered(run, "POST", URL, *HERE)
    candidates = found["searches"][0].pop("candidates")
    assert found == {
        "version": 1,
        "call": {"method": "POST", "url": URL},
        "source": {"kind": "manifests", "at": ["inventory.yaml"], "namespace": "shop"},
        "route": {
            "name": "everyone",
            "host": "inventory.shop.svc.cluster.local",
            "action": "route",
            "origin": "inventory.yaml, document 1, line 18, spec.http[2]",
        },
        "why": "",
        "searches": [
            {
                "route_configuration": "",
                "virtual_host": "inventory.shop.svc.cluster.local",
                "asked": "inventory",
                "domain": "inventory",
                "found_by": "exact",
                "path": "/items/42",
                "untried": 0,
            }
        ],
        "budget": {
            "timeout": 3.0,
            "attempts": 2,
            "per_try_timeout": 1.0,
            "retry_on": ["5xx"],
            "backoff": 0.025,
            "connect_timeout": None,
            "delay": 0.0,
        },
        "totals": {"ceiling": 5.25, "tight": 3.25, "buffer": 0.25, "policy": "ceiling"},
        "client": {"seconds": 5.25, "whole": True, "source": "route", "origin": "default"},
        "timeline": [
            {"kind": "try", "number": 1, "start": 0.0, "end": 1.0, "cut": False},
            {"kind": "backoff", "number": 1, "start": 1.0, "end": 1.025, "cut": False},
            {"kind": "try", "number": 2, "start": 1.025, "end": 2.025, "cut": False},
            {"kind": "backoff", "number": 2, "start": 2.025, "end": 2.075, "cut": False},
            {"kind": "try", "number": 3, "start": 2.075, "end": 3.0, "cut": True},
        ],
        "notes": [],
    }
    assert candidates[0] == {
        "name": "admin",
        "origin": "inventory.yaml, document 1, line 7, spec.http[0]",
        "verdict": "no",
        "conditions": [{"asks": "uri prefix /admin", "verdict": "no", "compared": "the path is /items/42"}],
    }


@pytest.mark.parametrize(
    ("variables", "client", "words"),
    [
        ({}, (60.0, False, "default"), "waits 1m for the response's headers, and so long for each silence after them"),
        (
            {"MESHAWARE_TIMEOUT": "2s", "MESHAWARE_ATTEMPTS": "1", "MESHAWARE_PER_TRY_TIMEOUT": "1s"},
            (3.25, True, "settings"),
            "waits 3.25s (the default of the settings, env MESHAWARE_TIMEOUT)",
        ),
        (
            {"MESHAWARE_PER_TRY_TIMEOUT": "1s", "MESHAWARE_BUFFER": "1s"},
            (2.0, True, "settings"),
            "waits 2s (the default of the settings, env MESHAWARE_PER_TRY_TIMEOUT)",
        ),
    ],
)
def test_without_a_route_the_default_is_told(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    client: tuple[float, bool, str],
    words: str,
) -> None:
    """And why there is none; that is an answer, no error."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = answered(run, "GET", "http://reviews/", *HERE)
    assert (found["route"], found["budget"], found["totals"]["ceiling"], found["timeline"]) == (None, None, None, [])
    assert found["why"] == "no virtual host is for reviews, which is reviews.shop.svc.cluster.local here"
    assert (found["client"]["seconds"], found["client"]["whole"], found["client"]["source"]) == client
    code, out, _ = run("budget", "GET", "http://reviews/", *HERE)
    assert code == 0
    assert "route    none: the sidecar has no route for this call\n" in out
    assert words in out
    assert "totals" not in out
    # The very client says the same.
    allowance = Outgoing(MeshSettings(), RouteTable.empty())._unrouted  # pyright: ignore[reportPrivateUsage]
    assert (allowance.head, allowance.total is not None, allowance.source) == client


def test_a_route_without_bounds_leaves_the_default_for_headers_and_silences(
    run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if variables set it: a stream's length is not theirs to bound."""
    text = (directory / "inventory.yaml").read_text()
    (directory / "inventory.yaml").write_text(re.sub(r"timeout: 3s\n.*retries:.*\n", "retries: {attempts: 0}\n", text))
    monkeypatch.setenv("MESHAWARE_TIMEOUT", "2s")
    found = answered(run, "GET", URL, *HERE)
    assert found["client"] == {
        "seconds": 2.25,
        "whole": False,
        "source": "settings",
        "origin": "env MESHAWARE_TIMEOUT",
    }
    out = run("budget", "GET", URL, *HERE)[1]
    assert "budget   timeout none, attempts 0 (1 try), perTryTimeout none\n" in out
    assert "totals   none: the mesh bounds nothing\n" in out
    assert "the longest course" not in out


def test_the_policy_of_the_settings_decides_between_the_totals(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its origin; and what deadlines are set to is noted."""
    monkeypatch.setenv("MESHAWARE_BUDGET_POLICY", "tight")
    monkeypatch.setenv("MESHAWARE_DEADLINES", "observe")
    out = run("budget", "GET", URL, *HERE)[1]
    assert "client   waits 3.25s (the tight total, env MESHAWARE_BUDGET_POLICY)\n" in out
    assert "note     deadlines are set to observe: calls that take longer are counted and logged, and not ended" in out


def test_https_is_a_tunnel(run: Run) -> None:
    """So no route holds."""
    out = run("budget", "GET", "https://inventory/", *HERE)[1]
    assert "why      https is a tunnel: the sidecar passes it on unread\n" in out


def test_a_path_that_the_sidecar_rewrites_is_noted(run: Run) -> None:
    """Both readings are searched."""
    out = run("budget", "GET", "http://inventory/x/../admin", *HERE)[1]
    assert "note     the sidecar may rewrite the path /x/../admin to /admin before it looks for a route" in out
    assert out.count("virtual host inventory") == 2


def test_a_redirect_is_noted(run: Run, directory: Path) -> None:
    """Nothing upstream is waited for."""
    text = (directory / "inventory.yaml").read_text()
    rule = "    - name: gone\n      match: [{uri: {exact: /old}}]\n      redirect: {uri: /new}\n"
    (directory / "inventory.yaml").write_text(text.replace("  http:\n", f"  http:\n{rule}"))
    out = run("budget", "GET", "http://inventory/old", *HERE)[1]
    assert "note     the sidecar answers this itself, with a redirect: nothing upstream is waited for" in out


def test_what_manifests_and_urls_say_cannot_command_a_terminal(run: Run, directory: Path) -> None:
    """Names of routes, patterns and paths; in JSON too."""
    (directory / "bad.yaml").write_text(
        """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: bad}
spec:
  hosts: [bad]
  http:
    - name: "a\\e[31m\\u202e"
      match: [{headers: {x: {exact: "\\e]0;title\\a\\x9b\\x7f"}}}]
      timeout: 1s
    - {name: "b\\e[2J\\nroute    forged", timeout: 2s}
"""
    )
    bad = ("--manifests", "bad.yaml")
    code, out, err = run("budget", "GET", "http://user:secret@bad/\u202e\x9b", *bad, "--header", "x: \x80\u2066")
    assert (code, err) == (0, "")
    assert all(line.isprintable() for line in out.splitlines())
    assert "route    b\\x1b[2J\\nroute    forged\n" in out
    assert "secret" not in out
    code, out, err = run("budget", "GET", "http://user:secret@bad/", *bad, "--json")
    assert (code, err) == (0, "")
    assert all(line.isprintable() and line.isascii() for line in out.splitlines())
    assert "secret" not in out
    assert json.loads(out)["route"]["name"] == "b\x1b[2J\nroute    forged"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["G T", URL], "METHOD: 'G T': must be a method such as GET"),
        (["GET", "/items/42"], "URL: '/items/42': must be absolute, such as http://inventory:8080/items/42"),
        (["GET", "http://a:99999/"], "URL: 'http://a:99999/': Port out of range 0-65535"),
        (["GET", "http://[a/"], "URL: 'http://[a/': Invalid IPv6 URL"),
        (["GET", "http://a/\x1b"], "URL: 'http://a/\\x1b': must have no spaces and no control characters"),
        (["GET", "http://a/b c"], "URL: 'http://a/b c': must have no spaces and no control characters"),
        (["GET", URL, "--header", "x-user-type"], "--header: 'x-user-type': must be 'name: value'"),
        (["GET", URL, "--header", "a b: c"], "--header: 'a b: c': must be 'name: value'"),
        (["GET", URL, "--header", "a: b\nc: d"], "--header: 'a: b\\nc: d': must be 'name: value'"),
        (["GET", URL, "--admin-url", "http://127.0.0.1:15000"], "--admin-url: goes with --sidecar"),
        (["GET", URL, "--sidecar", "--admin-url", "http://10.0.0.1:1"], "--admin-url: 'http://10.0.0.1:1': must be a"),
        (["GET", URL, "--namespace", "A B"], "--namespace: 'A B': must be the name of a namespace"),
        (["GET", URL], "which routes? Give --manifests PATH, or --sidecar where one runs, or set MESHAWARE_ROUTES"),
    ],
)
def test_what_the_command_line_should_have_said_is_told(run: Run, arguments: list[str], said: str) -> None:
    """With the value, and exit code 64."""
    code, out, err = run("budget", *arguments)
    assert (code, out) == (64, "")
    assert err.startswith(f"meshaware: {said}")
    assert all(line.isprintable() for line in err.splitlines())


def test_manifests_and_sidecar_exclude_each_other(run: Run) -> None:
    """As the usage says."""
    code, _, err = run("budget", "GET", URL, "--sidecar", *HERE)
    assert code == 64
    assert "not allowed with argument --sidecar" in err


def test_a_manifest_that_cannot_be_used_is_65(run: Run, directory: Path) -> None:
    """With file, line, field and rule."""
    text = (directory / "inventory.yaml").read_text()
    (directory / "inventory.yaml").write_text(text.replace("timeout: 3s", "timeout: 0s"))
    rule = "spec.http[2].timeout: 0s: must be at least 1ms; leave it out to disable"
    assert run("budget", "GET", URL, *HERE) == (65, "", f"meshaware: inventory.yaml, document 1, line 19: {rule}\n")
    code, _, err = run("budget", "GET", URL, "--manifests", "none.yaml")
    assert (code, err) == (65, "meshaware: none.yaml: there is no such file or directory\n")


def test_settings_that_cannot_be_used_are_78(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the variable and the rule; one that nobody knows is warned of."""
    monkeypatch.setenv("MESHAWARE_TIMEOUT", "15 seconds")
    monkeypatch.setenv("MESHAWARE_TIMOUT", "2s")
    code, out, err = run("budget", "GET", URL, *HERE)
    assert (code, out) == (78, "")
    assert "meshaware: warning: the variable MESHAWARE_TIMOUT is set, but means nothing to meshaware" in err
    assert "env MESHAWARE_TIMEOUT is '15 seconds'; accepted: a duration" in err


def test_what_reading_warns_of_is_said_on_standard_error(run: Run, directory: Path) -> None:
    """Once, and the loggers are as before."""
    (directory / "empty.yaml").write_text("kind: ConfigMap\napiVersion: v1\n")
    code, _, err = run("budget", "GET", URL, "--manifests", "empty.yaml")
    assert code == 0
    assert err == ("meshaware: warning: no VirtualService in empty.yaml; read there so far: 1 of kind ConfigMap\n")
    logger = logging.getLogger("meshaware")
    assert (logger.handlers, logger.propagate) == ([], True)

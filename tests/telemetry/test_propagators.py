"""Which formats of trace context the process reads and writes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import opentelemetry
import pytest
from opentelemetry import propagate, trace
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from meshaware.errors import SettingsError
from meshaware.telemetry.propagators import install_propagators

TRACE = "0af7651916cd43dd8448eb211c80319c"
OTHER = "463ac35c9f6413ad48485a3953bb6124"
W3C = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01", "tracestate": "a=1"}
B3 = {"x-b3-traceid": OTHER, "x-b3-spanid": "a2fb4a1d1a96d312", "x-b3-sampled": "1"}


def extracted(headers: dict[str, str]) -> str:
    context = trace.get_current_span(propagate.extract(headers)).get_span_context()
    return format(context.trace_id, "032x")


def test_w3c_and_b3_are_read_and_traceparent_wins() -> None:
    assert install_propagators({})

    assert extracted(W3C) == TRACE
    assert extracted(B3) == OTHER
    assert extracted({"b3": f"{OTHER}-a2fb4a1d1a96d312-1"}) == OTHER
    assert extracted({**B3, **W3C}) == TRACE
    assert extracted({**B3, "traceparent": "00-nonsense"}) == OTHER


def test_what_came_goes_on_in_the_format_it_came_in() -> None:
    install_propagators({})
    for came in (W3C, B3, {**W3C, **B3}):
        headers: dict[str, str] = {}
        propagate.inject(headers, propagate.extract(came))
        assert headers == came


def test_a_second_call_changes_nothing() -> None:
    assert install_propagators({})
    first = propagate.get_global_textmap()

    assert not install_propagators({})
    assert propagate.get_global_textmap() is first


def test_formats_that_a_variable_chose_stay() -> None:
    before = propagate.get_global_textmap()

    assert not install_propagators({"OTEL_PROPAGATORS": "tracecontext"})
    assert propagate.get_global_textmap() is before


class Wrapped(CompositePropagator):
    """What a vendor puts around the default."""


@pytest.mark.parametrize(
    "chosen",
    [
        TraceContextTextMapPropagator(),
        CompositePropagator([TraceContextTextMapPropagator()]),
        Wrapped([propagate.get_global_textmap()]),
    ],
)
def test_formats_that_code_chose_stay(chosen: TextMapPropagator) -> None:
    propagate.set_global_textmap(chosen)

    assert not install_propagators({})
    assert propagate.get_global_textmap() is chosen


def test_a_format_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PROPAGATORS", "smoke")
    monkeypatch.delattr(opentelemetry, "propagate")
    monkeypatch.delitem(sys.modules, "opentelemetry.propagate")

    with pytest.raises(SettingsError, match=r"OTEL_PROPAGATORS='smoke' cannot be used: Propagator smoke"):
        install_propagators(os.environ)


def test_a_process_that_names_such_a_format_gets_that_error(
    python: Callable[..., subprocess.Popen[str]],
) -> None:
    script = (
        "import os; from meshaware.errors import SettingsError\n"
        "from meshaware.telemetry import setup_telemetry\n"
        "try: setup_telemetry()\n"
        "except SettingsError as error: print(error)\n"
    )
    process = python("-c", script, env={"OTEL_PROPAGATORS": "b3,smoke", "OTEL_TRACES_EXPORTER": "console"})
    out, err = process.communicate(timeout=30)

    assert out.startswith("OTEL_PROPAGATORS='b3,smoke' cannot be used: Propagator smoke not found."), err

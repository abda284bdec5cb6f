"""What the standard variables ask for, and how a bad value is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshaware.errors import SettingsError
from meshaware.telemetry.variables import Batching, Periods, declared_resource, excluded_urls, read_plan, sdk_disabled

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("environ", "reason"),
    [
        ({}, "neither OTEL_EXPORTER_OTLP_ENDPOINT nor OTEL_TRACES_EXPORTER is set"),
        ({ENDPOINT: "", "OTEL_TRACES_EXPORTER": " "}, "neither OTEL_EXPORTER_OTLP_ENDPOINT nor"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318"}, "neither"),
        ({ENDPOINT: "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, "OTEL_TRACES_EXPORTER='none'"),
        ({ENDPOINT: "http://c:4318", "OTEL_SDK_DISABLED": "TRUE"}, "OTEL_SDK_DISABLED=true"),
        # What is not used is not checked.
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_SAMPLER": "sometimes"}, "OTEL_SDK_DISABLED=true"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "carrier-pigeon"}, "neither"),
    ],
)
def test_nothing_is_exported_unless_somebody_asks(environ: dict[str, str], reason: str) -> None:
    plan = read_plan(environ)

    assert plan.exporters == ()
    assert plan.reason.startswith(reason)


@pytest.mark.parametrize(
    ("environ", "exporters", "protocol", "endpoint"),
    [
        # The general endpoint is a base, the one for traces is complete.
        ({ENDPOINT: "http://c:4318"}, ("otlp",), "http/protobuf", "http://c:4318/v1/traces"),
        ({ENDPOINT: "https://c/base/"}, ("otlp",), "http/protobuf", "https://c/base/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/t"}, ("otlp",), "http/protobuf", "http://c/t"),
        (
            {ENDPOINT: "http://a:4318", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://b/t"},
            ("otlp",),
            "http/protobuf",
            "http://b/t",
        ),
        # The exporter alone means the specification's default endpoint.
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ("otlp",), "http/protobuf", "http://localhost:4318/v1/traces"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            ("otlp",),
            "grpc",
            "http://localhost:4317",
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp_proto_grpc"}, ("otlp",), "grpc", "http://localhost:4317"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp_proto_http", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            ("otlp",),
            "http/protobuf",
            "http://localhost:4318/v1/traces",
        ),
        # gRPC has no paths, and its addresses may lack a scheme.
        (
            {ENDPOINT: "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            ("otlp",),
            "grpc",
            "http://c:4317",
        ),
        ({ENDPOINT: "c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ("otlp",), "grpc", "c:4317"),
        # The variable for traces wins over the general one.
        (
            {
                ENDPOINT: "http://c",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
            },
            ("otlp",),
            "grpc",
            "http://c",
        ),
        (
            {"OTEL_TRACES_EXPORTER": "console, otlp", ENDPOINT: "http://c"},
            ("console", "otlp"),
            "http/protobuf",
            None,
        ),
        ({"OTEL_TRACES_EXPORTER": "Console"}, ("console",), "http/protobuf", ""),
        ({"OTEL_TRACES_EXPORTER": "console,console"}, ("console",), "http/protobuf", ""),
        ({"OTEL_TRACES_EXPORTER": "vendor"}, ("vendor",), "http/protobuf", ""),
        ({"OTEL_TRACES_EXPORTER": ",", ENDPOINT: "http://c"}, ("otlp",), "http/protobuf", None),
    ],
)
def test_the_standard_variables_say_where_spans_go(
    environ: dict[str, str], exporters: tuple[str, ...], protocol: str, endpoint: str | None
) -> None:
    plan = read_plan(environ)

    assert (plan.exporters, plan.protocol) == (exporters, protocol)
    assert endpoint is None or plan.endpoint == endpoint


def test_details_of_the_exporter_are_read_with_those_for_traces_first(tmp_path: Path) -> None:
    certificate = tmp_path / "ca.pem"
    certificate.touch()
    plan = read_plan(
        {
            ENDPOINT: "http://c",
            "OTEL_SDK_DISABLED": "false",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "30",
            "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "2.5",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "GZIP",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": str(certificate),
            "OTEL_EXPORTER_OTLP_INSECURE": "true",
            "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.25",
            "OTEL_BSP_MAX_QUEUE_SIZE": "4096",
            "OTEL_BSP_SCHEDULE_DELAY": "",
        }
    )

    assert (plan.timeout, plan.compression) == (2.5, "gzip")
    assert plan.batching == Batching(max_queue_size=4096)


def test_without_details_the_defaults_of_the_specification_hold() -> None:
    plan = read_plan({ENDPOINT: "http://c"})

    assert (plan.timeout, plan.compression, plan.reason) == (10.0, "none", f"{ENDPOINT} is set")


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("OTEL_SDK_DISABLED", "1", '"true" or "false"'),
        ("OTEL_TRACES_EXPORTER", "otlp,none", '"none" alone'),
        ("OTEL_TRACES_EXPORTER", "otlp,otlp_proto_grpc", "one OTLP exporter"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", '"http/protobuf" (the default) or "grpc"'),
        ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "GRPC", '"http/protobuf" (the default) or "grpc"'),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "otel-collector:4318", "an absolute URL"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://c", "an absolute URL"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://", "an absolute URL"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:99999", "an absolute URL"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://[::1", "an absolute URL"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:0/", "an absolute URL"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "seconds above 0"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "0", "seconds above 0"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "inf", "seconds above 0"),
        ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "nan", "seconds above 0"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", '"none" or "gzip" or "deflate" for http/protobuf'),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem", "the path of a PEM file"),
        ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/nowhere/key.pem", "the path of a PEM file"),
        ("OTEL_EXPORTER_OTLP_INSECURE", "yes", '"true" or "false"'),
        ("OTEL_TRACES_SAMPLER", "sometimes", '"always_on", "always_off"'),
        ("OTEL_TRACES_SAMPLER_ARG", "10", 'a ratio from "0.0" to "1.0"'),
        ("OTEL_TRACES_SAMPLER_ARG", "half", 'a ratio from "0.0" to "1.0"'),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "a whole number above 0"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "²", "a whole number above 0"),
        ("OTEL_BSP_SCHEDULE_DELAY", "5s", "a whole number above 0"),
        ("OTEL_BSP_EXPORT_TIMEOUT", "9" * 70, "a whole number above 0"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096", "at most OTEL_BSP_MAX_QUEUE_SIZE, which is 2048"),
    ],
)
def test_a_bad_value_is_refused_by_name_with_what_is_accepted(name: str, value: str, accepted: str) -> None:
    sampler = "traceidratio" if name == "OTEL_TRACES_SAMPLER_ARG" else ""
    environ = {ENDPOINT: "http://c", "OTEL_TRACES_SAMPLER": sampler, name: value}

    with pytest.raises(SettingsError) as caught:
        read_plan(environ)

    assert str(caught.value).startswith(f"{name}={value!r} cannot be used: accepted is ")
    assert accepted in str(caught.value)


def test_an_argument_that_the_sampler_does_not_read_is_not_checked() -> None:
    assert read_plan({ENDPOINT: "http://c", "OTEL_TRACES_SAMPLER_ARG": "anything"}).exporters == ("otlp",)


def test_grpc_knows_fewer_compressions() -> None:
    with pytest.raises(SettingsError, match='"none" or "gzip" for grpc'):
        read_plan(
            {
                ENDPOINT: "http://c",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
                "OTEL_EXPORTER_OTLP_COMPRESSION": "deflate",
            }
        )


def test_an_over_long_value_is_shown_in_part() -> None:
    with pytest.raises(SettingsError) as caught:
        read_plan({"OTEL_SDK_DISABLED": "x" * 5000})

    assert len(str(caught.value)) < 200
    assert "(5000 characters)" in str(caught.value)


def test_neither_an_error_nor_a_log_line_shows_a_password() -> None:
    target = read_plan({ENDPOINT: "https://user:secret@c:4318?token=secret"}).target
    with pytest.raises(SettingsError) as caught:
        read_plan({ENDPOINT: "ftp://user:secret@c:21/base?token=secret"})
    with pytest.raises(SettingsError) as unreadable:
        read_plan({ENDPOINT: "http://user:secret@[::1"})

    assert target.startswith("https://c:4318")
    assert "secret" not in target + str(caught.value) + str(unreadable.value)


def test_the_target_names_every_exporter() -> None:
    plan = read_plan({ENDPOINT: "http://c", "OTEL_TRACES_EXPORTER": "otlp,console"})

    assert plan.target == "http://c/v1/traces (http/protobuf) and console"


def test_declared_resource_attributes_are_decoded_and_the_service_name_wins() -> None:
    declared = declared_resource(
        {
            "OTEL_RESOURCE_ATTRIBUTES": "service.name=a, team=caf%C3%A9 %2C bar ,empty=,k=v=w,",
            "OTEL_SERVICE_NAME": "inventory",
        }
    )

    assert declared == {"service.name": "inventory", "team": "café , bar", "k": "v=w"}
    assert declared_resource({}) == {}


@pytest.mark.parametrize("value", ["shop", "a=b,shop", "=shop"])
def test_a_resource_attribute_without_key_or_value_is_refused(value: str) -> None:
    with pytest.raises(SettingsError, match=r"OTEL_RESOURCE_ATTRIBUTES='=?shop' cannot be used"):
        declared_resource({"OTEL_RESOURCE_ATTRIBUTES": value})


def test_excluded_urls_are_those_for_fastapi_or_the_general_ones() -> None:
    general = {"OTEL_PYTHON_EXCLUDED_URLS": "a"}

    assert excluded_urls({}) == ""
    assert excluded_urls(general) == "a"
    assert excluded_urls({**general, "OTEL_PYTHON_FASTAPI_EXCLUDED_URLS": "b,c"}) == "b,c"


def test_an_excluded_url_is_a_regular_expression() -> None:
    with pytest.raises(SettingsError, match=r"OTEL_PYTHON_EXCLUDED_URLS='\(b' cannot be used: accepted is regular exp"):
        excluded_urls({"OTEL_PYTHON_EXCLUDED_URLS": "a,(b"})


def test_disabled_is_what_the_variable_says() -> None:
    assert [sdk_disabled({"OTEL_SDK_DISABLED": value}) for value in ("", "false", "True")] == [
        False,
        False,
        True,
    ]


_NAMES = (
    "OTEL_SDK_DISABLED",
    "OTEL_TRACES_EXPORTER",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_RESOURCE_ATTRIBUTES",
)
_VALUES = st.text(st.sampled_from("ab019.,=:/ %-²é[]@?\x00")) | st.sampled_from(
    ["otlp", "none", "console", "http://c:1", "grpc", "true", "1", "traceidratio"]
)


@given(st.dictionaries(st.sampled_from(_NAMES), _VALUES))
def test_whatever_the_variables_hold_the_answer_is_a_plan_or_an_error_that_names_one(
    environ: dict[str, str],
) -> None:
    try:
        read_plan(environ)
        declared_resource(environ)
    except SettingsError as error:
        assert str(error).startswith("OTEL_")  # noqa: PT017


@pytest.mark.parametrize("signal", ["metrics", "logs"])
@pytest.mark.parametrize("environ", [{}, {ENDPOINT: "http://c:4318"}, {"OTEL_TRACES_EXPORTER": "otlp"}])
def test_metrics_and_logs_are_exported_only_if_somebody_asks_for_them(signal: Any, environ: dict[str, str]) -> None:
    plan = read_plan(environ, signal)

    assert plan.exporters == ()
    assert plan.reason == f"OTEL_{signal.upper()}_EXPORTER is not set"


@pytest.mark.parametrize("signal", ["metrics", "logs"])
def test_each_signal_has_its_variables_and_its_path(signal: Any) -> None:
    word = signal.upper()
    environ = {ENDPOINT: "http://c:4318", f"OTEL_{word}_EXPORTER": "otlp"}
    plan = read_plan(environ, signal)
    own = read_plan(
        {
            **environ,
            f"OTEL_EXPORTER_OTLP_{word}_ENDPOINT": "http://d:4317",
            f"OTEL_EXPORTER_OTLP_{word}_PROTOCOL": "grpc",
            f"OTEL_EXPORTER_OTLP_{word}_TIMEOUT": "3",
            f"OTEL_EXPORTER_OTLP_{word}_COMPRESSION": "gzip",
            # Those of another signal say nothing.
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://e:4318",
        },
        signal,
    )

    assert (plan.signal, plan.endpoint, plan.protocol) == (signal, f"http://c:4318/v1/{signal}", "http/protobuf")
    assert (own.endpoint, own.protocol, own.timeout, own.compression) == ("http://d:4317", "grpc", 3.0, "gzip")
    assert read_plan({f"OTEL_{word}_EXPORTER": "otlp"}, signal).endpoint == f"http://localhost:4318/v1/{signal}"


@pytest.mark.parametrize("signal", ["metrics", "logs"])
@pytest.mark.parametrize(
    ("environ", "exporters"),
    [
        ({}, ()),
        ({ENDPOINT: "http://c:4318"}, ("otlp",)),
        ({ENDPOINT: "http://c:4318", "OTEL_SDK_DISABLED": "true"}, ()),
        ({ENDPOINT: "http://c:4318", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}, ()),
        ({"OTEL_METRICS_EXPORTER": "console", "OTEL_LOGS_EXPORTER": "console"}, ("console",)),
    ],
)
def test_what_the_code_wants_needs_an_endpoint_and_no_veto(
    signal: Any, environ: dict[str, str], exporters: tuple[str, ...]
) -> None:
    assert read_plan(environ, signal, wanted=True).exporters == exporters


def test_metrics_have_periods_and_logs_have_batches_of_their_own() -> None:
    environ = {
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",
        "OTEL_BLRP_MAX_QUEUE_SIZE": "4096",
        "OTEL_BSP_MAX_QUEUE_SIZE": "1",
    }

    assert read_plan(environ, "metrics").periods == Periods(export_interval_millis=5000)
    assert read_plan(environ, "logs").batching == Batching(max_queue_size=4096, schedule_delay_millis=1000)


@pytest.mark.parametrize(
    ("signal", "environ", "message"),
    [
        ("metrics", {"OTEL_METRIC_EXPORT_INTERVAL": "1m"}, "OTEL_METRIC_EXPORT_INTERVAL='1m' cannot be used"),
        ("metrics", {"OTEL_METRIC_EXPORT_TIMEOUT": "-1"}, "OTEL_METRIC_EXPORT_TIMEOUT='-1' cannot be used"),
        ("metrics", {"OTEL_METRICS_EXEMPLAR_FILTER": "some"}, 'accepted is "always_on", "always_off", "trace_based"'),
        (
            "metrics",
            {"OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "sum"},
            'accepted is "cumulative", "delta", "lowmemory"',
        ),
        ("metrics", {"OTEL_METRICS_EXPORTER": "otlp,none"}, "OTEL_METRICS_EXPORTER='otlp,none' cannot be used"),
        ("metrics", {"OTEL_METRICS_EXPORTER": "otlp,otlp_proto_grpc"}, "more would send each metric twice"),
        ("logs", {"OTEL_LOGS_EXPORTER": "otlp,otlp_proto_grpc"}, "more would send each log record twice"),
        ("logs", {"OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "udp"}, "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL='udp'"),
        (
            "logs",
            {"OTEL_BLRP_MAX_QUEUE_SIZE": "5"},
            "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE='512' cannot be used: accepted is at most OTEL_BLRP_MAX_QUEUE_SIZE,",
        ),
    ],
)
def test_a_bad_value_for_a_signal_is_refused_by_its_variable(
    signal: Any, environ: dict[str, str], message: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        read_plan({"OTEL_METRICS_EXPORTER": "otlp", "OTEL_LOGS_EXPORTER": "otlp", **environ}, signal)


def test_the_variables_of_one_signal_do_not_spoil_another() -> None:
    environ = {
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_TRACES_SAMPLER": "sometimes",
        "OTEL_BSP_SCHEDULE_DELAY": "soon",
        "OTEL_BLRP_SCHEDULE_DELAY": "soon",
        "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT": "soon",
    }

    assert read_plan(environ, "metrics").exporters == ("otlp",)

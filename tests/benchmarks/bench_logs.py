"""
One log line inside a request, formatted and thrown away: plain, with the fields by hand, by the filter, as JSON; and
what the first line of a request costs more.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext

from opentelemetry.sdk.trace import TracerProvider

from meshaware.identity import Peer, find_peer
from meshaware.logs import FIELDS, MeshJsonFormatter, MeshLogFilter
from meshaware.propagation.context import Carried, bind, reset
from meshaware.propagation.headers import HeaderSet
from meshaware.propagation.hosts import HostPolicy
from meshaware.settings import MeshSettings
from tests.benchmarks.bench_middleware import HEADERS
from tests.benchmarks.harness import interleave, show, timed

PEER = "spiffe://cluster.local/ns/shop/sa/web"
XFCC = f'By=spiffe://cluster.local/ns/shop/sa/orders;Hash={"4a" * 32};Subject="";URI={PEER}'.encode()
RAW = [(name, XFCC if name == b"x-forwarded-client-cert" else value) for name, value in HEADERS]
SETTINGS = MeshSettings(
    mesh="istio", workload={"service": "orders", "namespace": "shop", "pod_name": "orders-7d9f8c6b5-x2x4z"}
)
BY_HAND: dict[str, object] = {
    "trace_id": "0af7651916cd43dd8448eb211c80319c",
    "span_id": "b7ad6b7169203331",
    "trace_sampled": True,
    "request_id": "4c7b9e2a-9a1d-9f9b-8c3e-5d1f2a3b4c5d",
    "workload": "orders",
    "namespace": "shop",
    "pod": "orders-7d9f8c6b5-x2x4z",
    "peer": PEER,
}
PLAIN = "%(asctime)s %(levelname)s %(name)s %(message)s"
FULL = PLAIN + "".join(f" %({name})s" for name in FIELDS)


class JsonByHand(logging.Formatter):
    """What a careful team writes first."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"timestamp": record.created, "level": record.levelname, "logger": record.name}
        return json.dumps(line | {"message": record.getMessage()})


class Nowhere(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)


def read_peer(headers: Iterable[tuple[bytes, bytes]]) -> Peer | None:
    return find_peer("x-forwarded-client-cert", headers)


def carried() -> Carried:
    return Carried(HeaderSet.DEFAULT.select(RAW), HostPolicy(), (read_peer, RAW))


def line(
    formatter: logging.Formatter, *filters: logging.Filter, extra: dict[str, object] | None = None
) -> Callable[[], None]:
    logger, handler = logging.Logger("shop.orders"), Nowhere()  # noqa: LOG001
    handler.setFormatter(formatter)
    for each in filters:
        handler.addFilter(each)
    logger.addHandler(handler)
    return lambda: logger.info("%d items", 3, extra=extra)


def measure_lines(title: str, span: AbstractContextManager[object], times: float) -> None:
    mesh = MeshLogFilter(SETTINGS)
    filtered = line(logging.Formatter(FULL), mesh)

    def first() -> None:
        inner = bind(carried())
        filtered()
        reset(inner)

    variants: dict[str, Callable[[], object]] = {
        "plain": line(logging.Formatter(PLAIN)),
        "all fields, extra= by hand": line(logging.Formatter(FULL), extra=BY_HAND),
        "all fields, MeshLogFilter": filtered,
        "the same, first of a request": first,
        "four fields, JSON by hand": line(JsonByHand()),
        "all fields, MeshJsonFormatter": line(MeshJsonFormatter(SETTINGS)),
        "(capturing a request)": carried,
    }
    token = bind(carried())
    with span:
        runs = {name: timed(variant, 500) for name, variant in variants.items()}
        show(f"a log line, {title}", interleave(runs, int(40 * times)))
    reset(token)


def main(times: float = 1.0) -> None:
    measure_lines("without a live span", nullcontext(), times)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("bench")
    measure_lines("with a live span", tracer.start_as_current_span("request"), times)


if __name__ == "__main__":
    main()

"""
The propagator that plain OpenTelemetry finds under the name `meshaware`.

    OTEL_PROPAGATORS=tracecontext,baggage,b3multi,meshaware opentelemetry-instrument uvicorn app:app

No code of the service imports meshaware. It stands last in the list: what those before it read or wrote wrongly, it
corrects.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence
from typing import Any, cast

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import default_setter

from meshaware.errors import SettingsError
from meshaware.flavours import FLAVOURS
from meshaware.propagation.context import current
from meshaware.propagation.headers import HeaderSet
from meshaware.propagation.hosts import HostPolicy
from meshaware.propagation.names import B3, BAGGAGE, FORMATS, SETS, TRACE_NAMES, W3C, X_B3_NAMES, Pair
from meshaware.propagation.outgoing import changes, load
from meshaware.propagation.outside import detach
from meshaware.propagation.spans import live_trace_headers
from meshaware.telemetry.formats import TraceFormat, carried_here, read_pairs

__all__ = ["MeshPropagator"]

_WRITERS = {"tracecontext": W3C, "b3multi": X_B3_NAMES, "b3": frozenset({B3})}
# What names no user and steers no route, so that it may go where the carrier does not show to whom.
_ANYWHERE = SETS["envoy"]


class MeshPropagator(TraceFormat):
    """
    Carries the mesh's headers for services that OpenTelemetry instruments and that do not know meshaware.

    What it carries, `MESHAWARE_HEADERS` adds to; who is inside the mesh, `MESHAWARE_MESH_HOSTS` and
    `MESHAWARE_CLUSTER_DOMAIN` say. To a host inside go all of them. To a host outside goes nothing, or where
    `MESHAWARE_TRACE_HOSTS` names it the trace alone: what other propagators wrote, or a redirect took along, is taken
    off again. Where the carrier shows no host, as with most clients but httpx and with queues, only
    `x-request-id` and `x-client-trace-id` go: they name no user. `baggage` is left to its own propagator, `vendors` to
    theirs.

    Raises:
        SettingsError: One of these variables has a value that cannot be used.
    """

    def __init__(self) -> None:
        mesh = os.environ.get("MESHAWARE_MESH", "").strip().lower()
        if mesh not in ("", "auto", *FLAVOURS):
            accepted = ", ".join(["auto", *FLAVOURS])
            raise SettingsError(f"MESHAWARE_MESH={mesh[:80]!r} cannot be used: accepted is one of {accepted}")
        super().__init__(one=mesh in FLAVOURS and FLAVOURS[mesh].one_trace_format)
        self._headers = HeaderSet.DEFAULT | HeaderSet.parse(os.environ.get("MESHAWARE_HEADERS", ""))
        self._hosts = HostPolicy(
            os.environ.get("MESHAWARE_MESH_HOSTS", ""),
            cluster_domain=os.environ.get("MESHAWARE_CLUSTER_DOMAIN", "").strip() or "cluster.local",
            trace_hosts=os.environ.get("MESHAWARE_TRACE_HOSTS", ""),
        )
        self._behind = {BAGGAGE, _encoded(os.environ.get("MESHAWARE_DEADLINE_HEADER", "").strip().lower())}
        listed = [name.strip() for name in os.environ.get("OTEL_PROPAGATORS", "").split(",")]
        self._written_before = frozenset[bytes]().union(*(_WRITERS.get(name, ()) for name in listed))

    @property
    def fields(self) -> set[str]:
        """Every header that `inject` may write, but for those that only a prefix names."""
        return super().fields | {name.decode() for name in self._headers.names - TRACE_NAMES - {BAGGAGE}}

    def inject(self, carrier: Any, context: Context | None = None, setter: Any = default_setter) -> None:
        """Write what is carried, and the position of the context's span, as far as the carrier's host may get them."""
        came = carried_here(context)
        plain = {name: value for name, value in came.items() if name not in TRACE_NAMES and name != BAGGAGE}
        pairs = _pairs(carrier)
        present = None if pairs is None else dict(pairs)
        host = None if present is None else present.get(b"host")
        carried = current()
        hosts = self._hosts if carried is None else carried.hosts
        if present is not None and host is not None and not hosts.inside(host):
            own = {name for name, _ in detach(tuple(present.items()))}
            _take_off(carrier, {name for name, value in present.items() if name not in own or plain.get(name) == value})
            if hosts.traced(host):
                self._write(carrier, [pair for pair in self._story(came, context) if pair[0] in W3C], setter)
            return
        if host is None:
            plain = {name: value for name, value in plain.items() if name in _ANYWHERE}
        self._write_trace(carrier, self._story(came, context), present, setter)
        self._write(carrier, [pair for pair in plain.items() if present is None or pair[0] not in present], setter)

    def _story(self, came: Mapping[bytes, bytes], context: Context | None) -> Sequence[Pair]:
        cargo = load({name: value for name, value in came.items() if name in FORMATS}, one=self._one)
        return changes(cargo, {}, live_trace_headers(came, context), one=self._one).add

    def _write_trace(
        self, carrier: Any, story: Sequence[Pair], present: Mapping[bytes, bytes] | None, setter: Any
    ) -> None:
        if not story:
            return
        if present is None:
            # What cannot be looked into may keep every line: the propagators before this one have written theirs.
            self._write(carrier, [pair for pair in story if pair[0] not in self._written_before], setter)
            return
        # They wrote the same span; what they wrote otherwise gives way.
        names = {name for name, _ in story}
        _take_off(carrier, {name for name in present if name in FORMATS and name not in names})
        changed = [pair for pair in story if present.get(pair[0]) != pair[1]]
        _take_off(carrier, {name for name, _ in changed if name in present})
        self._write(carrier, changed, setter)

    def _write(self, carrier: Any, pairs: Iterable[Pair], setter: Any) -> None:
        for name, value in pairs:
            setter.set(carrier, name.decode(), value.decode("latin-1"))

    def _found(self, carrier: Any, getter: Any) -> list[Pair]:
        pairs = read_pairs(carrier, getter, self._headers, self._headers.names)
        return [pair for pair in pairs if pair[0] not in self._behind]


def _pairs(carrier: object) -> list[Pair] | None:
    """The headers of a carrier, with lower-case names; None where it cannot be looked into."""
    if isinstance(carrier, Mapping):
        items: Iterable[tuple[object, object]] = cast("Mapping[object, object]", carrier).items()
    elif isinstance(carrier, list) and all(_is_pair(each) for each in cast("list[object]", carrier)):
        items = cast("list[tuple[object, object]]", carrier)
    else:
        return None
    return [(_encoded(name).lower(), _encoded(value)) for name, value in items]


def _is_pair(each: object) -> bool:
    return isinstance(each, tuple) and len(cast("tuple[object, ...]", each)) == len(("name", "value"))


def _encoded(text: object) -> bytes:
    return text if isinstance(text, bytes) else str(text).encode("latin-1", "replace")


def _take_off(carrier: object, names: Collection[bytes]) -> None:
    if isinstance(carrier, MutableMapping):
        headers = cast("MutableMapping[object, object]", carrier)
        for name in [name for name in headers if _encoded(name).lower() in names]:
            del headers[name]
    elif isinstance(carrier, list):
        lines = cast("list[tuple[object, object]]", carrier)
        lines[:] = [line for line in lines if _encoded(line[0]).lower() not in names]

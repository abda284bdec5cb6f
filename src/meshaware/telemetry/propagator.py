"""
The propagator that plain OpenTelemetry finds under the name `meshaware`.

    OTEL_PROPAGATORS=tracecontext,baggage,b3multi,meshaware opentelemetry-instrument uvicorn app:app

No code of the service imports meshaware. It stands last in the list: what those before it read or wrote wrongly, it
corrects.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from typing import Any, cast

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import default_setter

from meshaware.errors import SettingsError
from meshaware.flavours import FLAVOURS
from meshaware.propagation.context import current
from meshaware.propagation.headers import HeaderSet
from meshaware.propagation.hosts import HostPolicy
from meshaware.propagation.names import BAGGAGE, SETS, TRACE_NAMES, Pair
from meshaware.propagation.outgoing import changes, load
from meshaware.propagation.spans import live_trace_headers
from meshaware.telemetry.formats import TraceFormat, carried_here, read_pairs

__all__ = ["MeshPropagator"]

_TRACE = (SETS["w3c"] | SETS["b3"]) - {BAGGAGE}
# What names no user and steers no route, so that it may go where the carrier does not show to whom.
_ANYWHERE = SETS["envoy"]


class MeshPropagator(TraceFormat):
    """
    Carries the mesh's headers for services that OpenTelemetry instruments and that do not know meshaware.

    What it carries, `MESHAWARE_HEADERS` adds to; who is inside the mesh, `MESHAWARE_MESH_HOSTS` and
    `MESHAWARE_CLUSTER_DOMAIN` say. To a host inside go all of them; to a host outside none, and what a redirect took
    along is taken off again. Where the carrier shows no host, as with most clients but httpx and with queues, only
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
        )

    @property
    def fields(self) -> set[str]:
        """Every header that `inject` may write, but for those that only a prefix names."""
        return super().fields | {name.decode() for name in self._headers.names - TRACE_NAMES - {BAGGAGE}}

    def inject(self, carrier: Any, context: Context | None = None, setter: Any = default_setter) -> None:
        """Write what is carried, and the position of the context's span, as far as the carrier's host may get them."""
        inside = self._inside(carrier)
        came = carried_here(context)
        plain = {name: value for name, value in came.items() if name not in TRACE_NAMES and name != BAGGAGE}
        present = _present(carrier)
        if inside is False:
            _take_off(carrier, [name for name, value in plain.items() if present.get(name) == value])
            return
        if inside is None:
            plain = {name: value for name, value in plain.items() if name in _ANYWHERE}
        self._inject_trace(carrier, came, present, context, setter)
        for name, value in plain.items():
            if name not in present:
                setter.set(carrier, name.decode(), value.decode("latin-1"))

    def _inject_trace(
        self, carrier: Any, came: Mapping[bytes, bytes], present: Mapping[bytes, bytes], context: Context | None, setter: Any
    ) -> None:
        cargo = load({name: value for name, value in came.items() if name in _TRACE}, one=self._one)
        live = live_trace_headers(came, context)
        story = changes(cargo, {}, live, one=self._one).add
        if not story:
            return
        # The propagators before this one wrote the same span; what they wrote otherwise gives way.
        names = {name for name, _ in story}
        _take_off(carrier, [name for name in present if name in _TRACE and name not in names])
        for name, value in story:
            if present.get(name) != value:
                setter.set(carrier, name.decode(), value.decode("latin-1"))

    def _found(self, carrier: Any, getter: Any) -> list[Pair]:
        keys: list[str] = getter.keys(carrier)
        asked = self._headers.names | {key for each in keys if (key := each.lower().encode()) in self._headers}
        return [pair for pair in read_pairs(carrier, getter, self._headers, asked) if pair[0] != BAGGAGE]

    def _inside(self, carrier: Any) -> bool | None:
        """Whether the host that a carrier shows is inside the mesh; None where it shows none."""
        if not isinstance(carrier, Mapping):
            return None
        shown = cast("Mapping[str, Any]", carrier)
        host = shown.get("host") or shown.get("Host")
        if host is None:
            return None
        carried = current()
        return (self._hosts if carried is None else carried.hosts).inside(host)


def _present(carrier: Any) -> dict[bytes, bytes]:
    if not isinstance(carrier, Mapping):
        return {}
    return {
        str(name).lower().encode(): str(value).encode("latin-1", "replace")
        for name, value in cast("Mapping[Any, Any]", carrier).items()
    }


def _take_off(carrier: Any, names: list[bytes]) -> None:
    if isinstance(carrier, MutableMapping):
        unwanted = {name.decode() for name in names}
        headers = cast("MutableMapping[str, Any]", carrier)
        for name in [name for name in headers if name.lower() in unwanted]:
            del headers[name]

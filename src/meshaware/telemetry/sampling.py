"""Which spans a tracer provider of meshaware's keeps, and who says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import SpanKind

from meshaware.errors import SettingsError
from meshaware.propagation.spans import arrival
from meshaware.telemetry.watch import SamplingWatch

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Link, TraceState
    from opentelemetry.util.types import Attributes

    from meshaware.settings import MeshSettings

__all__ = ["MeshSampler", "Sampling", "choose_sampling", "make_sampler"]

_STANDARD = "OTEL_TRACES_SAMPLER"
_SHOWN = 80


class Sampling(NamedTuple):
    """
    Which spans are kept.

    Attributes:
        mode: As `MeshSettings.sampling`; None where `OTEL_TRACES_SAMPLER` decides.
        origin: Who says so, as `MeshSettings.origins` does.
    """

    mode: Literal["mesh", "always"] | float | None = "mesh"
    origin: str = "default"

    def __str__(self) -> str:
        """In words that are fit for a log."""
        kept = "kept as the sampler says"
        if self.mode == "mesh":
            kept = "kept where the mesh samples, and where a trace begins here"
        elif self.mode == "always":
            kept = "all kept, whatever the mesh decides"
        elif self.mode is not None:
            kept = f"kept where the mesh samples, and of {self.mode:g} of the traces that begin here"
        return f"{kept} ({self.origin})"


def choose_sampling(settings: MeshSettings, environ: Mapping[str, str]) -> Sampling:
    """
    Decide which spans are kept: what the settings say, and without that what `OTEL_TRACES_SAMPLER` says.

    Raises:
        SettingsError: Both say something.
    """
    standard = environ.get(_STANDARD, "").strip()
    origin = settings.origins["sampling"]
    if not standard:
        return Sampling(settings.sampling, "argument sampling" if origin == "argument" else origin)
    shown = f"{_STANDARD}={standard[:_SHOWN]!r}"
    if origin == "default":
        return Sampling(None, f"env {_STANDARD}")
    own = f"MESHAWARE_SAMPLING={settings.sampling!r}" if origin != "argument" else f"sampling={settings.sampling!r}"
    raise SettingsError(
        f"{own} and {shown} both say which spans are kept. Remove {own.partition('=')[0]} to have OpenTelemetry's"
        f" own sampler, or {_STANDARD} to have meshaware's"
    )


def make_sampler(sampling: Sampling, watch: SamplingWatch | None = None) -> Sampler | None:
    """
    Build the sampler.

    Where everything is kept, OpenTelemetry marks every span as sampled. What the mesh decided is still what the
    span context in the extracted context says: no sampler changes it, nor its `tracestate`.

    Args:
        sampling: What was chosen.
        watch: Told of each request whose trace the mesh decides on. Default: one that says once in the log that
            none is sampled.

    Returns:
        None where the SDK shall read its own variables.
    """
    if sampling.mode is None:
        return None
    if sampling.mode == "always":
        return ALWAYS_ON
    root = ALWAYS_ON if sampling.mode == "mesh" else _OwnRatio(sampling.mode)
    return MeshSampler(root, SamplingWatch() if watch is None else watch)


class MeshSampler(ParentBased):
    """
    Keeps what the mesh samples; a root sampler decides on traces that begin here.

    Args:
        root: Asked where there is no decision yet.
        watch: Told of each server span whose parent is remote, and what was decided there.
    """

    def __init__(self, root: Sampler, watch: SamplingWatch) -> None:
        super().__init__(
            root,
            remote_parent_sampled=_Counted(ALWAYS_ON, watch, sampled=True),
            remote_parent_not_sampled=_Counted(ALWAYS_OFF, watch, sampled=False),
        )
        self.watch = watch


class _OwnRatio(TraceIdRatioBased):
    """A ratio of the traces that begin here, but for those of which a caller wants to see the spans (`b3: 1`)."""

    def should_sample(  # noqa: PLR0917 - the SDK's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        arrived = arrival(parent_context)
        if arrived is not None and arrived.position is not None and arrived.position.sampled:
            return ALWAYS_ON.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)
        return super().should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)


class _Counted(Sampler):
    """Has the requests counted on which another sampler decides."""

    def __init__(self, inner: Sampler, watch: SamplingWatch, *, sampled: bool) -> None:
        self._inner = inner
        self._saw = watch.saw
        self._sampled = sampled

    def should_sample(  # noqa: PLR0917 - the SDK's signature
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        if kind is SpanKind.SERVER:
            self._saw(self._sampled)
        return self._inner.should_sample(parent_context, trace_id, name, kind, attributes, links, trace_state)

    def get_description(self) -> str:
        return self._inner.get_description()

"""What one call may ask for."""

from __future__ import annotations

import math

import pytest

from meshaware import call_options
from meshaware.client.options import OPTIONS, CallOptions


def test_options_travel_as_one_extension() -> None:
    """So they go through any httpx call."""
    assert call_options(timeout=2.0) == {OPTIONS: CallOptions(timeout=2.0)}
    assert call_options(deadline=12.5) == {OPTIONS: CallOptions(deadline=12.5)}
    assert call_options(detached=True) == {OPTIONS: CallOptions(detached=True)}


@pytest.mark.parametrize("timeout", [0, -1, math.inf, math.nan])
def test_a_timeout_is_a_number_above_zero(timeout: float) -> None:
    """The message names the value and the way out."""
    with pytest.raises(ValueError, match=f"timeout={timeout!r}.*leave it out"):
        call_options(timeout=timeout)


@pytest.mark.parametrize("deadline", [math.inf, math.nan])
def test_a_deadline_is_an_instant(deadline: float) -> None:
    """The message shows one."""
    with pytest.raises(ValueError, match=r"time\.monotonic\(\) \+ 2"):
        call_options(deadline=deadline)


@pytest.mark.parametrize("other", [{"timeout": 1.0}, {"deadline": 1.0}])
def test_detached_stands_alone(other: dict[str, float]) -> None:
    """No total and a total cannot both hold."""
    with pytest.raises(ValueError, match="detached=True"):
        call_options(detached=True, **other)  # pyright: ignore[reportArgumentType]

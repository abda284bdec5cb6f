"""The bookshop is as promised, and its waterfall draws any spans."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

Load = Callable[[str], ModuleType]

MILLISECOND = 1_000_000


@pytest.fixture(scope="session")
def waterfall(load: Load) -> ModuleType:
    """The module that draws."""
    return load("bookshop/waterfall.py")


def span(waterfall: ModuleType, identity: str, parent: str = "", start: int = 0, end: int = 10, **more: Any) -> Any:
    """A span; times in milliseconds."""
    facts = {
        "trace": "t",
        "service": "shop",
        "by": "app",
        "kind": "server",
        "name": f"span {identity}",
        **more,
    }
    times = {"start": start * MILLISECOND, "end": end * MILLISECOND}
    return waterfall.Span(id=identity, parent=parent, attributes={}, **times, **facts)


def test_children_stand_under_their_parents_in_the_order_of_their_begin(waterfall: ModuleType) -> None:
    """Whatever order the spans came in."""
    spans = [
        span(waterfall, "c", "a", 5, 9),
        span(waterfall, "d", "b", 2, 3),
        span(waterfall, "b", "a", 1, 4),
        span(waterfall, "a"),
    ]
    names = [re.findall(r"span (\w)", line)[0] for line in waterfall.draw(spans)]
    assert names == ["a", "b", "d", "c"]


def test_bars_share_one_time_axis(waterfall: ModuleType) -> None:
    """A span in the second half has its bar in the second half; who made it shows in the bar."""
    spans = [span(waterfall, "a"), span(waterfall, "b", "a", 5, 10, by="envoy", kind="client")]
    whole, half = waterfall.draw(spans, width=80)
    assert whole.count("█") == 2 * half.count("━")
    assert half.index("━") > whole.index("█")
    assert half.rindex("━") == whole.rindex("█")
    assert whole.endswith("10.0 ms")
    assert half.endswith("5.0 ms")


def test_a_span_without_its_parent_is_drawn_as_a_tree_of_its_own(waterfall: ModuleType) -> None:
    """Spans get lost; what came is shown."""
    lines = waterfall.draw([span(waterfall, "a"), span(waterfall, "b", "lost", 3, 4)])
    assert [line.index("<-") for line in lines] == [lines[0].index("<-")] * 2


def test_no_spans_are_no_lines(waterfall: ModuleType) -> None:
    """An empty trace draws nothing."""
    assert waterfall.draw([]) == []


IDS = st.sampled_from("abcdef")
TIMES = st.integers(10**18, 10**18 + 10**10)


@given(st.data(), st.integers(60, 200))
def test_any_spans_are_drawn_once_each_within_the_width(waterfall: ModuleType, data: st.DataObject, width: int) -> None:
    """Cycles, doubled ids, clocks that run backwards: one line a span, none wider than asked."""
    spans = [
        waterfall.Span("t", *ids, "service", by, kind, name, start, end, {})
        for ids, by, kind, name, start, end in data.draw(
            st.lists(
                st.tuples(
                    st.tuples(IDS, IDS),
                    st.sampled_from(["app", "envoy", "?"]),
                    st.sampled_from(["server", "client", "internal"]),
                    st.text("xyz", max_size=80),
                    TIMES,
                    TIMES,
                )
            )
        )
    ]
    lines = waterfall.draw(spans, width=width)
    assert len(lines) == len(spans)
    assert all(len(line) <= width for line in lines)


def processes_of(session: int) -> list[str]:
    """The command lines of the processes of one session, read from /proc."""
    found: list[str] = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            facts = status.read_text().rpartition(")")[2].split()
            command = (status.parent / "cmdline").read_text().replace("\0", " ")
        except OSError:
            continue
        if int(facts[3]) == session and facts[0] != "Z":
            found.append(command)
    return found


@pytest.mark.envoy
@pytest.mark.timeout(150)
def test_every_scene_is_as_promised_and_nothing_is_left(examples: Path) -> None:
    """`python examples/bookshop` in a session of its own: exit code 0, seven rows of ok, no process left."""
    demo = subprocess.Popen(
        [sys.executable, str(examples / "bookshop")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = demo.communicate(timeout=120)
    finally:
        demo.kill()
        demo.wait(5)
    assert demo.returncode == 0, output
    table = output[output.rindex("scene ") :]
    assert re.findall(r"^(\d) .* ok$", table, re.MULTILINE) == list("1234567"), table
    assert "7 of 7 scenes as promised" in table
    assert processes_of(demo.pid) == []


@pytest.mark.envoy
@pytest.mark.timeout(90)
def test_ctrl_c_ends_everything(examples: Path) -> None:
    """Interrupted while the shop opens: exit code 130, no process left."""
    demo = subprocess.Popen(
        [sys.executable, str(examples / "bookshop")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert demo.stdout is not None
    try:
        for line in demo.stdout:
            if "late sidecar" in line:
                break
        assert len(processes_of(demo.pid)) > 5
        demo.send_signal(signal.SIGINT)
        output, _ = demo.communicate(timeout=40)
    finally:
        demo.kill()
        demo.wait(5)
    assert demo.returncode == 130, output
    assert processes_of(demo.pid) == []

"""Child processes that cannot outlive this one."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from meshaware.testing.processes import ProcessGroup, end


def test_closing_the_group_ends_what_is_left_in_it(tmp_path: Path) -> None:
    """And collects its output meanwhile."""
    own, log = tmp_path / "own", tmp_path / "log"
    own.mkdir()
    (own / "file").touch()
    group = ProcessGroup(own)
    process = group.spawn(["sh", "-c", "echo out; echo err >&2; exec sleep 60"], log=log)
    deadline = time.monotonic() + 5
    while log.read_text() != "out\nerr\n" and time.monotonic() < deadline:
        time.sleep(0.01)
    group.close()
    assert process.wait(5) == -9
    assert log.read_text() == "out\nerr\n"
    assert not own.exists()
    group.close()


def test_a_group_without_processes_has_no_watcher(tmp_path: Path) -> None:
    ProcessGroup(tmp_path).close()
    assert tmp_path.exists()


def test_a_process_gets_nothing_of_the_tests_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But its PATH."""
    monkeypatch.setenv("HTTP_PROXY", "http://proxy")
    group, log = ProcessGroup(tmp_path / "own"), tmp_path / "log"
    group.spawn(["env"], log=log).wait(5)
    group.close()
    assert "HTTP_PROXY" not in log.read_text()


@pytest.mark.parametrize("kill", [False, True])
def test_end_waits_and_then_kills(kill: bool) -> None:
    """Whether or not the process hears."""
    with subprocess.Popen(["sh", "-c", "trap '' TERM; echo ready; sleep 60 & wait"], stdout=subprocess.PIPE) as deaf:
        assert deaf.stdout is not None
        deaf.stdout.readline()
        end(deaf, 0.05, kill=kill)
        assert deaf.returncode == -9
        end(deaf, 0.05)
        # The sleep is no child of ours, and holds the other end.
        deaf.stdout.close()

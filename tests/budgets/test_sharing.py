"""What processes of one pod leave for each other: theirs alone, whole or not at all, and never believed blindly."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meshaware.budgets.sharing import Attempt, Segment, Share

ADMIN = "http://127.0.0.1:15000"


@pytest.fixture(name="share")
def _share(tmp_path: Path) -> Share:
    return Share(ADMIN, max_bytes=1000, directory=tmp_path)


def segment(body: bytes, *configs: tuple[str, str]) -> Segment:
    return Segment(configs, len(body), lambda: body)


def files(directory: Path) -> dict[str, Path]:
    return {path.suffix: path for path in directory.glob("meshaware-*/*")}


def test_what_one_saves_another_reads(share: Share, tmp_path: Path) -> None:
    """Replies, the route configurations they are about, and connect timeouts."""
    assert share.version() is None
    with share.open() as saved:
        assert saved is None
    version = share.save([segment(b"one", ("80", "t1"), ("81", "t2")), segment(b"", ("82", ""))], {"c": 1.5})
    other = Share(ADMIN, max_bytes=1000, directory=tmp_path)
    assert other.version() == version
    with other.open() as saved:
        assert saved is not None
        assert saved.version == version
        assert saved.clusters == {"c": 1.5}
        assert saved.configs == [(("80", "t1"), ("81", "t2")), (("82", ""),)]
        assert [each.body() for each in saved.segments()] == [b"one", b""]
        again = share.save([*saved.segments(), segment(b"more", ("83", "t3"))], {})
    assert again != version
    with other.open() as saved:
        assert saved is not None
        assert [saved.body(number) for number in range(3)] == [b"one", b"", b"more"]
    assert Share("http://127.0.0.1:15001", max_bytes=1000, directory=tmp_path).version() is None


def test_nobody_else_can_read_or_write_it(share: Share, tmp_path: Path) -> None:
    """A directory and files of this user alone; nothing is left beside them."""
    share.save([segment(b"x", ("80", "t"))], {})
    lock = share.lock()
    assert lock is not None
    lock.release()
    (directory,) = tmp_path.iterdir()
    assert directory.name == f"meshaware-{os.geteuid()}"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert sorted(files(tmp_path)) == [".data", ".lock"]
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


def test_one_process_asks_at_a_time(share: Share, tmp_path: Path) -> None:
    """And says when it did, and what came of it."""
    assert share.last_attempt() == Attempt()
    lock = share.lock()
    assert lock is not None
    other = Share(ADMIN, max_bytes=1000, directory=tmp_path)
    assert other.lock() is None
    share.note(lock, Attempt(5.0, 4.0, "refused"))
    assert other.last_attempt() == Attempt(5.0, 4.0, "refused")
    share.note(lock, Attempt(6.0, 6.0, "\N{SNOWMAN}" * 10_000))
    assert other.last_attempt().at == 6.0
    assert other.last_attempt().error
    share.note(lock, Attempt(7.0, 7.0))
    assert other.last_attempt() == Attempt(7.0, 7.0)
    lock.release()
    lock.release()
    after = other.lock()
    assert after is not None
    after.release()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_lock_ends_with_its_process_and_not_with_a_fork(share: Share, tmp_path: Path) -> None:
    """A forked child lets go of its copy and leaves the parent's alone."""
    lock = share.lock()
    assert lock is not None
    child = os.fork()
    if child == 0:  # pragma: no cover (in another process)
        os._exit(0 if lock.descriptor == -1 and share.lock() is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert Share(ADMIN, max_bytes=1000, directory=tmp_path).lock() is None
    lock.release()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover (in another process)
        mine = share.lock()
        os.write(write, b"y" if mine is not None else b"n")
        signal.pause()
    assert os.read(read, 1) == b"y"
    assert share.lock() is None
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)
    after = share.lock()
    assert after is not None
    after.release()


def _link(path: Path) -> None:
    target = path.with_name("target")
    path.rename(target)
    path.symlink_to(target)


def _hard_link(path: Path) -> None:
    os.link(path, path.with_name("other"))


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir(mode=0o700)


def _readable(path: Path) -> None:
    path.chmod(0o644)


@pytest.mark.parametrize("change", [_link, _hard_link, _pipe, _directory, _readable])
@pytest.mark.parametrize("suffix", [".data", ".lock"])
def test_a_file_that_is_not_quite_ours_is_not_touched(
    share: Share, tmp_path: Path, suffix: str, change: Callable[[Path], None]
) -> None:
    """A link, a pipe, a directory, one that others may read: an error, and no waiting."""
    share.save([segment(b"x", ("80", "t"))], {})
    lock = share.lock()
    assert lock is not None
    lock.release()
    change(files(tmp_path)[suffix])
    with pytest.raises(OSError):
        if suffix == ".lock":
            share.last_attempt()
        else:
            with share.open():
                pass
    if suffix == ".lock":
        with pytest.raises(OSError):
            share.lock()


def test_a_directory_that_is_not_quite_ours_is_not_used(tmp_path: Path) -> None:
    """One that others may enter, a link, a file."""
    place = tmp_path / f"meshaware-{os.geteuid()}"
    share = Share(ADMIN, max_bytes=1000, directory=tmp_path)
    place.mkdir(mode=0o755)
    place.chmod(0o755)
    with pytest.raises(PermissionError, match="others may use it"):
        share.version()
    place.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    place.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        share.lock()
    place.unlink()
    place.write_text("")
    with pytest.raises(OSError):
        share.save([], {})
    with pytest.raises(OSError):
        Share(ADMIN, max_bytes=1000, directory=tmp_path / "missing").version()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_directory_of_somebody_elses_is_not_used(share: Share, tmp_path: Path) -> None:
    """Who made it could put anything there."""
    share.version()
    os.chown(tmp_path / f"meshaware-{os.geteuid()}", 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to another user"):
        share.version()


def head(segments: Any, clusters: Any = None) -> bytes:
    text = json.dumps({"clusters": {} if clusters is None else clusters, "segments": segments}).encode()
    return b"meshaware routes 1 %010d\n" % len(text) + text


_NONSENSE: list[bytes] = [
    b"",
    b"hello",
    b"meshaware routes 1 9999999999\n",
    b"meshaware routes 1 0000000002\n{}",
    head(5),
    head([], clusters=[]),
    head([], clusters={"c": -1}),
    head([], clusters={"c": "x"}),
    head([{"size": 3, "configs": [["80", "t"]]}]),  # cut off
    head([{"size": 1, "configs": [["80", "t"]]}]) + b"xx",  # too long
    head([{"size": -1, "configs": []}]),
    head([{"size": 1001, "configs": []}]) + b"x" * 1001,
    head([{"size": 1e400, "configs": []}]),
    head([{"size": 0, "configs": [["80"]]}]),
    head([{"size": 0, "configs": 1}]),
]


@pytest.mark.parametrize("content", _NONSENSE)
def test_nonsense_is_no_data(share: Share, tmp_path: Path, content: bytes) -> None:
    """Whoever wrote it; it is replaced by the next who asks."""
    share.save([], {})
    files(tmp_path)[".data"].write_bytes(content)
    with share.open() as saved:
        assert saved is None
    share.save([segment(b"x", ("80", "t"))], {})
    with share.open() as saved:
        assert saved is not None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.binary(max_size=300))
def test_any_note_is_read_as_an_attempt_or_as_none(share: Share, tmp_path: Path, content: bytes) -> None:
    """It may be half written."""
    lock = share.lock()
    assert lock is not None
    lock.release()
    files(tmp_path)[".lock"].write_bytes(content)
    attempt = share.last_attempt()
    assert attempt.at >= 0
    assert attempt.confirmed >= 0


@pytest.mark.parametrize(
    "note", ['[1e400, 0, ""]', '[1, -1, ""]', '[NaN, 0, ""]', "[1, 2]", '["x", 1, ""]', "[" * 9999]
)
def test_a_note_that_says_no_times_is_none(share: Share, tmp_path: Path, note: str) -> None:
    """Times are finite, and not before the epoch."""
    lock = share.lock()
    assert lock is not None
    lock.release()
    files(tmp_path)[".lock"].write_text(note)
    assert share.last_attempt() == Attempt()


def test_what_nobody_asks_for_any_more_is_removed(share: Share, tmp_path: Path) -> None:
    """After a day; one's own files stay."""
    share.save([segment(b"x", ("80", "t"))], {})
    (directory,) = tmp_path.iterdir()
    mine = files(tmp_path)[".data"]
    for name in ("routes-other.data", "routes-other.data.0123", "routes-fresh.data", "something"):
        (directory / name).write_text("")
    old = time.time() - 100_000
    for path in (mine, *directory.glob("*other*"), directory / "something"):
        os.utime(path, (old, old))
    share.save([segment(b"y", ("80", "t"))], {})
    assert sorted(path.name for path in directory.iterdir()) == sorted([mine.name, "routes-fresh.data", "something"])


def test_a_save_that_fails_leaves_what_was_there(share: Share, tmp_path: Path) -> None:
    """And nothing half written."""
    version = share.save([segment(b"x", ("80", "t"))], {})

    def fail() -> bytes:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        share.save([Segment((("80", "t"),), 1, fail)], {})
    assert share.version() == version
    assert list(files(tmp_path)) == [".data"]

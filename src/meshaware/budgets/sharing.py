"""
What one process of a pod has read from the sidecar, for the other processes: two files in a private directory.

| file | what is in it |
|---|---|
| `routes-<key>.lock` | held by the process that asks the sidecar; when it was asked last, and what came of it |
| `routes-<key>.data` | what the sidecar answered, replaced as a whole |

The directory, `meshaware-<uid>` where temporary files are, belongs to this user and to nobody else, and so do the
files; whatever else is found there is not used. What they say is read as the sidecar's own words would be: bounded, and
checked. The key is made of the admin address.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast
from weakref import WeakSet

try:
    import fcntl
except ImportError:  # pragma: no cover (Windows: every process asks for itself)
    fcntl = None  # type: ignore[assignment]

__all__ = ["AVAILABLE", "Attempt", "Lock", "SavedFile", "Segment", "Share", "Version"]

AVAILABLE = fcntl is not None
"""Whether this system has what it takes."""

Version = tuple[int, int, int]
"""What a file is known by: another one has another."""

_MAGIC = b"meshaware routes 1 %010d\n"
_MAX_HEAD = 4 << 20
_NOTE = 1024
_MAX_ERROR = 500
_KEPT = 86_400.0  # seconds; of admin addresses that nobody asks any more
_CLOSED = -1
_locks: WeakSet[Lock] = WeakSet()


class Attempt(NamedTuple):
    """
    When the sidecar was asked last, by any process; wall-clock seconds, and 0 for never.

    Attributes:
        at: The last time.
        confirmed: The last time that it answered.
        error: Why it did not at the last time; empty if it did.
    """

    at: float = 0.0
    confirmed: float = 0.0
    error: str = ""


class Segment(NamedTuple):
    """
    One reply of the sidecar.

    Attributes:
        configs: The route configurations that it is the newest word about: name, and when Envoy changed it last.
        size: How long the reply is.
        body: The reply, when it is asked for.
    """

    configs: tuple[tuple[str, str], ...]
    size: int
    body: Callable[[], bytes]


class Lock:
    """Held by the one process that asks; a fork of that process does not hold it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        _locks.add(self)

    def release(self) -> None:
        """Let another process ask."""
        # Not LOCK_UN, which would also unlock what a parent process holds: only the last copy unlocks.
        descriptor, self.descriptor = self.descriptor, _CLOSED
        if descriptor != _CLOSED:
            os.close(descriptor)


def _forget_locks() -> None:
    for lock in list(_locks):
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_locks)


class SavedFile:
    """What another process has saved; opened with `Share.open`."""

    def __init__(self, descriptor: int, max_bytes: int) -> None:
        self._descriptor = descriptor
        status = os.fstat(descriptor)
        self.version = _version(status)
        length = len(_MAGIC % 0)
        begin = os.pread(descriptor, length, 0)
        size = int(begin[-11:-1]) if begin[-11:-1].isdigit() else 0
        if begin != _MAGIC % size or size > _MAX_HEAD:
            raise ValueError("it does not begin as it should")
        head = json.loads(os.pread(descriptor, size, length))
        self.clusters: dict[str, float] = {str(name): _seconds(value) for name, value in head["clusters"].items()}
        self.configs: list[tuple[tuple[str, str], ...]] = []
        self._places: list[tuple[int, int]] = []
        place = length + size
        for segment in head["segments"]:
            self.configs.append(tuple((str(name), str(stamp)) for name, stamp in segment["configs"]))
            length = int(segment["size"])
            if not 0 <= length <= max_bytes:
                raise ValueError("a part of it is too large")
            self._places.append((place, length))
            place += length
        if place != status.st_size or place > max_bytes + _MAX_HEAD:
            raise ValueError("it is not as long as it says")

    def body(self, number: int) -> bytes:
        """A reply."""
        begin, size = self._places[number]
        body = bytearray()
        while len(body) < size and (read := os.pread(self._descriptor, size - len(body), begin + len(body))):
            body += read
        return bytes(body)

    def segments(self) -> list[Segment]:
        """What is in it, to be saved again; while it is open."""
        return [
            Segment(configs, self._places[number][1], partial(self.body, number))
            for number, configs in enumerate(self.configs)
        ]


class Share:
    """
    The files of one sidecar.

    Every method may raise `OSError`: the directory cannot be made, or is somebody else's. Then each process asks for
    itself.

    Args:
        admin: The admin address.
        max_bytes: How much a file may hold.
        directory: Where the private directory is; by default where temporary files are.
    """

    def __init__(self, admin: str, *, max_bytes: int, directory: str | os.PathLike[str] | None = None) -> None:
        key = hashlib.sha256(admin.encode()).hexdigest()[:16]
        self._lock_name, self._data_name = f"routes-{key}.lock", f"routes-{key}.data"
        self._max_bytes = max_bytes
        self._directory = directory

    def last_attempt(self) -> Attempt:
        """When the sidecar was asked last, by any process."""
        with self._opened() as directory:
            try:
                descriptor = _open(self._lock_name, os.O_RDONLY, directory)
            except FileNotFoundError:
                return Attempt()
            try:
                return _attempt(os.pread(descriptor, _NOTE, 0))
            finally:
                os.close(descriptor)

    def version(self) -> Version | None:
        """Which data there is; None if there is none."""
        with self._opened() as directory:
            try:
                return _version(os.stat(self._data_name, dir_fd=directory, follow_symlinks=False))
            except FileNotFoundError:
                return None

    def lock(self) -> Lock | None:
        """Become the one who asks; None while another process is."""
        if fcntl is None:  # pragma: no cover (Windows)
            raise OSError("this system has no locks that end with their process")
        with self._opened() as directory:
            descriptor = _open(self._lock_name, os.O_RDWR | os.O_CREAT, directory)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            except BaseException:
                os.close(descriptor)
                raise
            return Lock(descriptor)

    def note(self, lock: Lock, attempt: Attempt) -> None:
        """Say when the sidecar was asked, and what came of it."""
        text = json.dumps([attempt.at, attempt.confirmed, attempt.error[:_MAX_ERROR]], ensure_ascii=True)
        if len(text) > _NOTE:
            text = json.dumps([attempt.at, attempt.confirmed, "the sidecar could not be read"])
        os.pwrite(lock.descriptor, text.encode().ljust(_NOTE), 0)

    @contextlib.contextmanager
    def open(self) -> Generator[SavedFile | None]:
        """Open the data; None if there is none, or if it is not what another process of ours has written."""
        with self._opened() as directory:
            try:
                descriptor = _open(self._data_name, os.O_RDONLY, directory)
            except FileNotFoundError:
                yield None
                return
        try:
            try:
                saved = SavedFile(descriptor, self._max_bytes)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
                saved = None
            yield saved
        finally:
            os.close(descriptor)

    def save(self, segments: Iterable[Segment], clusters: Mapping[str, float]) -> Version:
        """Replace the data, as the one who holds the lock; return what it is known by."""
        listed = list(segments)
        with self._opened() as directory:
            self._sweep(directory)
            name = f"{self._data_name}.{secrets.token_hex(8)}"
            descriptor = _open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, directory)
            try:
                with open(descriptor, "wb", closefd=False) as file:
                    heads = [{"configs": each.configs, "size": each.size} for each in listed]
                    text = json.dumps({"clusters": dict(clusters), "segments": heads}).encode()
                    file.write(_MAGIC % len(text) + text)
                    file.writelines(each.body() for each in listed)
                os.replace(name, self._data_name, src_dir_fd=directory, dst_dir_fd=directory)
                return _version(os.fstat(descriptor))
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=directory)
                raise
            finally:
                os.close(descriptor)

    def _sweep(self, directory: int) -> None:
        """Remove what processes have left that were killed, or that have asked another address."""
        old = time.time() - _KEPT
        for name in os.listdir(directory):
            if name.startswith("routes-") and name not in (self._lock_name, self._data_name):
                with contextlib.suppress(OSError):
                    if os.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime < old:
                        os.unlink(name, dir_fd=directory)

    @contextlib.contextmanager
    def _opened(self) -> Generator[int]:
        """The private directory, made if it is not there."""
        path = Path(self._directory or tempfile.gettempdir()) / f"meshaware-{os.geteuid()}"
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _check(os.fstat(descriptor), str(path))
            yield descriptor
        finally:
            os.close(descriptor)


def _open(name: str, flags: int, directory: int) -> int:
    # Not blocking: what stands there under this name may be a pipe.
    more = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(name, flags | more, 0o600, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
        _check(status, name, stat.S_ISREG(status.st_mode) and status.st_nlink <= 1)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check(status: os.stat_result, name: str, right: bool = True) -> None:  # noqa: FBT001, FBT002
    if not right or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise PermissionError(f"{name} belongs to another user, others may use it, or it is something else")


def _version(status: os.stat_result) -> Version:
    return status.st_ino, status.st_mtime_ns, status.st_size


def _attempt(data: bytes) -> Attempt:
    try:
        read: Any = json.loads(data)
        at, confirmed, error = cast("list[Any]", read)
        return Attempt(_seconds(at), _seconds(confirmed), str(error)[:_MAX_ERROR])
    except (ValueError, TypeError, RecursionError):
        return Attempt()


def _seconds(value: Any) -> float:
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError(value)
    return number

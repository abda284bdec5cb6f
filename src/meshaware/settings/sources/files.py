"""Reading a small text file, within bounds."""

from __future__ import annotations

from pathlib import Path

from meshaware.settings.found import Unusable

__all__ = ["read_small"]

# All annotations of a pod together may have 256 KiB, and quoting makes a byte four at most.
_MAX_BYTES = 1 << 20


def read_small(path: Path) -> str | Unusable | None:
    """The file's text; `None` if there is no such file; `Unusable` if it is there but cannot be read."""
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return Unusable((f"file {path} cannot be read: {error.strerror}; accepted: a text file",))
    if len(raw) > _MAX_BYTES:
        return Unusable((f"file {path} is too large; accepted: at most {_MAX_BYTES} bytes",))
    return raw.decode("utf-8", "surrogateescape")

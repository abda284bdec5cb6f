"""
The deadline of the work in hand: an instant of `time.monotonic()` that calls made meanwhile are held to.

    work     what holds here: `limit`, `detached`, `remaining`
    header   how it is told from one service to the next
"""

from __future__ import annotations

from meshaware.deadline.work import current_deadline, detached, limit, remaining

__all__ = ["current_deadline", "detached", "limit", "remaining"]

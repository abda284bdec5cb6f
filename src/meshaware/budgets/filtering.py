"""Which virtual hosts of a large mesh a workload wants to know: those that it calls."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from meshaware.budgets.domains import split_authority

__all__ = ["keep_hosts"]


def keep_hosts(hosts: Iterable[str] | None) -> Callable[[tuple[str, ...]], bool] | None:
    """
    Make a test of the domains of a virtual host; None if all are wanted.

    Args:
        hosts: Names, and suffixes that begin with a dot. Domains with a star are always wanted: what they govern is
            everything that nothing else does.

    Raises:
        TypeError: They are one text.
        ValueError: One of them is empty, or has a port, a path or a star.
    """
    if hosts is None:
        return None
    if isinstance(hosts, str):
        raise TypeError(f"hosts={hosts[:100]!r}: must be several names; write hosts=[{hosts[:100]!r}]")
    names: set[str] = set()
    suffixes: list[str] = []
    for host in hosts:
        wanted = host.lower().removesuffix(".")
        if not wanted or set(wanted) & set("*:/ "):
            raise ValueError(
                f"hosts: {host[:100]!r}: must be a name such as 'inventory.shop.svc.cluster.local', or a suffix such as"
                " '.shop.svc.cluster.local'"
            )
        if wanted.startswith("."):
            suffixes.append(wanted)
        else:
            names.add(wanted)
    endings = tuple(suffixes)

    def keep(domains: tuple[str, ...]) -> bool:
        for domain in domains:
            name = split_authority(domain)[0].removesuffix(".")
            if "*" in domain or name in names or (endings and name.endswith(endings)):
                return True
        return False

    return keep

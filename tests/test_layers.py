"""Imports run one way. The table below is the order; what is not in it does not belong to the package."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import agentloop

FOLDER = Path(agentloop.__file__).parent

LAYERS = (
    # values
    "_demo_interrupts",
    "_core.typevars",
    "_core.on_first_use _core.portable_errors _core.json_text _core.field_checks _core.foreign_errors",
    "_core.attrs_fields errors",
    "_core.first_guesses",
    "messages safety permissions questions events outcome models limits deferred wire",
    # decisions
    "_core.pydantic_types _core.type_hints _core.json_types _core.signature",
    "_core.structured_output _core.usage _core.catalogue _core.prices _core.forms _core.partial_json",
    "_core.blast_radius _core.permissions _core.questions _core.media_types _core.tokens _core.context_window",
    "_core.handoffs _core.whole_json _core.tool_index _core.deferred _core.call_tool _core.prompt_cache",
    "_core.background _core.redaction _core.secrets _core.results _core.retries _core.told_context",
    "_core.transcript _core.state _core.response",
    # what users write against
    "context run_info context_sources commands tools hooks observers handoffs redaction config journal",
    # waiting
    "_runtime.exception_groups _runtime.blocks",
    "_runtime.user_code _runtime.logs _runtime.log _runtime.steps",
    "_runtime.redaction _runtime.call_order _runtime.deferred _runtime.hooks _runtime.run",
    "_runtime.hook_runs _runtime.pauses",
    "_runtime.questions _runtime.model_call _runtime.dynamic _runtime.told_context _runtime.context_window",
    "_runtime.toolset_start _runtime.toolset_task _runtime.toolsets _runtime.assessment _runtime.approval",
    "_runtime.handoffs _runtime.background _runtime.background_blocks",
    "_runtime.tool_context _runtime.tool_calls",
    "_runtime.output_validation _runtime.loop _runtime.stream _runtime.lifecycle",
    # the front door
    "session agent team toolsets",
)
ORDER = [name for layer in LAYERS for name in layer.split()]
"""A module imports only from those before it; all that a user needs is then in `agentloop` itself."""

ADAPTERS = (
    "_interpreter",
    "_process_tree",
    "_supervisor",
    "_sandbox",
    "_supervised",
    "_program_output",
    "_initial_environment",
    "_data_folder",
    "_command_line",
    "asyncio",
    "providers",
    "_choosing",
    "command_hooks",
    "judges",
    "toolkit",
    "acp",
    "mcp",
    "declarative",
    "stores",
    "picture",
    "engines",
    "telemetry",
    "testing",
    "terminal",
    "demo",
    "serving",
    "__main__",
)
"""Packages, or modules, that may import all of the above, and from those before them here. Nothing above does."""

PLACE = {f"agentloop.{name}": place for place, name in enumerate(ORDER)}
WAITING = PLACE["agentloop._runtime.exception_groups"]
"""From here on, a module may wait."""

CORE_DEPENDENCIES = {"agentloop", "attr", "attrs", "msgspec", "trio"}

FOR_TYPE_CHECKERS = {"agentloop._core.typevars"}
"""The modules that show type checkers something else than the interpreter: the defaults of type variables."""


def files() -> dict[str, Path]:
    """Each module of the package, with its file."""
    found = {}
    for path in sorted(FOLDER.rglob("*.py")):
        parts = ["agentloop", *path.relative_to(FOLDER).with_suffix("").parts]
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


FILES = files()
ORDERED = [module for module in FILES if module in PLACE]


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(FILES[module].read_text(encoding="utf-8"))


def imported(module: str) -> Iterator[str]:
    """The modules that ``module`` imports, wherever in it."""
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in FILES else node.module


def own(module: str) -> list[str]:
    """Those of them that are of the package."""
    return [name for name in imported(module) if name.split(".")[0] == "agentloop"]


def named(module: str) -> list[str]:
    """The modules of the package that ``module`` imports late, by a string: ``import_module("agentloop.x")``."""
    calls = (node for node in ast.walk(tree(module)) if isinstance(node, ast.Call) and node.args)
    return [
        argument.value
        for call in calls
        if ast.unparse(call.func).split(".")[-1] == "import_module"
        and isinstance(argument := call.args[0], ast.Constant)
        and isinstance(argument.value, str)
        and argument.value in FILES
    ]


def adapter(module: str) -> str | None:
    """The package or module of `ADAPTERS` in which ``module`` is, if it is in one."""
    return next((name for name in ADAPTERS if f"{module}.".startswith(f"agentloop.{name}.")), None)


def offenders(modules: Iterable[str], offences: Callable[[str], Iterable[str]]) -> dict[str, list[str]]:
    """The modules that break a rule, each with its ``offences(module)``, so that a test lists all of them at once."""
    listed = {module: list(offences(module)) for module in modules}
    return {module: against for module, against in listed.items() if against}


def names(module: str) -> set[str]:
    """The names that ``module`` uses."""
    return {node.id for node in ast.walk(tree(module)) if isinstance(node, ast.Name)}


CORE = [module for module in ORDERED if "._core." in module]


def test_every_module_has_its_place() -> None:
    empty = {"agentloop", "agentloop._core", "agentloop._runtime"}
    assert {module for module in FILES if adapter(module) is None} - empty == set(PLACE)


def test_a_module_imports_only_from_those_before_it() -> None:
    def later(module: str) -> list[str]:
        return [name for name in own(module) if PLACE.get(name, len(ORDER)) >= PLACE[module]]

    assert offenders(ORDERED, later) == {}


def test_the_front_door_imports_no_adapter() -> None:
    assert [name for name in own("agentloop") if adapter(name) is not None] == []


def test_an_adapter_imports_only_from_adapters_before_it() -> None:
    def later(module: str) -> list[str]:
        mine = adapter(module)
        assert mine is not None
        theirs = [name for name in map(adapter, own(module)) if name is not None]
        return [name for name in theirs if ADAPTERS.index(name) > ADAPTERS.index(mine)]

    assert offenders((module for module in FILES if adapter(module) is not None), later) == {}


def test_no_modules_import_each_other_in_a_circle_not_even_late() -> None:
    graph = {module: {*own(module), *named(module)} & FILES.keys() for module in FILES}
    assert named("agentloop.mcp.server") == ["agentloop.mcp._connection_pool"]
    assert list(TopologicalSorter(graph).static_order())


def test_no_module_that_everybody_imports_imports_an_extra() -> None:
    # `annotationlib` is there from Python 3.14 on.
    allowed = CORE_DEPENDENCIES | set(sys.stdlib_module_names) | {"annotationlib"}

    def extras(module: str) -> list[str]:
        return [name for name in imported(module) if name.split(".")[0] not in allowed]

    assert offenders((module for module in ORDERED if module not in FOR_TYPE_CHECKERS), extras) == {}


def test_the_types_for_type_checkers_need_nothing_at_run_time() -> None:
    code = "import sys; sys.modules['typing_extensions'] = None; import agentloop"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_values_and_decisions_know_nothing_of_trio() -> None:
    def uses(module: str) -> list[str]:
        return [name for name in (*imported(module), *names(module)) if name.split(".")[0] == "trio"]

    assert offenders((module for module in ORDERED if PLACE[module] < WAITING), uses) == {}


def test_decisions_never_wait() -> None:
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncFor, ast.AsyncWith)

    def waits(module: str) -> list[str]:
        return [f"line {node.lineno}" for node in ast.walk(tree(module)) if isinstance(node, waiting)]

    assert CORE
    assert offenders(CORE, waits) == {}


def test_decisions_look_at_no_clock_and_throw_no_dice() -> None:
    forbidden = {"time", "random", "secrets", "os", "uuid"}
    assert offenders(CORE, lambda module: forbidden & set(imported(module))) == {}


def test_imports_stand_at_the_top_and_hold_for_everybody() -> None:
    """An import inside a function, or under ``TYPE_CHECKING``, is a way around the order."""

    def hidden(module: str) -> Iterator[str]:
        for function in ast.walk(tree(module)):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for node in ast.walk(function):
                    if isinstance(node, (ast.Import, ast.ImportFrom)):
                        yield f"line {node.lineno}"
        if "TYPE_CHECKING" in names(module):
            yield "TYPE_CHECKING"

    assert offenders((module for module in FILES if module not in FOR_TYPE_CHECKERS), hidden) == {}


def test_importing_the_package_imports_no_extra() -> None:
    extras = (
        "hypothesis",
        "pytest",
        "httpx2",
        "httpcore2",
        "h11",
        "rich",
        "prompt_toolkit",
        "xllamacpp",
        "mcp",
        "openai",
        "anthropic",
        "psycopg",
        "opentelemetry",
        "hypercorn",
        "starlette",
    )
    ours = tuple(f"agentloop.{name}" for name in ADAPTERS)
    code = f"import agentloop, sys; print([name for name in {(*extras, *ours)} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_imports_nothing_that_few_programs_need() -> None:
    code = """if True:
        import sys, trio, attrs, msgspec
        before = set(sys.modules)
        import agentloop
        few_need = {"urllib.parse", "ipaddress", "difflib", "pickle", "dataclasses"}
        print(sorted(few_need & (sys.modules.keys() - before)))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_front_door_has_what_it_says() -> None:
    assert all(hasattr(agentloop, name) for name in agentloop.__all__)


def test_a_module_exports_what_it_has() -> None:
    def missing(module: str) -> list[str]:
        loaded = import_module(module)
        return [name for name in loaded.__all__ if not hasattr(loaded, name)]

    assert offenders(ORDERED, missing) == {}

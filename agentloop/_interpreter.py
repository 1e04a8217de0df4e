"""The command that runs this Python a second time, for programs of agentloop's own.

``sys.executable`` is an interpreter only where Python is the program. In a frozen application (PyInstaller, cx_Freeze,
Nuitka), and where an application embeds Python (uWSGI), it is that application: started with our arguments it would
run from its beginning, with the agent in it, which may start it again.
"""

from __future__ import annotations

import os
import sys
from importlib.resources import files
from pathlib import Path

from agentloop.errors import UsageError

__all__ = ["loader_environment", "python_command", "script_arguments"]

_NAMES = ("python", "pypy", "graalpy")
"""What the name of an interpreter's file has in it."""

_ON_IMPORT = sys.executable
"""What `multiprocessing` starts unless the application has set something else, even if ``sys.executable`` changes."""

_LOADER_VARIABLES = (
    "DYLD_FALLBACK_LIBRARY_PATH",
    "DYLD_FRAMEWORK_PATH",
    "DYLD_LIBRARY_PATH",
    "LD_LIBRARY_PATH",
    "LIBPATH",
    "SHLIB_PATH",
    "SYSTEMROOT",
)
"""Variables by which the system finds the libraries of an interpreter."""


def python_command(purpose: str) -> str:
    """Find the interpreter to start, which `multiprocessing.set_executable` can set.

    Args:
      purpose: what needs an interpreter, as the subject of the error message.

    Raises:
      UsageError: ``sys.executable`` is empty or an application, and no interpreter was set.
    """
    chosen = _chosen_executable()
    if chosen:
        return chosen
    executable = sys.executable or ""
    is_frozen = bool(getattr(sys, "frozen", False))
    if executable and not is_frozen and any(name in Path(executable).name.lower() for name in _NAMES):
        return executable
    problem = f"{executable!r} is this application" if executable else "sys.executable is empty"
    raise UsageError(
        f"{purpose} needs to start a Python interpreter, and {problem}: name an interpreter of version "
        f"{sys.version_info.major}.{sys.version_info.minor} with `multiprocessing.set_executable(path)` when the "
        "application starts"
    )


def _chosen_executable() -> str:
    """The interpreter that the application has set, or an empty text."""
    # The module is there if the application has called `multiprocessing.set_executable`. Importing it takes 10 ms.
    spawn = sys.modules.get("multiprocessing.spawn")
    executable = os.fsdecode(spawn.get_executable() or "") if spawn is not None else ""
    return executable if executable not in (sys.executable, _ON_IMPORT) else ""


def loader_environment() -> dict[str, str]:
    """Collect the variables without which the interpreter may not find its libraries. There is no secret in them."""
    variables = {name: os.environ[name] for name in _LOADER_VARIABLES if name in os.environ}
    if getattr(sys, "frozen", False):
        # PyInstaller points them at the libraries of the application, which are not those of an interpreter.
        for name in list(variables):
            original = os.environ.get(f"{name}_ORIG")
            if original is not None:
                variables[name] = original
            elif name != "SYSTEMROOT":
                del variables[name]
    return variables


def script_arguments(package: str, name: str) -> list[str]:
    """The interpreter's arguments that run the file ``name`` of ``package``: its path, or else its source."""
    script = files(package) / name
    return [str(script)] if isinstance(script, Path) and script.is_file() else ["-c", script.read_text("utf-8")]

"""The folder in which programs of this user keep their data."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["data_folder"]


def data_folder(environment: Mapping[str, str] = os.environ, platform: str = sys.platform) -> Path | None:
    """Agentloop's folder in this user's data folder; ``None`` if this user has no home folder."""
    match platform:
        case "win32":
            variable, under_home = "LOCALAPPDATA", ("AppData", "Local")
        case "darwin":
            variable, under_home = "", ("Library", "Application Support")
        case _:
            variable, under_home = "XDG_DATA_HOME", (".local", "share")
    named = Path(environment.get(variable, ""))
    # A relative one is to be ignored, as the specification of XDG has it.
    if named.is_absolute():
        return named / "agentloop"
    try:
        return Path.home().joinpath(*under_home, "agentloop")
    except RuntimeError:
        return None

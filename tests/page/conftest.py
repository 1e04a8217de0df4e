"""The fixtures, where there is a browser to use; where there is none, each module is skipped with the reason."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("playwright") is not None:
    from tests.page.support import browser, context, own_server, shared_server, tab, wire

    __all__ = ["browser", "context", "own_server", "shared_server", "tab", "wire"]
else:

    class _Skipped(pytest.Module):
        def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
            pytest.skip("the tests of the page need playwright: nox -s page", allow_module_level=True)

    def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
        module: pytest.Module = _Skipped.from_parent(parent, path=module_path)
        return module

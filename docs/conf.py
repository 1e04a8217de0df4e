"""The documentation site: ``nox -s docs`` builds it, with every warning as an error."""

from __future__ import annotations

import os

from sphinx.application import Sphinx
from sphinx.ext.napoleon import GoogleDocstring

project = "agentloop"
author = "The agentloop authors"
copyright = "The agentloop authors"
release = "0.1.0"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build", "performance/table.md"]
root_doc = "index"

html_theme = "furo"
html_title = "agentloop"
html_static_path: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# A name in single backticks in a docstring is a reference.
default_role = "any"
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False

# The inventories come from the network: ``DOCS_OFFLINE=1`` builds without them.
intersphinx_mapping = (
    {}
    if os.environ.get("DOCS_OFFLINE")
    else {
        "python": ("https://docs.python.org/3", None),
        "trio": ("https://trio.readthedocs.io/en/stable", None),
    }
)

# With ``-n``, each reference to a name that is not on a page is a warning. These names are not ours to document.
OTHERS = (
    "abc|anthropic|attrs?|collections|concurrent|contextlib|contextvars|copy|datetime|enum|fnmatch|functools|httpx2?|hypothesis|mcp|msgspec|openai|opentelemetry"
    "|os|pathlib|psycopg|psycopg_pool|pydantic|pytest|re|ssl|starlette|str|trio|types|typing|unittest|AssertionError|OSError"
)
nitpick_ignore_regex = [
    (r"py:.*|any", rf"({OTHERS})(\..*)?"),
    # Private names, type variables and parts of generic types, which show in signatures.
    (r"py:.*|any", r"(.*\.)?_\w+(\..*)?"),
    (r"py:.*", r"(.*\.)?(A|\w+_(co|contra)|Deps|I|Output|P|Params|Result|T|TypeForm|V|Instructions|partial)"),
    (r"py:.*", r"(.*\.)?(IfInterrupted|OutputValidator)"),
    (r"py:.*", r"(dict|list|tuple|type)\[.*"),
    # Arguments of a class that a function makes, and aliases of types.
    (r"py:.*|any", r"(.*\.)?(Authenticator|OnDisconnect|Page|RunLimits|Service|Sites)"),
    # The simulation is for contributors.
    (r"py:.*|any", r"agentloop\.testing\.(simulation|harness)\..*"),
]
# ``type`` names a builtin, and a field of two events.
suppress_warnings = ["ref.python"]


def setup(app: Sphinx) -> None:
    """Read the docstrings of fields like all others: napoleon would take ``"Name: words"`` for a type and its text."""
    parse = GoogleDocstring._parse

    def parse_any(self: GoogleDocstring) -> None:
        self._what = "object"
        parse(self)

    GoogleDocstring._parse = parse_any

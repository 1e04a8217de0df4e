"""Teams from a YAML file, in docker-agent's own format.

::

    team = load_team("team.yaml")
    outcome = await team.run("Why does the build fail?")

``python -m agentloop run team.yaml`` talks to it in the terminal, and ``serve`` and ``worker`` take such a file, too.
Needs the extra ``yaml``.

The files here::

    _document   YAML as a tree of values that know their lines
    _problems   places in a file, and what is wrong there
    _forms      what the value of a field may be
    _table      the table of all fields: the check, the schema and the documentation are made of it
    _schema     the table as JSON Schema
    _section    a mapping, as the loader reads it: variables, paths, no secrets
    _team       the loader
    _models _choosing _toolsets _files _programs _rules _hooks _output
                the parts of an agent
"""

from agentloop.declarative._output import JsonOutput
from agentloop.declarative._problems import Place, TeamFileError, Unsupported
from agentloop.declarative._schema import json_schema
from agentloop.declarative._team import LoadedTeam, load_team

__all__ = [
    "JsonOutput",
    "LoadedTeam",
    "Place",
    "TeamFileError",
    "Unsupported",
    "json_schema",
    "load_team",
]

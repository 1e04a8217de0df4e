"""MCP, as client and as server, against software that nobody here wrote: `nox -s conformance`."""

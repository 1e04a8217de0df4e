"""agentloop.mcp against software that nobody here wrote: `nox -s conformance`."""

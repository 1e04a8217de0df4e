"""The fault harness on agentloop itself, for its contributors. ``python -m agentloop.testing`` runs it.

- `corpus`: scenarios for each way out of the loop; `session_scenarios`: the same for sessions with a journal.
- `programs`: generated programs of streams, questions and cancellations; `machine`: the state machine that writes them.
- `mutants`: bugs planted on purpose.
- `search`: the ways to look for a broken guarantee: in the corpus, in its sweeps, in programs.
"""

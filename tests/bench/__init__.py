"""The benchmark: what the runtime costs, next to a loop written by hand that does the same work.

``python -m tests.bench [--json FILE] [--quick] [NAME...]``, or ``nox -s bench``. Not a timed test: it measures,
and says where a target is missed.
"""

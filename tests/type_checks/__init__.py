"""What type checkers see: revealed types and expected errors, which `nox -s types` checks with mypy and pyright.

An expected error has a comment for each checker that reports it. Both report a comment without an error, so an error
that vanishes fails as an unexpected one does. Nothing here is run.
"""

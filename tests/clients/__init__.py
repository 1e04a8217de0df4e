"""Other people's clients talk to a server: `nox -s clients` installs them from npm and PyPI, and runs this folder."""

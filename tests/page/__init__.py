"""The page in a real Chromium: `nox -s page`."""

"""Putting something in the place of something else, for a while."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

__all__ = ["patched"]


@contextmanager
def patched(owner: Any, name: str, replacement: Any) -> Generator[None]:
    """Put ``replacement`` in the place of ``owner.name`` while the block runs."""
    real = owner.__dict__[name]
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        setattr(owner, name, real)

"""The fields of a `msgspec.Struct` for attrs: `attrs.evolve`, `attrs.fields` and `attrs.asdict` take the Struct."""

from __future__ import annotations

from functools import cache
from typing import Any

import attrs
import msgspec

__all__ = ["AttrsFields"]


class AttrsFields:
    """The class attribute ``__attrs_attrs__`` of a Struct: attrs takes each class for its own that has one."""

    def __get__(self, instance: msgspec.Struct | None, owner: type[msgspec.Struct]) -> tuple[attrs.Attribute[Any], ...]:
        return _fields_of(owner)


@cache
def _fields_of(struct: type[msgspec.Struct]) -> tuple[attrs.Attribute[Any], ...]:
    # Made on first use, which most programs never do: an attrs class takes a millisecond.
    members: dict[str, Any] = {}
    for field in msgspec.structs.fields(struct):
        default = attrs.NOTHING if field.default is msgspec.NODEFAULT else field.default
        members[field.name] = attrs.field(default=default, type=field.type, kw_only=True)
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(attrs.make_class(struct.__name__, members))
    return fields

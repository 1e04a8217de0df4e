"""Read a person's typed answers, and make the default ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from agentloop.events import ElicitationRequested, Question
from agentloop.questions import Accept, Answer, Approve, Decline, Deny
from agentloop.terminal._characters import printable

__all__ = ["Field", "default_answer", "fields_of", "verdict"]

YES = ("y", "yes", "true", "1")
NO = ("n", "no", "false", "0")


@frozen
class Field:
    """One field of a form."""

    name: str
    type: str
    """As in JSON Schema: string, integer, number, boolean or array."""
    label: str
    choices: tuple[str, ...] = ()
    default: Any = None
    required: bool = False

    @property
    def prompt(self) -> str:
        """The words in front of the place to type."""
        if self.choices:
            hint = f" ({', '.join(map(printable, self.choices))})"
        else:
            hint = {"boolean": " (yes, no)", "integer": " (a whole number)", "number": " (a number)"}.get(self.type, "")
        default = "" if self.default is None else f" [{_typed(self.default)}]"
        return f"{self.label}{hint}{default}: "

    def parse(self, typed: str) -> Any:
        """The value that ``typed`` stands for; ``None`` if the field is left out.

        Whether it is within the form's bounds is for the stream to say.

        Raises:
          ValueError: it is no value of the field's type, or the field may not be left out.
        """
        typed = typed.strip()
        if not typed:
            if self.default is None and self.required:
                raise ValueError("this one is needed")
            return self.default
        match self.type:
            case "integer":
                return _number(typed, int, "a whole number")
            case "number":
                return _number(typed, float, "a number")
            case "boolean":
                if typed.lower() not in YES + NO:
                    raise ValueError(f"yes or no, not {typed!r}")
                return typed.lower() in YES
            case "array":
                return [self._choice(each.strip()) for each in typed.split(",")]
            case _:
                return self._choice(typed)

    def _choice(self, typed: str) -> str:
        """The choice that ``typed`` begins; other texts are free."""
        if not self.choices or typed in self.choices:
            return typed
        meant = [choice for choice in self.choices if choice.lower().startswith(typed.lower())]
        if len(meant) != 1:
            raise ValueError(f"one of {', '.join(map(printable, self.choices))}, not {typed!r}")
        return meant[0]


def _number(typed: str, kind: type[int | float], what: str) -> float:
    try:
        return kind(typed)
    except ValueError:
        raise ValueError(f"{what}, not {typed!r}") from None


def _typed(value: Any) -> str:
    """``value`` as it would be typed."""
    match value:
        case bool():
            return "yes" if value else "no"
        case [*several]:
            return ", ".join(map(str, several))
        case _:
            return printable(str(value))


def fields_of(form: Mapping[str, Any], filled: Mapping[str, Any] | None = None) -> Sequence[Field]:
    """The fields of ``form`` in order, with earlier entries (``filled``) as their defaults."""
    required = form.get("required", ())
    return [
        Field(
            name=name,
            type=str(schema.get("type", "string")),
            label=printable(str(schema.get("title") or name)),
            choices=_choices(schema),
            default=(filled or {}).get(name, schema.get("default")),
            required=name in required,
        )
        for name, schema in form.get("properties", {}).items()
    ]


def _choices(schema: Mapping[str, Any]) -> tuple[str, ...]:
    schema = schema.get("items", schema)
    titled: Sequence[Mapping[str, str]] = schema.get("oneOf") or schema.get("anyOf") or ()
    return tuple(schema.get("enum") or [option["const"] for option in titled if "const" in option])


def default_answer(question: Question) -> Answer:
    """The answer of a person who says yes to everything: with the form's defaults."""
    if not isinstance(question, ElicitationRequested):
        return Approve()
    content: dict[str, Any] = {}
    for field in fields_of(question.form):
        if field.default is not None:
            content[field.name] = field.default
        elif field.required and field.choices:
            content[field.name] = [field.choices[0]] if field.type == "array" else field.choices[0]
        elif field.required:
            return Decline(f"Nobody is there to type, and {field.name!r} has no default.")
    return Accept(content)


def verdict(typed: str) -> Approve | Deny:
    """Read ``typed`` as the answer to an approval: yes, no, no with a reason, or always, for the very same call.

    ``safe`` and ``safer`` are yes, and from now on to all that the mode of that name runs.

    Raises:
      ValueError: it is none of these.
    """
    word, _, reason = typed.strip().partition(" ")
    word = word.lower().rstrip(",:;")
    if word in YES:
        return Approve()
    if word in ("a", "always"):
        return Approve(always=True)
    if word == "safe":
        return Approve(always="safe")
    if word == "safer":
        return Approve(always="safer")
    if word in NO:
        return Deny(reason.strip())
    raise ValueError(f"yes, no, 'no' and a reason, always, safe or safer; not {typed.strip()!r}")

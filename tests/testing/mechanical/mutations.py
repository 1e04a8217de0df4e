"""Small changes of a source file, one at a time, worked out from its syntax tree."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator

from attrs import frozen

__all__ = ["Mutant", "mutants_of"]

_EDGES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_OTHER_NAME = {"min": "max", "max": "min", "any": "all", "all": "any"}
_DROPPED = (ast.Expr, ast.AugAssign, ast.Raise, ast.Continue, ast.Break, ast.Delete)
_UNSEEN = ("debug", "info")
"""Methods of loggers whose lines no user is promised."""


@frozen
class Mutant:
    """One small change.

    Attributes:
      line: the first line of the changed expression or statement.
      lines: the lines that run if the changed code runs: its own, or the first one of its statement.
      change: what was changed, in a few words.
      tree: the changed file.
    """

    line: int
    lines: frozenset[int]
    change: str
    tree: ast.Module


def mutants_of(source: str) -> Iterator[Mutant]:
    """Every small change of the bodies of the functions in ``source``."""
    tree = ast.parse(source)
    for statement in _statements(tree):
        own = [statement, *_expressions(statement)]
        for node in own:
            for change, replacement in _changes(node):
                first = frozenset({getattr(node, "lineno", statement.lineno), statement.lineno})
                changed = _replaced(tree, node, replacement)
                yield Mutant(getattr(node, "lineno", statement.lineno), first, change, changed)


def _statements(tree: ast.AST) -> Iterator[ast.stmt]:
    """The statements inside functions, in order; what runs when a module is imported is no part of them."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield from (inner for statement in node.body for inner in _inside(statement))


def _inside(statement: ast.stmt) -> Iterator[ast.stmt]:
    yield statement
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        # The walk comes to the function by itself.
        return
    for child in ast.iter_child_nodes(statement):
        for inner in [child] if isinstance(child, ast.stmt) else ast.iter_child_nodes(child):
            if isinstance(inner, ast.stmt):
                yield from _inside(inner)


def _expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """The expressions of a statement, without those of the statements in it, and its handlers of errors."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assert)):
        return
    waiting: list[ast.AST] = list(ast.iter_child_nodes(statement))
    while waiting:
        node = waiting.pop(0)
        if isinstance(node, ast.stmt):
            continue
        yield node
        if isinstance(node, (ast.JoinedStr, ast.MatchValue, ast.arguments)):
            continue
        waiting.extend(ast.iter_child_nodes(node))


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST | None]]:
    """What the node can be changed to; None where the statement is left out."""
    match node:
        case ast.Expr(value=ast.Constant()):
            pass
        case ast.Expr(value=ast.Call(func=ast.Attribute(attr=name))) if name in _UNSEEN:
            pass
        case (
            ast.Assign(targets=[ast.Attribute() | ast.Subscript()])
            | ast.AnnAssign(target=ast.Attribute(), value=ast.expr())
        ):
            yield f"leaves out `{_text(node)}`", None
        case ast.stmt() if isinstance(node, _DROPPED):
            yield f"leaves out `{_text(node)}`", None
        case ast.If(test=test) | ast.While(test=test) if not isinstance(test, ast.Constant):
            yield f"`{_text(test)}` the other way round", _with(node, test=_negated(test))
        case ast.IfExp(test=test):
            yield f"`{_text(test)}` the other way round", _with(node, test=_negated(test))
        case ast.Try(handlers=handlers, finalbody=final):
            for handler in handlers:
                yield f"no `except` of `{_text(handler.type)}`", _without(node, handler)
            if final:
                yield "no `finally`", ast.Try(node.body, handlers or [_reraises()], node.orelse, [])
        case ast.BoolOp(op=op, values=values):
            other = ast.Or() if isinstance(op, ast.And) else ast.And()
            yield f"and/or in `{_text(node)}`", ast.BoolOp(other, values)
            for index in range(len(values)):
                rest = values[:index] + values[index + 1 :]
                kept = rest[0] if len(rest) == 1 else ast.BoolOp(op, rest)
                yield f"no `{_text(values[index])}` in `{_text(node)}`", kept
        case ast.Compare(left=left, ops=[op], comparators=right) if type(op) in _EDGES:
            changed = ast.Compare(left, [_EDGES[type(op)]()], right)
            yield f"`{_text(changed)}` for `{_text(node)}`", changed
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            yield f"no `not` in `{_text(node)}`", operand
        case ast.Constant(value=bool() as value):
            yield f"{not value} for {value}", ast.Constant(not value)
        case ast.Constant(value=int() as value):
            yield f"{value + 1} for {value}", ast.Constant(value + 1)
        case ast.Name(id=name, ctx=ast.Load()) if name in _OTHER_NAME:
            yield f"{_OTHER_NAME[name]} for {name}", ast.Name(_OTHER_NAME[name], ast.Load())
        case ast.BinOp(op=ast.Add(), left=left, right=right):
            yield f"`{_text(left)}` for `{_text(node)}`", left
        case ast.BinOp(op=ast.Sub(), left=left, right=right):
            yield f"`{_text(left)}` for `{_text(node)}`", left
        case _:
            pass


def _negated(test: ast.expr) -> ast.expr:
    return ast.UnaryOp(ast.Not(), test)


def _reraises() -> ast.ExceptHandler:
    return ast.ExceptHandler(ast.Name("BaseException", ast.Load()), None, [ast.Raise()])


def _without(node: ast.Try, handler: ast.ExceptHandler) -> ast.Try:
    """The handler raises the error again, and does nothing else."""
    empty = ast.ExceptHandler(handler.type, handler.name, [ast.Raise()])
    handlers = [empty if each is handler else each for each in node.handlers]
    return ast.Try(node.body, handlers, node.orelse, node.finalbody)


def _with(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


class _Replacing(ast.NodeTransformer):
    def __init__(self, node: ast.AST, replacement: ast.AST) -> None:
        self._node = node
        self._replacement = replacement

    def visit(self, node: ast.AST) -> ast.AST:
        return self._replacement if node is self._node else self._rebuilt(node)

    def _rebuilt(self, node: ast.AST) -> ast.AST:
        """A copy where something inside is replaced: the tree itself stays as it is."""
        fields = {name: self._field(value) for name, value in ast.iter_fields(node)}
        if all(fields[name] is value for name, value in ast.iter_fields(node)):
            return node
        return _with(node, **fields)

    def _field(self, value: object) -> object:
        if isinstance(value, ast.AST):
            return self.visit(value)
        if isinstance(value, list):
            items = [self.visit(item) if isinstance(item, ast.AST) else item for item in value]
            return value if all(new is old for new, old in zip(items, value, strict=True)) else items
        return value


def _replaced(tree: ast.Module, node: ast.AST, replacement: ast.AST | None) -> ast.Module:
    place = ast.Pass() if replacement is None else replacement
    if not hasattr(place, "lineno"):
        ast.copy_location(place, node)
    changed = _Replacing(node, place).visit(tree)
    assert isinstance(changed, ast.Module)
    # Only nodes that are new lack their place.
    return ast.fix_missing_locations(changed)


def _text(node: ast.AST | None) -> str:
    text = " ".join(ast.unparse(node).split()) if node is not None else "anything"
    return text if len(text) <= 70 else f"{text[:67]}..."

"""Small faults made in source text: poodle's operators, and two of our own.

    for mutant in mutants("deploy/governor.py", source):
        mutant.apply(source)        # the whole file with one fault in it

Ours are the faults that lose a safety check: a statement left out, and a condition the wrong way
round. Left alone are documentation, annotations, imports, prose (a string with a space in it, an
f-string, what is said when something is raised), and changes that only crash at once, such as None
for the result of a call: they would flatter the score.
"""

import ast
import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from types import SimpleNamespace
from typing import cast

from poodle import mutators
from poodle.data_types import FileMutation, Mutator, PoodleConfig


@dataclass(frozen=True)
class Mutant:
    """One fault: `text` in place of the bytes from `start` to `end`."""

    path: str
    where: str
    """Class and function it lies in, dotted; empty at module level."""
    line: int
    start: int
    end: int
    text: str
    was: str
    """The lines it touches, in one, before ..."""
    now: str
    """... and after."""

    def apply(self, source: str) -> str:
        """The file with this fault."""
        data = source.encode()
        return (data[: self.start] + self.text.encode() + data[self.end :]).decode()

    def diff(self, source: str) -> str:
        """The fault as a unified diff without context."""
        before, after = source.splitlines(), self.apply(source).splitlines()
        return "\n".join(
            difflib.unified_diff(before, after, self.path, self.where, n=0, lineterm="")
        )

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What it is called in the list of equivalent mutants; keeps when lines move."""
        return self.path, self.where, self.was, self.now


def mutants(path: str, source: str) -> list[Mutant]:
    """All faults we can make in a file, in the order of its text."""
    tree = ast.parse(source)
    starts = _line_starts(source)
    left_alone = [_span(node, starts) for node in _left_alone(tree)]
    definitions = [  # outer ones first
        (node.name, *_span(node, starts))
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    ]
    found: dict[tuple[int, int, str], Mutant] = {}
    for fault in _faults(source):
        start = starts[fault.lineno - 1] + fault.col_offset
        end = starts[fault.end_lineno - 1] + fault.end_col_offset
        if any(first <= start and end <= last for first, last in left_alone):
            continue
        where = [name for name, first, last in definitions if first <= start and end <= last]
        # poodle leaves out the parentheses that an operator of lower rank needs
        text = f"({fault.text})" if fault.mutator_name in _EXPRESSIONS else fault.text
        mutant = _mutant(path, source, ".".join(where), fault.lineno, start, end, text)
        if mutant.was != mutant.now and not _is_none_for_false(mutant):
            found[start, end, text] = mutant
    return [found[key] for key in sorted(found)]


def sample(found: list[Mutant], count: int, seed: int) -> list[Mutant]:
    """About `count` mutants at different places; a change elsewhere leaves the choice as it was."""

    def lot(mutant: Mutant) -> str:
        return sha256(repr((seed, mutant.key, mutant.text)).encode()).hexdigest()

    chosen: dict[tuple[int, int], Mutant] = {}
    for mutant in sorted(found, key=lot):
        chosen.setdefault((mutant.start, mutant.end), mutant)
    return sorted(list(chosen.values())[:count], key=lambda mutant: mutant.start)


_POODLE = (
    mutators.AugAssignMutator,
    mutators.BinaryOperationMutator,
    mutators.ComparisonMutator,
    mutators.DecoratorMutator,
    mutators.KeywordMutator,
    mutators.LambdaReturnMutator,
    mutators.NumberMutator,
    mutators.ReturnMutator,
    mutators.StringMutator,
    mutators.UnaryOperationMutator,
)
_EXPRESSIONS = {"BinOp", "Compare", "UnaryOp", "Lambda"}
_CONSTRUCTORS = {"__init__", "__post_init__"}


def _faults(source: str) -> Iterator[FileMutation]:
    """What all operators make of all nodes."""
    for operator in _POODLE:
        mutator = operator(cast(PoodleConfig, SimpleNamespace(mutator_opts={})), print)
        mutator.mutants = []
        for node in _nodes(source):  # left to itself, a mutator stops at its outermost match
            if visit := getattr(mutator, f"visit_{type(node).__name__}", None):
                visit(node)
        yield from mutator.mutants
    for node in _nodes(source):
        if _can_be_left_out(node):
            yield Mutator.create_file_mutation(node, "pass")
        for condition in _conditions(node):
            yield Mutator.create_file_mutation(condition, f"(not ({ast.unparse(condition)}))")


def _nodes(source: str) -> list[ast.AST]:
    """All nodes, with a `parent`; new ones, since operators change what they are given."""
    tree = ast.parse(source)
    Mutator.add_parent_attr(tree)
    return list(ast.walk(tree))


def _can_be_left_out(node: ast.AST) -> bool:
    """A call, an assignment to what lasts, a `del`, a `raise`; not what a constructor sets."""
    if isinstance(node, ast.Assign):
        in_constructor = getattr(vars(node)["parent"], "name", "") in _CONSTRUCTORS
        return not in_constructor and any(map(_lasts, node.targets))
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Call)
    return isinstance(node, ast.Raise | ast.AugAssign | ast.Delete)


def _lasts(target: ast.expr) -> bool:
    if isinstance(target, ast.Tuple):
        return any(map(_lasts, target.elts))
    return isinstance(target, ast.Attribute | ast.Subscript)


def _conditions(node: ast.AST) -> list[ast.expr]:
    """Conditions that are no comparisons: those are poodle's."""
    found: list[ast.expr] = []
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        found = [node.test]
    elif isinstance(node, ast.comprehension):
        found = node.ifs
    return [test for test in found if not isinstance(test, ast.Compare | ast.UnaryOp)]


def _mutant(
    path: str, source: str, where: str, line: int, start: int, end: int, text: str
) -> Mutant:
    data = source.encode()
    first = data.rfind(b"\n", 0, start) + 1
    last = data.find(b"\n", end) % (len(data) + 1)
    before, after = data[first:start].decode(), data[end:last].decode()
    was, now = (
        " ".join(lines.split()) for lines in (data[first:last].decode(), before + text + after)
    )
    return Mutant(path, where, line, start, end, text, was, now)


def _left_alone(tree: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        match node:
            case ast.Import() | ast.ImportFrom() | ast.JoinedStr():
                yield node
            case ast.Expr(value=ast.Constant()):
                yield node  # documentation
            case ast.Constant(value=str(text)) if " " in text:
                yield node
            case ast.Raise():
                yield from filter(_is_string, ast.walk(node))
            case ast.Compare(ops=[ast.Is() | ast.IsNot()]):
                yield node.comparators[0]  # `is not None`: the comparison itself is changed
            case ast.Subscript():  # `array[:, None]`
                yield from filter(_is_none, ast.walk(node.slice))
            case ast.keyword(arg="strict"):
                yield node  # of `zip`: a check of ourselves
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                yield node
            case ast.ClassDef(bases=[ast.Name(id="Protocol")]):
                yield node
            case ast.ClassDef(decorator_list=decorators):
                yield from decorators  # whether a dataclass is frozen, or has slots
        for name in ("annotation", "returns"):
            if (annotation := getattr(node, name, None)) is not None:
                yield annotation


def _is_string(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _is_none_for_false(mutant: Mutant) -> bool:
    return mutant.was.endswith("return False") and mutant.now.endswith("return None")


def _line_starts(source: str) -> list[int]:
    starts = [0]
    for line in source.encode().split(b"\n"):
        starts.append(starts[-1] + len(line) + 1)
    return starts


def _span(node: ast.AST, starts: list[int]) -> tuple[int, int]:
    line, column, end_line, end_column = Mutator.get_location(node)
    return starts[line - 1] + column, starts[end_line - 1] + end_column

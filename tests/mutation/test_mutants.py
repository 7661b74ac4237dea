"""The faults we make, those we do not make, and the lists that go with them."""

import ast
from pathlib import Path
from textwrap import dedent

import pytest

pytest.importorskip("poodle", reason="mutation testing needs robotrl[dev]")

from modules import MODULES
from mutants import Mutant, mutants, sample
from mutate import choose, equivalents

ROOT = Path(__file__).parents[2]


def found(path: str) -> list[Mutant]:
    return mutants(path, (ROOT / path).read_text())


def faults(source: str) -> set[str]:
    return {mutant.now for mutant in mutants("a.py", dedent(source))}


@pytest.mark.parametrize("path", MODULES)
def test_mutants_are_programs_and_say_something_else(path: str):
    source = (ROOT / path).read_text()
    sound = ast.dump(ast.parse(source))
    for mutant in sample(mutants(path, source), 10, seed=0):
        assert ast.dump(ast.parse(mutant.apply(source))) != sound


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("ok = low <= value", {"ok = (low > value)", "ok = (low < value)"}),
        ("ok = x is None", {"ok = (x is not None)"}),
        ("m = -x", {"m = (+x)"}),
        ("n = 5", {"n = 6", "n = 4"}),
        ("x = 0.5", {"x = 1.0", "x = 0.25"}),
        ("kind = 'u'", {"kind = 'XXuXX'"}),
        ("y = a + b if c else d", {
            "y = (a - b) if c else d", "y = (a * b) if c else d", "y = a + b if (not (c)) else d",
        }),
        ("z = a / (b / c)", {  # inner operators are reached too
            "z = (a * (b / c))", "z = (a - b / c)", "z = a / ((b * c))", "z = a / ((b - c))",
        }),
        ("self.sent = target", {"pass"}),
        ("port.close()", {"pass"}),
        ("raise ValueError('x')", {"pass"}),
    ],
)  # fmt: skip
def test_faults_that_are_made(source: str, expected: set[str]):
    assert faults(source) == expected


def test_documentation_annotations_and_messages_are_left_alone():
    assert faults('''
        """Documentation, 1 or 2."""
        import a.b

        __all__ = ["f"]

        def f(x: "int | None", y: dict[str, 1] = empty) -> Literal["a"]:
            """More of it."""
            table: Mapping[int, "text"] = {name: "words about it"}
            g(array[:, None], zip(x, y, strict=True), f"{1 + 2} words")
    ''') == {"pass"}  # for the call of g


def test_what_is_said_when_raising_is_left_alone():
    assert faults("raise ContractError('joint', f'{low} rad')") == {"pass"}


def test_constructor_sets_what_it_must():
    assert faults("""
        class A:
            def __init__(self, x):
                self.x = x
                self.check()
    """) == {"pass"}  # for the call alone


def test_mutant_knows_where_it_lies_and_what_it_changes():
    source = dedent("""
        class Governor:
            def limit(self, target):
                return clip(target,  # in rad·s
                            low * 2)
    """)
    mutant = next(m for m in mutants("a.py", source) if m.text == "3")
    assert (mutant.path, mutant.where, mutant.line) == ("a.py", "Governor.limit", 5)
    assert (mutant.was, mutant.now) == ("low * 2)", "low * 3)")
    assert mutant.apply(source) == source.replace("2", "3")
    assert "-                    low * 2)" in mutant.diff(source)


def test_sample_is_of_different_places_and_follows_from_the_seed():
    every = found("deploy/governor.py")
    chosen = sample(every, 20, seed=0)
    assert len({(mutant.start, mutant.end) for mutant in chosen}) == 20
    assert sample(every, 20, seed=0) == chosen
    assert sample(every, 20, seed=1) != chosen


def test_sample_stays_when_lines_move():
    source = (ROOT / "deploy/governor.py").read_text()
    moved = source.replace("\n\n\nclass Governor", "\n\n# more to come\n\n\nclass Governor")
    assert moved != source
    before, after = mutants("a.py", source), mutants("a.py", moved)
    assert [m.key for m in sample(before, 20, 0)] == [m.key for m in sample(after, 20, 0)]


def test_every_module_has_a_share_of_the_sample():
    every = {
        path: found(path)
        for path in ("deploy/dynamixel/registers.py", "deploy/commands/random_commands.py")
    }
    chosen = choose(every, 40, seed=0)
    paths = [mutant.path for mutant in chosen]
    assert paths.count("deploy/commands/random_commands.py") == 8
    assert 35 <= paths.count("deploy/dynamixel/registers.py") <= 40
    assert len(choose(every, 0, seed=0)) == sum(map(len, every.values()))


def test_modules_and_their_tests_exist_and_the_wire_is_complete():
    wire = {
        str(path.relative_to(ROOT))
        for family in ("dynamixel", "feetech")
        for path in (ROOT / "deploy" / family).glob("[a-z]*.py")
    }
    assert wire <= MODULES.keys()
    for path, tests in MODULES.items():
        missing = [name for name in (path, *tests) if not (ROOT / name).exists()]
        assert not missing, "correct tests/mutation/modules.py"


def test_every_equivalent_mutant_can_be_made_and_has_a_reason():
    listed = equivalents()
    possible = {mutant.key for path in {key[0] for key in listed} for mutant in found(path)}
    assert set(listed) - possible == set(), "remove these from tests/mutation/equivalent.toml"
    assert all(listed.values())

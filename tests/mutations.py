"""Break the code in places that a seed draws, and see whether the tests notice.

python -m tests.mutations --count 40 --seed 18

Each change is made in a copy of the committed files, never here. The tests of the changed module run first, then
those of its folder, then all fast ones: a change that none of them notices has survived. The last line is JSON.
"""

import argparse
import ast
import copy
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
}
TEST_SECONDS = 900
"""A change that makes the tests hang is noticed after this long."""


@dataclass(frozen=True, slots=True)
class Mutation:
    """One change: in a file, the text between two offsets becomes another."""

    path: str
    line: int
    start: int
    end: int
    old: str
    new: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.old} → {self.new}"


def mutated(node: ast.AST) -> ast.expr | None:
    """The expression with its meaning changed; None if this kind is left alone."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in COMPARISONS:
            changed = copy.deepcopy(node)
            changed.ops = [COMPARISONS[type(op)]()]
            return changed
        case ast.BoolOp():
            changed_bool = copy.deepcopy(node)
            changed_bool.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            return changed_bool
        case ast.BinOp(op=operator) if type(operator) in OPERATORS:
            changed_binary = copy.deepcopy(node)
            changed_binary.op = OPERATORS[type(operator)]()
            return changed_binary
        case ast.UnaryOp(op=ast.Not()):
            return node.operand
        case ast.Constant(value=bool() as value):
            return ast.Constant(not value)
        case ast.Constant(value=int() | float() as number):
            return ast.Constant(number + 1)
    return None


def running_nodes(tree: ast.Module) -> Iterator[ast.AST]:
    """What is run: everything but annotations, decorators and messages."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for name, value in ast.iter_fields(node):
            if name in ("annotation", "returns", "decorator_list", "type_params") or isinstance(node, ast.JoinedStr):
                continue
            waiting += [
                child for child in (value if isinstance(value, list) else [value]) if isinstance(child, ast.AST)
            ]


def find_mutations(path: Path) -> list[Mutation]:
    """All changes that one module allows, in the order of the file."""
    text = path.read_text(encoding="utf-8")
    starts = [0]
    for line in text.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found = []
    for node in running_nodes(ast.parse(text)):
        change = mutated(node)
        if change is None or not isinstance(node, ast.expr) or node.end_lineno is None or node.end_col_offset is None:
            continue
        start, end = starts[node.lineno - 1] + node.col_offset, starts[node.end_lineno - 1] + node.end_col_offset
        old = " ".join(text.encode()[start:end].decode().split())
        name = str(path.relative_to(ROOT))
        found.append(Mutation(name, node.lineno, start, end, old, f"({ast.unparse(change)})"))
    return sorted(found, key=lambda one: (one.start, one.end))


def draw_mutations(count: int, seed: int) -> list[Mutation]:
    """So many changes of all of `backend/`, the same ones for the same code and seed."""
    every = [one for path in sorted((ROOT / "backend").rglob("*.py")) for one in find_mutations(path)]
    return random.Random(seed).sample(every, count)


def test_stages(path: str) -> list[list[str]]:
    """Tests to run, those first that most likely notice a change of this module."""
    module = Path(path).relative_to("backend")
    own = Path("tests") / module.parent / f"test_{module.name}"
    room = Path("tests") / module.parts[0]
    stages = [[str(own)]] if (ROOT / own).exists() else []
    if (ROOT / room).is_dir():
        stages.append([str(room), "-m", "not slow"])
    return [*stages, ["tests", "-m", "not slow", "-n", "2", "--dist", "loadscope"]]


def is_noticed(copy_root: Path, mutation: Mutation) -> bool:
    """Whether any test fails with this change."""
    file = copy_root / mutation.path
    original = file.read_bytes()
    file.write_bytes(original[: mutation.start] + mutation.new.encode() + original[mutation.end :])
    try:
        for words in test_stages(mutation.path):
            command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *words]
            environment = os.environ | {"PYTHONPATH": str(copy_root), "OMP_NUM_THREADS": "1"}
            try:
                run = subprocess.run(
                    command, cwd=copy_root, env=environment, capture_output=True, timeout=TEST_SECONDS, check=False
                )
            except subprocess.TimeoutExpired:
                return True
            if run.returncode not in (0, 5):  # 5: no test was chosen
                return True
        return False
    finally:
        file.write_bytes(original)


def copy_checkout(target: Path) -> None:
    """The committed files, as they stand here."""
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, names.split("\0")):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target / name)


def main() -> None:
    """Draw the changes, try each, and print which survived."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=18)
    options = parser.parse_args()
    drawn = draw_mutations(options.count, options.seed)
    survived = []
    with tempfile.TemporaryDirectory() as folder:
        copy_checkout(Path(folder))
        for number, mutation in enumerate(drawn, 1):
            noticed = is_noticed(Path(folder), mutation)
            print(f"{number:3} {'noticed ' if noticed else 'SURVIVED'} {mutation}", flush=True)
            survived += [] if noticed else [str(mutation)]
    print(json.dumps({"mutations": len(drawn), "seed": options.seed, "survived": survived}, ensure_ascii=False))


if __name__ == "__main__":
    main()

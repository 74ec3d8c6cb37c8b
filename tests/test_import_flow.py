"""Data flows one way: every import between the package's parts is one that CONTRIBUTING.md allows."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'mmdf2'
HEADING = '## What may import what'
MODULES = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__'): path
    for path in sorted(PACKAGE.rglob('*.py'))
    if '.mim' not in path.parts
}


def read_table() -> dict[str, tuple[set[str], set[str] | None]]:
    """Part -> the parts that it may import, and the libraries that it may import (None: any)."""
    section = (ROOT / 'CONTRIBUTING.md').read_text().split(HEADING)[1].split('\n## ')[0]
    rows = [line.strip('|').split('|') for line in section.splitlines() if line.startswith('| `')]
    names = [re.findall(r'`([\w.]+)`', row[0]) for row in rows]
    known = {name for group in names for name in group}
    table = {}
    for group, (_, parts, libraries) in zip(names, rows, strict=True):
        allowed = set(re.findall(r'`([\w.]+)`', parts))
        assert allowed <= known, f'the table names {sorted(allowed - known)}, which have no row of their own'
        own = set(re.findall(r'`([\w.]+)`', libraries)) if 'any' not in libraries else None
        for name in group:
            assert name not in table, f'{name} has two rows in the table'
            table[name] = allowed, own
    return table


TABLE = read_table()


def part_of(module: str) -> str | None:
    """The row of the table that a module belongs to: the longest name that it begins with."""
    local = module.removeprefix('mmdf2').lstrip('.')
    parts = [name for name in TABLE if local == name or local.startswith(f'{name}.')]
    return max(parts, key=len, default=None)


def imports_of(module: str):
    """(line, imported module) of each import in a module, those inside functions included."""
    path = MODULES[module]
    package = module if path.name == '__init__.py' else module.rpartition('.')[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parents = package.split('.')[: len(package.split('.')) - node.level + 1]
                base = '.'.join([*parents, base]).rstrip('.')
            for alias in node.names:
                full = f'{base}.{alias.name}'
                yield node.lineno, full if full in MODULES else base


def test_every_module_belongs_to_a_part():
    strays = [module for module in MODULES if module != 'mmdf2' and part_of(module) is None]
    assert not strays, f'give these a row in {HEADING!r} of CONTRIBUTING.md: {strays}'
    empty = [name for name in TABLE if not any(part_of(module) == name for module in MODULES)]
    assert not empty, f'these rows of {HEADING!r} name no module: {empty}'


@pytest.mark.parametrize('module', MODULES)
def test_imports_follow_the_table(module):
    own = part_of(module)
    parts, libraries = TABLE.get(own, (set(), set()))
    for line, imported in imports_of(module):
        top = imported.partition('.')[0]
        where = f'{MODULES[module].relative_to(ROOT)}:{line} imports {imported}'
        if top == 'mmdf2':
            part = part_of(imported)
            assert part is None or part == own or part in parts, f'{where}, which the table does not allow to {own}'
        elif libraries is not None and top not in sys.stdlib_module_names:
            assert top in libraries, (
                f'{where}, and the table allows only {sorted(libraries) or "no libraries"} to {own}'
            )


def test_the_parts_have_no_circles():
    """An import against the flow cannot be allowed by the table either."""
    done = set()
    while len(done) < len(TABLE):
        free = [name for name, (parts, _) in TABLE.items() if name not in done and parts - {name} <= done]
        assert free, f'{HEADING!r} of CONTRIBUTING.md lets these import each other: {sorted(set(TABLE) - done)}'
        done.update(free)

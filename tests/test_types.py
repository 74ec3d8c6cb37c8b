"""The parts of the package whose type hints `make lint` checks: all, unless pyproject.toml says why not."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOLS = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']
MODULES = {path for path in (ROOT / 'mmdf2').rglob('*.py') if '.mim' not in path.parts}
IMPORTS_WITHOUT_HINTS = re.compile(r'^\s*(?:from|import) (?:mmengine|mmcv|mmdet)\b', flags=re.MULTILINE)


def modules_of(names: list[str]) -> set[Path]:
    """The modules that files and folders, relative to the checkout, stand for."""
    modules = set()
    for name in names:
        modules |= set((ROOT / name).rglob('*.py')) if (ROOT / name).is_dir() else {ROOT / name}
    return modules


CHECKED = modules_of(TOOLS['mypy']['files'])
UNCHECKED = modules_of(TOOLS['mmdf2']['unchecked'])


def test_the_lists_name_modules_that_exist():
    assert CHECKED <= MODULES
    assert UNCHECKED <= MODULES
    assert not CHECKED & UNCHECKED


@pytest.mark.parametrize('name', ['files', 'unchecked'])
def test_the_lists_are_sorted(name):
    names = TOOLS['mypy' if name == 'files' else 'mmdf2'][name]
    assert names == sorted(names)


def test_every_module_is_checked_unless_it_imports_what_has_no_hints():
    needed = {module for module in MODULES if not IMPORTS_WITHOUT_HINTS.search(module.read_text())}
    assert sorted(needed - CHECKED - UNCHECKED) == []

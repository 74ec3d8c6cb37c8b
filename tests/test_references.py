"""What comments, docstrings, messages and pages name in this repository exists: files, folders and dotted names."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from test_docs import NAME, PATH, PRESENT_PAGES, resolves
from tiny_run import ROOT

FOLDERS = ('benchmarks', 'configs', 'csrc', 'docs', 'mmdf2', 'requirements', 'scripts', 'tests', 'tools')
# What an older version wrote names what was there then.
OLD = ROOT / 'tests/data'
# What a build makes, what the system has, and placeholders.
ELSEWHERE = {'mmdf2/ops/_C.abi3.so', 'mmdf2.ops._C', 'mmdf2_build_info.h', 'mmdf2.egg', 'Python.h', 'mmdf2.X'}

# A source file without its folder, such as error_bound.h, as comments name their neighbours.
SOURCE = re.compile(r'(?<![\w./*<>-])(?:\.\./)*\w+\.(?:h|cpp|cu|cuh)(?!\w)')
CPP_COMMENT = re.compile(r'//[^\n]*(?:\n\s*//[^\n]*)*|/\*.*?\*/', flags=re.DOTALL)
HASH_COMMENT = re.compile(r'(?<!\S)#[^\n]*')
CPP = ('.h', '.cpp', '.cu', '.cuh')


@cache
def repository_files() -> tuple[Path, ...]:
    """The files of the checkout, without what is hidden, built or made."""
    roots = [path for path in sorted(ROOT.iterdir()) if path.is_file() or path.name in FOLDERS]
    found = [path for root in roots for path in ([root] if root.is_file() else sorted(root.rglob('*')))]
    return tuple(
        path
        for path in found
        if path.is_file() and '__pycache__' not in path.parts and OLD not in path.parents and not path.is_symlink()
    )


def prose_of_python(text: str, with_strings: bool) -> Iterator[str]:
    """Comments and docstrings, and on demand all strings; of f-strings the parts between the braces."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield ast.get_docstring(node) or ''
        if with_strings and isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def prose_of(path: Path) -> str:
    """What a file says to its reader: comments and docstrings, messages but for those of tests, pages whole."""
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.py':
        return '\n\n'.join(prose_of_python(text, with_strings=ROOT / 'tests' not in path.parents))
    if path.suffix in CPP:
        return '\n\n'.join(CPP_COMMENT.findall(text))
    if path.suffix == '.md':
        return text
    return '\n\n'.join(HASH_COMMENT.findall(text))


def readable_files() -> list[Path]:
    kinds = ('.py', '.toml', '.txt', '.yml', '.yaml', *CPP)
    files = [path for path in repository_files() if path.suffix in kinds or path.name in ('Makefile', 'MANIFEST.in')]
    return [*files, *PRESENT_PAGES]


each_file = pytest.mark.parametrize('path', readable_files(), ids=lambda path: str(path.relative_to(ROOT)))


@each_file
def test_paths_exist(path):
    for name in PATH.findall(prose_of(path)):
        assert name in ELSEWHERE or (ROOT / name.rstrip('./')).exists(), f'{name}: no such file or folder'


@each_file
def test_source_files_exist(path):
    known = {file.name for file in repository_files() if file.suffix in CPP} | ELSEWHERE
    for name in SOURCE.findall(prose_of(path)):
        if name.startswith('..'):
            assert (path.parent / name).exists(), f'{name}: no such file'
        assert name.rpartition('/')[2] in known, f'{name}: no such file'


@each_file
def test_names_exist(path):
    for name in set(NAME.findall(prose_of(path))) - ELSEWHERE:
        assert resolves(name), f'{name}: no such module, object or registered class'

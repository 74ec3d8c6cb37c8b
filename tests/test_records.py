"""Records with many fields are built by keyword: a value in the wrong place would be a wrong figure without a word."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ('mmdf2', 'tools', 'benchmarks', 'tests')
TREES = {
    path: ast.parse(path.read_text())
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob('*.py'))
    if '.mim' not in path.parts
}
MOST_BY_POSITION = 3


def is_record(node) -> bool:
    """Whether a class is a dataclass or a named tuple."""
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    bases = [ast.unparse(base) for base in node.bases]
    return any('dataclass' in text for text in decorators) or any('NamedTuple' in text for text in bases)


RECORDS = {
    node.name
    for path, tree in TREES.items()
    if path.is_relative_to(ROOT / 'mmdf2')
    for node in ast.walk(tree)
    if isinstance(node, ast.ClassDef) and is_record(node)
}


def test_records_are_found():
    assert {'GroundTruth', 'Detections', 'GalleryItem', 'Item'} <= RECORDS


@pytest.mark.parametrize('path', TREES, ids=lambda path: str(path.relative_to(ROOT)))
def test_records_are_built_by_keyword(path):
    by_position = [
        f'{path.relative_to(ROOT)}:{node.lineno} builds {ast.unparse(node.func)}'
        for node in ast.walk(TREES[path])
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).split('.')[-1] in RECORDS
        and len(node.args) > MOST_BY_POSITION
    ]
    assert not by_position, f'more than {MOST_BY_POSITION} values by position'

"""What the evaluation imports: the core needs nothing else of mmdf2, and only the metrics need models and runners."""

import ast
from pathlib import Path

import pytest

import mmdf2.evaluation

FOLDER = Path(mmdf2.evaluation.__file__).parent
CORE = ('records', 'coco', 'retrieval', 'verification')
CORE_NEEDS = ('mmdf2.categories', 'mmdf2.codecs.dense_landmarks', *(f'mmdf2.evaluation.{name}' for name in CORE))


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize('name', CORE)
def test_the_core_needs_the_table_of_categories_and_dense_landmarks_only(name):
    for module in imported(FOLDER / f'{name}.py'):
        assert not module.startswith('mmdf2') or module in CORE_NEEDS, module
        assert module.split('.')[0] in ('mmdf2', 'numpy', 'pycocotools', 'collections', 'dataclasses', 'typing'), module


def test_all_but_the_metrics_imports_no_model_and_no_runner():
    modules = [path for path in FOLDER.rglob('*.py') if path.name != '__init__.py' and path.parent.name != 'metrics']
    assert len(modules) > 8
    for path in modules:
        for name in imported(path):
            assert name.split('.')[0] not in ('torch', 'mmengine', 'mmdet', 'mmcv'), path.name
            assert not name.startswith(('mmdf2.models', 'mmdf2.registry', 'mmdf2.ops')), path.name

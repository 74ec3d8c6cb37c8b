"""Only the metrics need models and runners; ``tests/test_import_flow.py`` says what else each part may import."""

import ast
from pathlib import Path

import mmdf2.evaluation

FOLDER = Path(mmdf2.evaluation.__file__).parent


def imported(path):
    """The names of the modules that a module imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_all_but_the_metrics_imports_no_model_and_no_runner():
    modules = [path for path in FOLDER.rglob('*.py') if path.name != '__init__.py' and path.parent.name != 'metrics']
    assert len(modules) > 8
    for path in modules:
        for name in imported(path):
            assert name.split('.')[0] not in ('torch', 'mmengine', 'mmdet', 'mmcv'), path.name
            assert not name.startswith(('mmdf2.models', 'mmdf2.registry', 'mmdf2.ops')), path.name

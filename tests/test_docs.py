"""What the pages name exists: linked files and headings, scripts and options, make's targets, paths, names in code."""

import contextlib
import importlib
import io
import re
import runpy
import sys
from functools import cache
from pathlib import Path
from unittest import mock

import pytest
from mmengine.registry import Registry
from tiny_run import ROOT

from mmdf2 import registry

# Folders that a build, a run or a user puts into the checkout.
NOT_OURS = ('build', 'dist', 'data', 'work_dirs', 'shared')
PAGES = [
    path
    for path in sorted(ROOT.rglob('*.md'))
    if path.relative_to(ROOT).parts[0] not in NOT_OURS
    and not any(part.startswith('.') for part in path.relative_to(ROOT).parts)
]
# The changelog also names what no longer exists.
PRESENT_PAGES = [page for page in PAGES if page.name != 'CHANGELOG.md']

FENCED = re.compile(r'^```.*?^```', flags=re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r'^ {4}.*$', flags=re.MULTILINE)
SPAN = re.compile(r'`([^`]+)`')
LINK = re.compile(r'\[[^\]]*\]\(([^)\s]+)\)')
# A script of ours and what follows on its line; a backslash continues the line, and # begins a comment.
COMMAND = re.compile(r'(?<![\w/.])((?:tools|benchmarks|scripts)/\w+\.py)((?:[^\n#\\]|\\\n)*)')
OPTION = re.compile(r'(?<![\w-])--[a-z][\w-]*')
PATH = re.compile(
    r'(?<![\w/.$~-])(?:tools|benchmarks|scripts|configs|tests|docs|mmdf2|csrc|requirements)/[\w./-]*(?![\w*<{])'
)
NAME = re.compile(r'(?<![\w/.:-])mmdf2(?:\.[A-Za-z_]\w*)+')


def each(pages):
    return pytest.mark.parametrize('page', pages, ids=lambda page: str(page.relative_to(ROOT)))


def split_page(page: Path) -> tuple[str, str]:
    """The prose of a page, and all its code: fenced blocks, indented blocks and spans."""
    prose, code = page.read_text(encoding='utf-8'), []
    for pattern in (FENCED, INDENTED, SPAN):
        code += [match.group(match.lastindex or 0) for match in pattern.finditer(prose)]
        prose = pattern.sub('', prose)
    return prose, '\n'.join(code)


def heading_anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = FENCED.sub('', page.read_text(encoding='utf-8'))
    headings = re.findall(r'^#+ +(.+?) *$', text, flags=re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@cache
def help_of(script: str, *words: str) -> str:
    """What ``python SCRIPT WORDS... -h`` prints."""
    path = ROOT / script
    printed = io.StringIO()
    # Scripts import the modules beside them.
    with (
        mock.patch.object(sys, 'argv', [str(path), *words, '-h']),
        mock.patch.object(sys, 'path', [str(path.parent), *sys.path]),
        contextlib.redirect_stdout(printed),
        pytest.raises(SystemExit) as ended,
    ):
        runpy.run_path(str(path), run_name='__main__')
    assert ended.value.code == 0, f'{script} -h ended with {ended.value.code}'
    return printed.getvalue()


def resolves(name: str) -> bool:
    """Whether a dotted name is a module of mmdf2, something in one, or a registered class."""
    parts = name.split('.')
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module('.'.join(parts[:end]))
        except ModuleNotFoundError as error:
            if not str(error.name).startswith('mmdf2'):
                return True  # it exists, and needs an extra that is not installed
            continue
        for part in parts[end:]:
            found = getattr(found, part, None)
        if found is not None:
            return True
        break
    registries = [value for value in vars(registry).values() if isinstance(value, Registry)]
    return len(parts) == 2 and any(one.get(parts[1]) for one in registries)


def test_every_page_is_read():
    names = {str(page.relative_to(ROOT)) for page in PAGES}
    assert {'README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'docs/README.md', 'benchmarks/README.md'} <= names


def test_readme_has_one_block_of_python():
    """Another test runs its lines as they stand."""
    assert (ROOT / 'README.md').read_text(encoding='utf-8').count('```python\n') == 1


@each(PAGES)
def test_relative_links_resolve(page):
    for target in LINK.findall(split_page(page)[0]):
        if re.match(r'\w+:', target):
            continue
        name, _, anchor = target.partition('#')
        linked = (page.parent / name).resolve() if name else page
        assert linked.exists(), f'{target}: no such file'
        assert not anchor or anchor in heading_anchors(linked), f'{target}: no such heading'


@each(PRESENT_PAGES)
def test_commands_name_scripts_and_options_that_exist(page):
    for script, rest in COMMAND.findall(split_page(page)[1]):
        assert (ROOT / script).is_file(), f'{script}: no such script'
        options = OPTION.findall(rest)
        if not options:
            continue
        known = help_of(script)
        subcommands = re.search(r'\{([a-z]+(?:,[a-z]+)+)\}', known)
        first = (rest.split() or [''])[0]
        if subcommands and first in subcommands[1].split(','):
            known = help_of(script, first)
        unknown = set(options) - set(OPTION.findall(known))
        assert not unknown, f'{script} {first}: -h does not name {sorted(unknown)}'


@each(PRESENT_PAGES)
def test_make_has_the_targets(page):
    targets = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), flags=re.MULTILINE))
    named = set(re.findall(r'(?<![\w-])make ([a-z][a-z-]*)', split_page(page)[1]))
    assert named <= targets


@each(PRESENT_PAGES)
def test_paths_of_the_checkout_exist(page):
    for path in PATH.findall(split_page(page)[1]):
        assert (ROOT / path.rstrip('./')).exists(), f'{path}: no such file or folder'


@each(PRESENT_PAGES)
def test_configs_for_mim_exist(page):
    """mim finds a config by its whole file name."""
    configs = {path.name for path in (ROOT / 'configs').rglob('*.py')}
    for name in re.findall(r'mim (?:train|test) mmdf2 ([\w.-]+)', split_page(page)[1]):
        assert name in configs or name.isupper(), f'{name}: no such config'


@each(PRESENT_PAGES)
def test_names_of_the_package_exist(page):
    for name in sorted(set(NAME.findall(split_page(page)[1]))):
        assert resolves(name), f'{name}: no such module, function or class'

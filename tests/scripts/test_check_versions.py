"""The oldest and newest Python and torch are the same in the metadata, the script that tries them, and the docs."""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / 'scripts'), str(ROOT / 'csrc')]

from check_versions import VERSIONS  # noqa: E402
from extension import OLDEST_TORCH  # noqa: E402

PROJECT = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
ROW = re.compile(r'^\| (?:oldest|newest) \| (\d+\.\d+)\.\d+ \| (\d+\.\d+\.\d+) \|', flags=re.MULTILINE)


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split('.')))


def test_the_page_shows_the_versions_that_the_script_tries():
    assert ROW.findall((ROOT / 'docs/install.md').read_text()) == VERSIONS


def test_the_metadata_asks_for_no_older_versions_than_were_tried():
    python, torch = (min(map(numbers, column)) for column in zip(*VERSIONS, strict=True))
    assert PROJECT['requires-python'] == f'>={python[0]}.{python[1]}'
    assert torch == (*OLDEST_TORCH, 0)


def test_the_metadata_names_each_python_up_to_the_newest_that_was_tried():
    oldest, newest = (bound(numbers(python)[1] for python, _ in VERSIONS) for bound in (min, max))
    named = [name.rsplit(' ', 1)[1] for name in PROJECT['classifiers'] if re.search(r':: 3\.\d+$', name)]
    assert named == [f'3.{minor}' for minor in range(oldest, newest + 1)]


def test_what_is_pinned_lies_between():
    pinned = re.search(r'^torch==(\S+)', (ROOT / 'requirements/torch.txt').read_text(), flags=re.MULTILINE)[1]
    releases = [numbers(torch) for _, torch in VERSIONS]
    assert min(releases) <= numbers(pinned) <= max(releases)

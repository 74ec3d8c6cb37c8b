"""Builds mmdf2 from source with the oldest and the newest Python and torch, and runs the tests that need no OpenMMLab.

    python scripts/check_versions.py                 # every pair of VERSIONS, gigabytes of downloads
    python scripts/check_versions.py 3.11/2.4.0      # one pair

`make check-versions` runs it. Each pair gets a new environment under build/versions, torch from where pip is configured
to look, and mmdf2 from a source distribution, compiled for the CPU. The tests are those of the operators, the codecs
and the core of evaluation. The environment is deleted when they have passed. The last lines are one per pair; the exit
status says whether all went well. The pairs are those of the table in docs/install.md and of the package's metadata:
tests/scripts/test_check_versions.py compares them.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / 'build/versions'
# (Python, torch): the oldest of both and the newest of both. What lies between is not built on each change.
VERSIONS = [('3.11', '2.4.0'), ('3.13', '2.14.1')]
LIBRARIES = ('numpy', 'opencv-python-headless', 'pillow', 'pycocotools', 'tqdm', 'pytest')
BUILD_TOOLS = ('ninja', 'wheel', 'setuptools>=77,<81')
# None of them imports MMEngine, MMCV or MMDetection. tests/conftest.py does.
CORE = [f'evaluation/test_{name}.py' for name in ('coco', 'records', 'retrieval', 'verification')]
TESTS = (
    ('--confcutdir=ops', 'ops'),
    ('--noconftest', 'codecs', 'test_categories.py', 'test_files.py', *CORE),
)


def main() -> None:
    pairs = [tuple(pair.split('/')) for pair in sys.argv[1:]] or VERSIONS
    outcomes = {pair: check(*pair) for pair in pairs}
    for (python, torch), outcome in outcomes.items():
        print(f'Python {python}, torch {torch}: {outcome}')
    sys.exit(0 if set(outcomes.values()) == {'ok'} else 1)


def check(python: str, torch: str) -> str:
    """Builds and tests with one pair of versions; returns 'ok' or what went wrong."""
    interpreter = shutil.which(f'python{python}')
    if interpreter is None:
        return f'python{python} is not on PATH: not run'
    folder = FOLDER / f'python{python}-torch{torch}'
    own = folder / 'bin/python'
    try:
        run(interpreter, '-m', 'venv', '--clear', folder)
        run(own, '-m', 'pip', 'install', '--quiet', f'torch=={torch}', *LIBRARIES, *BUILD_TOOLS)
        run(own, '-m', 'pip', 'install', '--quiet', '--no-build-isolation', '--no-deps', pack_sources(own, folder))
        for arguments in TESTS:
            run(own, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', *arguments, cwd=ROOT / 'tests')
    except subprocess.CalledProcessError as error:
        return f'failed, see above: {" ".join(map(str, error.cmd))}'
    shutil.rmtree(folder)
    return 'ok'


def pack_sources(python: Path, folder: Path) -> Path:
    """Writes a source distribution into the folder, from a copy of the checkout that leaves out what was built."""
    copy = folder / 'checkout'
    leave_out = shutil.ignore_patterns('.git', '.venv*', '*.so', '__pycache__', 'build', 'dist', 'data', 'work_dirs')
    shutil.copytree(ROOT, copy, symlinks=True, ignore=leave_out)
    run(python, '-W', 'ignore', '-c', 'from setuptools import build_meta; build_meta.build_sdist("packed")', cwd=copy)
    return next((copy / 'packed').glob('mmdf2-*.tar.gz'))


def run(*command, cwd: Path = ROOT) -> None:
    """Runs a command, its output on the screen; subprocess.CalledProcessError when it fails."""
    print('+', *command, flush=True)
    variables = {name: value for name, value in os.environ.items() if name not in ('PYTHONPATH', 'PYTHONHOME')}
    subprocess.run(list(map(str, command)), check=True, cwd=cwd, env={**variables, 'FORCE_CUDA': '0'})


if __name__ == '__main__':
    main()

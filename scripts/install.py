"""What ``make install`` does: a virtual environment with pinned libraries, the OpenMMLab trio and mmdf2's own wheel.

Runs on a bare Python (standard library alone). Each stage notes in the environment what it was made from, so a second
run does only what has changed. A killed run goes on: mmcv's compilation where it stopped, pip's work from a new
environment.
"""

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import mmcv_wheel
from environment import Environment

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / 'requirements'
# What mmdf2's wheel is made of.
SOURCES = ('mmdf2', 'csrc', 'configs', 'tools', 'model-index.yml', 'setup.py', 'pyproject.toml', 'MANIFEST.in')
SOURCES += ('README.md', 'LICENSE', 'CHANGELOG.md')
NOT_SOURCES = ('__pycache__', '*.pyc', '*.so')


class InstallError(RuntimeError):
    """The machine or the given folder does not allow an installation; the message says what to do."""


def parse_args() -> argparse.Namespace:
    """Command line; the Makefile's variables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--venv', type=Path, required=True, help='folder of the virtual environment')
    parser.add_argument('--stack', choices=('onedl', 'openmmlab'), default='onedl', help='line of OpenMMLab')
    parser.add_argument('--torch-index', default='', help="package index to take torch from; empty: pip's own setting")
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    folder = args.venv.absolute()
    try:
        check_machine()
        check_folder(folder)
        environment = Environment(folder)
        with environment.locked():
            install(environment, args.stack, args.torch_index)
    except (InstallError, mmcv_wheel.BuildError) as error:
        sys.exit(f'make install: {error}')
    except subprocess.CalledProcessError as error:
        sys.exit(f'make install: this command failed, its messages are above: {" ".join(map(str, error.cmd))}')
    except KeyboardInterrupt:
        sys.exit('make install: interrupted; run it again to go on')


def check_machine() -> None:
    """Raises InstallError naming all that is missing at once, with Debian's names."""
    missing = []
    if sys.version_info < (3, 11):
        raise InstallError(
            f'the pinned libraries need Python 3.11 or newer, {sys.executable} is {platform.python_version()}; '
            'name another one with PYTHON=. (mmdf2 itself runs on 3.10: pip install "mmdf2[onedl]".)'
        )
    try:
        import ensurepip  # noqa: F401  Debian splits it off
    except ImportError:
        missing.append(('the venv module', 'python3-venv'))
    if not (Path(sysconfig.get_path('include')) / 'Python.h').exists():
        missing.append(('Python.h', 'python3-dev'))
    if not shutil.which((os.environ.get('CXX') or 'g++').split()[0]):
        missing.append(('a C++ compiler', 'g++'))
    if missing:
        names = ', '.join(name for name, _ in missing)
        packages = ' '.join(package for _, package in missing)
        raise InstallError(f'{names} missing; on Debian: apt install {packages}')


def check_folder(folder: Path) -> None:
    """Refuses a folder that holds something else than a virtual environment: it may have to be emptied."""
    if folder.exists() and not (folder / 'pyvenv.cfg').exists() and any(folder.iterdir()):
        raise InstallError(f'VENV={folder} exists and is not a virtual environment; name another folder')


def install(environment: Environment, stack: str, torch_index: str) -> None:
    """Brings ``environment`` to what the pins and the sources say now; does nothing that is done."""
    if not environment.is_usable(stack):
        print(f'make install: a new virtual environment in {environment.folder}', flush=True)
        environment.create(stack)
    notes = environment.notes()

    libraries = digest_of(PINS / name for name in ('torch.txt', 'build.txt', 'runtime.txt', 'dev.txt')) + torch_index
    if notes.get('libraries') != libraries:
        install_libraries(environment, torch_index)
        notes = {}
        environment.note(stack=stack, libraries=libraries, trio=None, mmdf2=None)

    pins = PINS / f'{stack}.txt'
    trio = digest_of([pins])
    if notes.get('trio') != trio:
        wheel = mmcv_wheel.get(environment.python, pins, environment.torch_facts(), environment.variables())
        print(f'make install: the OpenMMLab line of {pins.name}', flush=True)
        environment.pip_install('--no-deps', '--force-reinstall', wheel)
        environment.pip_install('--no-deps', '-r', pins)
        environment.note(trio=trio)

    own = digest_of(source_files())
    if notes.get('mmdf2') != own:
        print('make install: mmdf2, its operators compiled', flush=True)
        environment.pip_install('--no-deps', '--force-reinstall', build_own_wheel(environment))
        environment.note(mmdf2=own)


def install_libraries(environment: Environment, torch_index: str) -> None:
    """Installs torch and everything that comes as ready wheels."""
    print('make install: build tools', flush=True)
    environment.pip_install('-r', PINS / 'build.txt')
    print('make install: torch', flush=True)
    pin = next(line for line in (PINS / 'torch.txt').read_text().splitlines() if line.startswith('torch=='))
    if torch_index:
        environment.pip_install('--index-url', torch_index, pin, quiet=False)
    else:
        # '==' takes a +cpu build where pip is offered one, '===' only the plain one, which has CUDA.
        environment.pip_install(pin.replace('==', '===') if has_gpu() else pin, quiet=False)
    print('make install: libraries', flush=True)
    environment.pip_install('-r', PINS / 'runtime.txt', '-r', PINS / 'dev.txt')


def has_gpu() -> bool:
    """Whether the driver lists a GPU; torch, which would know, is not there yet."""
    try:
        return subprocess.run(['nvidia-smi', '-L'], capture_output=True, timeout=60).stdout.startswith(b'GPU')
    except (OSError, subprocess.TimeoutExpired):
        return False


def build_own_wheel(environment: Environment) -> Path:
    """Builds mmdf2's wheel in a mirror of the sources inside the venv.

    There, nothing stale of the checkout gets into the wheel, and the objects of the last build stay for ninja.
    """
    mirror = environment.state / 'source'
    wheels = environment.state / 'wheel'
    mirror.mkdir(parents=True, exist_ok=True)
    for old in [*mirror.iterdir(), *(mirror / 'build').glob('*')]:
        if old.name != 'build' and not old.name.startswith('temp.'):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, mirror / name, symlinks=True, ignore=shutil.ignore_patterns(*NOT_SOURCES))
        elif source.exists():
            shutil.copy2(source, mirror / name)
    shutil.rmtree(wheels, ignore_errors=True)
    command = [environment.python, '-m', 'pip', 'wheel', '--quiet', '--disable-pip-version-check']
    command += ['--no-build-isolation', '--no-deps', '--wheel-dir', wheels, mirror]
    subprocess.run(command, check=True, env=environment.variables())
    return next(wheels.glob('mmdf2-*.whl'))


def source_files() -> list[Path]:
    """Files that mmdf2's wheel depends on, in a fixed order."""
    files = []
    for name in SOURCES:
        path = ROOT / name
        files += sorted(path.rglob('*')) if path.is_dir() else [path]
    return [file for file in files if file.is_file() and not any(file.match(pattern) for pattern in NOT_SOURCES)]


def digest_of(files) -> str:
    """One SHA-256 over names and contents."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(f'{file.relative_to(ROOT)}\0'.encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


if __name__ == '__main__':
    main()

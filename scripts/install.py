"""What ``make install`` does: a virtual environment with pinned libraries, the OpenMMLab trio and mmdf2 itself.

Runs on a bare Python (standard library alone). Each stage notes in the environment what it was made from, so a second
run does only what has changed. A killed run goes on: mmcv's compilation where it stopped, pip's work from a new
environment.

mmdf2 is installed in editable mode, with its compiled library in the source folder: the same code is imported from
the checkout, from a notebook there and from anywhere else. With ``--wheel`` it is packed as well, into ``dist/``, and
installed into a second environment that has nothing else of its own: there the tests see what a stranger gets.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import gpu_build
import mmcv_wheel
from environment import Environment, lock

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / 'requirements'
# What mmdf2's wheel is made of.
SOURCES = ('mmdf2', 'csrc', 'configs', 'tools', 'model-index.yml', 'setup.py', 'pyproject.toml', 'MANIFEST.in')
SOURCES += ('README.md', 'LICENSE', 'CHANGELOG.md')
NOT_SOURCES = ('__pycache__', '*.pyc', '*.so')
LIBRARY = ROOT / 'mmdf2/ops/_C.abi3.so'


class InstallError(RuntimeError):
    """The machine or the given folder does not allow an installation; the message says what to do."""


def parse_args() -> argparse.Namespace:
    """Command line; the Makefile's variables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--venv', type=Path, required=True, help='folder of the virtual environment')
    parser.add_argument('--stack', choices=('onedl', 'openmmlab'), default='onedl', help='line of OpenMMLab')
    parser.add_argument('--torch-index', default='', help="package index to take torch from; empty: pip's own setting")
    parser.add_argument('--wheel', action='store_true', help='also write the wheel to dist/ and install it for tests')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    folder = args.venv.absolute()
    try:
        check_machine()
        check_folder(folder)
        environment = Environment(folder)
        with environment.locked():
            last_word = install(environment, args.stack, args.torch_index)
            with lock(ROOT / 'build/lock', f'{ROOT / "build"}'):
                install_editable(environment)
                if args.wheel:
                    install_wheel(environment)
        if last_word:
            print(f'make install: {last_word}', flush=True)
    except (InstallError, gpu_build.GpuError, mmcv_wheel.BuildError) as error:
        sys.exit(f'make install: {error}')
    except subprocess.CalledProcessError as error:
        sys.exit(f'make install: this command failed, its messages are above: {" ".join(map(str, error.cmd))}')
    except KeyboardInterrupt:
        sys.exit('make install: interrupted; run it again to go on')


def check_machine() -> None:
    """Raises InstallError naming all that is missing at once, with Debian's names."""
    missing = []
    if sys.version_info < (3, 11):  # noqa: UP036  an older one may run this
        raise InstallError(
            f'mmdf2 and the pinned libraries need Python 3.11 or newer, {sys.executable} is '
            f'{platform.python_version()}; name another one with PYTHON='
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


def say(stage: str, usual_time: str) -> None:
    """Announces a stage and how long it usually takes."""
    print(f'make install: {stage} (usually {usual_time})', flush=True)


def install(environment: Environment, stack: str, torch_index: str) -> str | None:
    """Brings all but mmdf2 itself to what the pins say now; does nothing that is done.

    Returns:
        A sentence to end the installation with, or None.
    """
    files = [PINS / f'{name}.txt' for name in ('build', 'torch', 'runtime', 'dev', stack)]
    libraries = digest_of(files) + torch_index
    notes = environment.notes()
    if notes.get('stack') == stack and notes.get('libraries') == libraries and gpu_build.serves(notes.get('device')):
        return None
    # Before an old environment is emptied, and before anything is downloaded.
    gpu_build.check_toolkit(torch_cuda=None)
    if not environment.is_usable(stack):
        say(f'a new virtual environment in {environment.folder}', '5 s')
        environment.create(stack)
    build, torch, runtime, dev, trio = files
    say('build tools', '10 s')
    environment.pip_install('-r', build)
    cuda = install_torch(environment, torch, torch_index)
    say('libraries', '1 min')
    environment.pip_install('-r', runtime, '-r', dev)
    facts = environment.torch_facts()
    wheel = mmcv_wheel.get(environment.python, trio, facts['version'], cuda, environment.variables())
    say(f'the OpenMMLab line of {trio.name}', 'less than 1 min')
    environment.pip_install('--no-deps', '--force-reinstall', wheel)
    environment.pip_install('--no-deps', '-r', trio)
    device = gpu_build.name_of(cuda) if cuda or os.environ.get('FORCE_CUDA') != '0' else gpu_build.ON_PURPOSE
    environment.note(stack=stack, libraries=libraries, device=device, editable=None, wheel=None)
    return gpu_build.unused_gpu(facts)


def install_torch(environment: Environment, pins: Path, index: str) -> gpu_build.CudaBuild | None:
    """Installs torch from an index or from where pip looks; without a GPU, a CPU build if one is offered there.

    Returns:
        How mmcv's operators are compiled with CUDA; None for the CPU alone.

    Raises:
        GpuError: A GPU is to be used, and the CUDA toolkit does not fit torch, or the driver does not.
    """
    pin = next(line for line in pins.read_text().splitlines() if line.startswith('torch=='))
    if index:
        choice = ['--index-url', index, pin]
    else:
        # '==' takes a +cpu build where pip is offered one, '===' only the plain one, which has CUDA.
        choice = [pin.replace('==', '===') if gpu_build.wants_gpu() else pin]
    if gpu_build.wants_gpu():
        gpu_build.check_toolkit(cuda_of_offer(environment, choice))
    say('torch', '1 min of download for a CPU build, 5 min or more for one with CUDA')
    environment.pip_install(*choice, quiet=False)
    return gpu_build.choose_build(environment.torch_facts())


def cuda_of_offer(environment: Environment, choice: list[str]) -> str | None:
    """The CUDA version of the torch that pip would install, which its requirements tell; None where they do not."""
    options = ['--quiet', '--dry-run', '--ignore-installed', '--no-deps', '--report', '-']
    done = environment.run('-m', 'pip', 'install', *options, *choice, stdout=subprocess.PIPE)
    metadata = json.loads(done.stdout)['install'][0]['metadata']
    pattern = r'(?:cuda-toolkit|nvidia-cuda-runtime)\S*? ?\(?==(\d+\.\d+)'
    found = re.search(pattern, '\n'.join(metadata.get('requires_dist', [])))
    return found and found[1]


def install_editable(environment: Environment) -> None:
    """Compiles the operators into the source folder and makes the environment import mmdf2 from there."""
    made_from = digest_of(source_files('csrc', 'setup.py', 'pyproject.toml', 'mmdf2/__init__.py', 'mmdf2/.mim'))
    # Another environment, with another torch, may have put its own library there since.
    if LIBRARY.exists() and environment.notes().get('editable') == [made_from, digest_of([LIBRARY])]:
        return
    say('mmdf2, its operators compiled', '1 min; less when few of their sources have changed')
    environment.run('setup.py', '--quiet', 'build_ext', '--inplace', cwd=ROOT, stdout=subprocess.DEVNULL)
    environment.pip_install('--no-build-isolation', '--no-deps', '--force-reinstall', '--editable', ROOT)
    remove_leftovers()
    point_mim_at_the_package(environment.site_packages)
    environment.note(editable=[made_from, digest_of([LIBRARY])])


def point_mim_at_the_package(site_packages: Path) -> None:
    """Lets mim find .mim of the editable installation.

    onedl-mim 0.5.1 searches the whole folder that pip recorded for an editable installation, and refuses a config that
    is there twice: in configs/ and under mmdf2/.mim, which links to it. In mmdf2/ alone it finds each config once.
    """
    record = next(site_packages.glob('mmdf2-*.dist-info/direct_url.json'))
    record.write_text(json.dumps({**json.loads(record.read_text()), 'url': (ROOT / 'mmdf2').as_uri()}))


def install_wheel(environment: Environment) -> None:
    """Writes the wheel to dist/ and installs it into an environment of its own, which borrows the other libraries."""
    made_from = digest_of(source_files(*SOURCES)) + environment.notes()['editable'][1]
    wheel = next((ROOT / 'dist').glob('mmdf2-*.whl'), None)
    packed = Environment(environment.state / 'wheel')
    as_noted = wheel and packed.python.exists() and environment.notes().get('wheel') == [made_from, digest_of([wheel])]
    if not as_noted:
        say('the wheel of mmdf2', '30 s')
        wheel = build_wheel(environment)
        environment.run('-m', 'venv', '--clear', '--without-pip', packed.folder)
        options = ['--quiet', '--disable-pip-version-check', '--no-index', '--no-deps']
        environment.run('-m', 'pip', '--python', packed.python, 'install', *options, wheel)
        # A path in a .pth file is searched after the environment's own packages, and .pth files that lie there are not
        # read: the editable mmdf2 stays out of sight.
        (packed.site_packages / 'libraries.pth').write_text(f'{environment.site_packages}\n')
        environment.note(wheel=[made_from, digest_of([wheel])])
    print(f'make install: the wheel is {wheel.relative_to(ROOT)}', flush=True)


def build_wheel(environment: Environment) -> Path:
    """Packs the sources and the library; nothing that an earlier build left gets in, but ninja finds its objects."""
    remove_leftovers()
    for old in (ROOT / 'dist').glob('mmdf2-*.whl'):
        old.unlink()
    command = ['-m', 'pip', 'wheel', '--quiet', '--disable-pip-version-check', '--no-build-isolation', '--no-deps']
    environment.run(*command, '--wheel-dir', ROOT / 'dist', ROOT)
    remove_leftovers()
    return next((ROOT / 'dist').glob('mmdf2-*.whl'))


def remove_leftovers() -> None:
    """Removes what setuptools collects for a wheel, and metadata that Python would find first in the source folder."""
    for pattern in ('build/lib*', 'build/bdist.*', 'mmdf2.egg-info'):
        for folder in ROOT.glob(pattern):
            shutil.rmtree(folder)


def source_files(*names: str) -> list[Path]:
    """Files of the checkout below the named ones, in a fixed order, without what was compiled from them."""
    files = []
    for name in names:
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

"""A wheel of mmcv with compiled operators, built once for each version of torch and kept in the user's cache.

pip keeps wheels that it built too, but by the name of the source alone: after an upgrade of torch it would hand out
operators that do not load.
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from environment import lock
from gpu_build import CudaBuild, describe, name_of

SECONDS_BETWEEN_LINES = 20  # where there is no terminal to redraw a line on


class BuildError(RuntimeError):
    """mmcv's wheel could not be built; the message names the log."""


def get(python: Path, pins: Path, torch_version: str, cuda: CudaBuild | None, variables: dict) -> Path:
    """Returns the wheel of the mmcv that ``pins`` names, building it when there is none for this Python and torch.

    Args:
        python: Interpreter of the environment to build for; it has torch and the build tools.
        pins: Requirements file with a line ``mmcv==...`` or ``onedl-mmcv==...``.
        torch_version: The installed torch.
        cuda: The build with CUDA; None for one for the CPU alone.
        variables: Environment variables of the build.

    Raises:
        BuildError: The download or the compilation failed.
    """
    name, version = re.search(r'^((?:onedl-)?mmcv)==(\S+)', pins.read_text(), re.MULTILINE).groups()
    device = name_of(cuda)
    tag = f'cp{sys.version_info.major}{sys.version_info.minor}-{platform.machine()}'
    folder = cache_folder() / f'{name}-{version}-torch{torch_version}-{device}-{tag}'
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder / 'lock', f'mmcv in {folder}') as held:
        wheel = next(folder.glob('*.whl'), None)
        if wheel is None:
            wheel = build(python, f'{name}=={version}', folder, cuda, variables, held)
    return wheel


def cache_folder() -> Path:
    """The user's cache, as the XDG specification places it."""
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'mmdf2' / 'wheels'


def build(python: Path, pin: str, folder: Path, cuda: CudaBuild | None, variables: dict, held: int) -> Path:
    """Compiles in ``folder/build``, which outlives a killed run, and puts the finished wheel into ``folder``."""
    build_folder = folder / 'build'
    log = folder / 'build.log'
    build_folder.mkdir(exist_ok=True)
    source = unpack(python, pin, build_folder, variables)
    variables = {**variables, 'MMCV_WITH_OPS': '1', 'FORCE_CUDA': '1' if cuda else '0'}
    if cuda:
        variables['TORCH_CUDA_ARCH_LIST'] = cuda.architectures
    else:
        variables['CUDA_VISIBLE_DEVICES'] = ''
    print(
        f'make install: the operators of {pin} for {describe(cuda)}, compiled once per release of torch '
        f'(usually 10 min on two cores; {variables["MAX_JOBS"]} files at a time; log: {log})',
        flush=True,
    )
    command = [python, '-m', 'pip', 'wheel', '-v', '--disable-pip-version-check', '--no-cache-dir']
    command += ['--no-build-isolation', '--no-deps', '--wheel-dir', build_folder / 'wheel', source]
    run_with_progress(command, log, variables, held)
    built = next((build_folder / 'wheel').glob('*.whl'))
    wheel = folder / built.name
    os.replace(built, wheel)
    shutil.rmtree(build_folder)
    return wheel


def unpack(python: Path, pin: str, folder: Path, variables: dict) -> Path:
    """Downloads the source distribution and unpacks it, unless an earlier run has; returns its folder."""
    source = folder / 'source'
    if source.exists():
        return source
    command = [python, '-m', 'pip', 'download', '--quiet', '--disable-pip-version-check', '--no-deps']
    command += ['--no-build-isolation', '--no-binary', ':all:', '--dest', folder, pin]
    if subprocess.run(command, env=variables).returncode:
        raise BuildError(f'the source of {pin} could not be downloaded (messages above)')
    archive = next(folder.glob('*.tar.gz'))
    beside = folder / 'unpacking'
    shutil.rmtree(beside, ignore_errors=True)
    shutil.unpack_archive(archive, beside)
    os.replace(next(beside.iterdir()), source)
    return source


def run_with_progress(command: list, log: Path, variables: dict, held: int) -> None:
    """Runs ``command`` under the lock ``held``, its output in ``log``, and shows ninja's count of compiled files."""
    started = last = time.monotonic()
    with open(log, 'w') as file:
        process = subprocess.Popen(
            command,
            env=variables,
            pass_fds=[held],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
        )
        for line in process.stdout:
            file.write(line)
            step = re.match(r'\s*\[(\d+)/(\d+)\]', line)
            if step and (sys.stdout.isatty() or time.monotonic() - last > SECONDS_BETWEEN_LINES):
                last = time.monotonic()
                show(progress(int(step[1]), int(step[2]), last - started))
    if sys.stdout.isatty():
        print()
    if process.wait():
        tail = '\n'.join(log.read_text(errors='replace').splitlines()[-40:])
        raise BuildError(f'mmcv did not compile. The end of {log}:\n{tail}')


def progress(done: int, total: int, seconds: float) -> str:
    """What has been compiled so far, and how long the rest takes at the rate so far."""
    left = seconds / done * (total - done) / 60
    return f'  mmcv: {done} of {total} files compiled in {seconds / 60:.1f} min, about {left:.1f} min left '


def show(line: str) -> None:
    """One line that redraws itself on a terminal, a new one elsewhere."""
    print(f'\r{line}' if sys.stdout.isatty() else line, end='' if sys.stdout.isatty() else '\n', flush=True)

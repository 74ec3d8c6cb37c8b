"""Tests the compiled operators under AddressSanitizer and UndefinedBehaviorSanitizer; `make sanitize` runs it.

    python scripts/sanitize.py [argument of pytest ...]    # with a Python that has torch, ninja, numpy and pytest

Builds mmdf2.ops with both sanitizers under build/sanitize, shows that a wrong read and an overflow in a library of that
kind do end the process, then runs tests/ops there: the library for the CPU and CUDA's kernels as the host emulates
them. The first fault ends the tests with the sanitizer's report.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / 'build/sanitize'
FLAGS = ['-fsanitize=address,undefined', '-fno-sanitize-recover=all', '-fno-omit-frame-pointer', '-g1']

# Run as the library is: by a Python that is not built with the sanitizers itself.
FAULTS = {
    'heap-buffer-overflow': 'volatile int* p = new int[4]; return p[n];',
    'runtime error: signed integer overflow': 'volatile int large = 2147483647; return large + n;',
}

BUILD = """
import sys
sys.path.insert(0, 'csrc')
from extension import setup_options
from setuptools import setup
flags, folder = sys.argv[1].split(), sys.argv[2]
setup(script_args=['build', '--build-base', folder, '--build-lib', folder + '/lib'], **setup_options(flags))
"""


def main():
    if not sys.platform.startswith('linux') or shutil.which('g++') is None:
        sys.exit('sanitize: needs Linux and g++, whose libasan and libubsan are loaded into Python')
    FOLDER.mkdir(parents=True, exist_ok=True)
    environment = sanitizer_environment()
    prove_that_faults_are_found(environment)
    build_operators()
    # Python alone, and nvcc, have nothing to sanitize. Captured by Python only, so that a report is seen.
    tests = sys.argv[1:] or ['-k', 'not composite and not architecture and not tensor_cores_are_used']
    options = ['-q', '--capture=sys', '-p', 'no:cacheprovider', '--confcutdir=ops']
    command = [sys.executable, '-m', 'pytest', *options, 'ops', *tests]
    sys.exit(subprocess.run(command, cwd=ROOT / 'tests', env=environment).returncode)


def build_operators():
    """Builds mmdf2 with the sanitizers; the CUDA part, if torch has one, is check_gpu.py's business."""
    command = [sys.executable, '-c', BUILD, ' '.join(FLAGS), str(FOLDER.relative_to(ROOT))]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, 'FORCE_CUDA': '0'}, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f'sanitize: the build failed:\n{done.stdout}{done.stderr}')


def sanitizer_environment():
    """Variables under which a Python that knows nothing of the sanitizers can load libraries built with them."""
    runtimes = []
    for name in ('libasan.so', 'libubsan.so'):
        path = subprocess.run(['g++', f'-print-file-name={name}'], capture_output=True, text=True, check=True)
        runtimes.append(path.stdout.strip())
    return {
        **os.environ,
        'PYTHONPATH': str(FOLDER / 'lib'),
        'LD_PRELOAD': ' '.join(runtimes),
        # Python and torch keep memory until the end; fibers of the emulation leave the stacks that ASan would track.
        'ASAN_OPTIONS': 'detect_leaks=0:detect_stack_use_after_return=0',
        'UBSAN_OPTIONS': 'print_stacktrace=1',
        'CXXFLAGS': ' '.join(FLAGS),
    }


def prove_that_faults_are_found(environment):
    """Stops with an error unless deliberate faults are found, since a checker that checks nothing passes every test."""
    for report, body in FAULTS.items():
        library = FOLDER / 'fault.so'
        source = f'extern "C" int fault(int n) {{ {body} }}'
        command = ['g++', *FLAGS, '-shared', '-fPIC', '-x', 'c++', '-', '-o', str(library)]
        subprocess.run(command, input=source, text=True, check=True)
        call = f'import ctypes; ctypes.CDLL({str(library)!r}).fault(4)'
        done = subprocess.run([sys.executable, '-c', call], env=environment, capture_output=True, text=True)
        if done.returncode == 0 or report not in done.stderr:
            sys.exit(f'sanitize: a deliberate fault is not reported as {report}: sanitizers fail here\n{done.stderr}')


if __name__ == '__main__':
    main()

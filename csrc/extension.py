"""How setup.py compiles csrc into ``mmdf2/ops/_C.abi3.so``: a plain library that registers operators with torch.

It is built against the installed torch and works with that release only, so the build must see it: pip has to be
called with ``--no-build-isolation``. The library uses nothing of Python, so one wheel serves every Python version.
The CUDA kernels are compiled where that is possible; cuda_build.py says when.
"""

import importlib.util
import json
import os
import sys
from pathlib import Path

from cuda_build import NVCC_FLAGS, CannotBuild, choose_cuda_build

CSRC = Path(__file__).resolve().parent
LIBRARY = CSRC.parent / 'mmdf2/ops/_C.abi3.so'
# mmdf2.ops registers fake kernels and autograd formulas with torch.library, which has them since this release.
OLDEST_TORCH = (2, 4)


def setup_options(extra_flags=()):
    """Returns the keywords of ``setuptools.setup`` that build the library.

    Args:
        extra_flags: For the C++ compiler and the linker both, after the usual ones.

    Raises:
        SystemExit: torch is missing or too old.
    """
    try:
        import torch
        from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension
    except ImportError as error:
        raise SystemExit(
            f'mmdf2 compiles its operators against torch, which this Python cannot import ({error}).\n'
            'Install torch and ninja first, then let the build see them:\n'
            '    pip install --no-build-isolation <folder, archive or wheel of mmdf2>'
        ) from error
    version = torch.__version__
    if tuple(int(part) for part in version.split('.')[:2]) < OLDEST_TORCH:
        raise SystemExit(f'mmdf2 needs torch {".".join(map(str, OLDEST_TORCH))} or newer, found {version}.')

    try:
        cuda, reason = choose_cuda_build(version, torch.version.cuda, CUDA_HOME, visible_capabilities(torch))
    except (CannotBuild, ValueError) as error:
        raise SystemExit(f'mmdf2 cannot compile its operators as FORCE_CUDA asks: {error}.') from error
    print(f'mmdf2: its operators are compiled {reason}', flush=True)
    openmp = ['-fopenmp'] if sys.platform.startswith('linux') else []  # at::parallel_for, as torch itself is built
    flags = ['-O3', '-g0', '-fvisibility=hidden', '-Wall', *openmp, *extra_flags]
    facts = {'torch': version, 'flags': ' '.join(flags), 'cuda': None, 'architectures': None}
    facts['sources'] = runtime_checks().digest_of_sources(CSRC)
    if cuda is not None:
        facts.update(cuda=cuda.toolkit, architectures=cuda.architectures)
        os.environ['TORCH_CUDA_ARCH_LIST'] = cuda.architectures

    class BuildLibrary(BuildExtension):
        """Records what the library is built for inside the library; compiles nothing when it is there already."""

        def run(self):
            if self.inplace and is_current(facts):
                print(f'mmdf2: {LIBRARY} is current', flush=True)
            else:
                super().run()

        def build_extensions(self):
            folder = Path(self.build_temp).resolve()
            folder.mkdir(parents=True, exist_ok=True)
            write_build_info(folder / 'mmdf2_build_info.h', **facts)
            for extension in self.extensions:
                extension.include_dirs.insert(0, str(folder))
            super().build_extensions()

    library = (CppExtension if cuda is None else CUDAExtension)(
        'mmdf2.ops._C',
        sources=list_files('*.cpp', *([] if cuda is None else ['cuda/*.cpp', 'cuda/*.cu'])),
        depends=list_files('*.h', 'cuda/*.h', 'cuda/*.cuh'),
        extra_compile_args={'cxx': flags, 'nvcc': [*NVCC_FLAGS, '-Xcompiler', '-fvisibility=hidden']},
        extra_link_args=[*openmp, *extra_flags],
        py_limited_api=True,
    )
    return {
        'ext_modules': [library],
        'cmdclass': {'build_ext': BuildLibrary},
        'options': {'bdist_wheel': {'py_limited_api': 'cp311'}},
    }


def torch_release():
    """The installed torch, such as '2.13.0', without what follows a '+'. The library works with that release only."""
    import torch

    return torch.__version__.split('+')[0]


def runtime_checks():
    """The module mmdf2/ops/library.py, without the package around it, which would load the library."""
    spec = importlib.util.spec_from_file_location('mmdf2_ops_library', CSRC.parent / 'mmdf2/ops/library.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_current(facts):
    """Whether the library in the source folder was compiled from the same sources, in the same way, for this torch."""
    try:
        info = runtime_checks().build_info(LIBRARY)
    except ImportError:
        return False
    return {name: info.get(name) for name in facts} == facts


def visible_capabilities(torch):
    """Capabilities of the GPUs that torch can use here, such as [(9, 0)]."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return [torch.cuda.get_device_capability(device) for device in range(count)]


def list_files(pattern, *cuda_patterns):
    """Files of csrc and csrc/cpu by the pattern, and those of csrc/cuda by theirs, as setuptools wants them."""
    paths = [path for folder in (CSRC, CSRC / 'cpu') for path in folder.glob(pattern)]
    paths += [path for cuda_pattern in cuda_patterns for path in CSRC.glob(cuda_pattern)]
    return [str(path.relative_to(CSRC.parent)) for path in sorted(paths)]


def write_build_info(path, **facts):
    """Writes the header that library.cpp includes; untouched when nothing changed, so that nothing is recompiled."""
    members = json.dumps(facts)[1:-1]
    header = f'#define MMDF2_BUILD_INFO {json.dumps(members)}\n'
    if not path.exists() or path.read_text() != header:
        path.write_text(header)

"""How setup.py compiles csrc into ``mmdf2/ops/_C.abi3.so``: a plain library that registers operators with torch.

It is built against the installed torch and works with that release only, so the build must see it: pip has to be
called with ``--no-build-isolation``. The library uses nothing of Python, so one wheel serves every Python version.
"""

import json
import sys
from pathlib import Path

CSRC = Path(__file__).resolve().parent
# mmdf2.ops registers fake kernels and autograd formulas with torch.library, which has them since this release.
OLDEST_TORCH = (2, 4)


def setup_options():
    """Returns the keywords of ``setuptools.setup`` that build the library.

    Raises:
        SystemExit: torch is missing or too old.
    """
    try:
        import torch
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except ImportError as error:
        raise SystemExit(
            f'mmdf2 compiles its operators against torch, which this Python cannot import ({error}).\n'
            'Install torch and ninja first, then let the build see them:\n'
            '    pip install --no-build-isolation <mmdf2>'
        ) from error
    version = torch.__version__
    if tuple(int(part) for part in version.split('.')[:2]) < OLDEST_TORCH:
        raise SystemExit(f'mmdf2 needs torch {".".join(map(str, OLDEST_TORCH))} or newer, found {version}.')

    openmp = ['-fopenmp'] if sys.platform.startswith('linux') else []  # at::parallel_for, as torch itself is built
    flags = ['-O3', '-g0', '-fvisibility=hidden', '-Wall', *openmp]

    class BuildLibrary(BuildExtension):
        """Records what the library is built for inside the library."""

        def build_extensions(self):
            folder = Path(self.build_temp).resolve()
            folder.mkdir(parents=True, exist_ok=True)
            write_build_info(folder / 'mmdf2_build_info.h', torch=version, flags=' '.join(flags), cuda=False)
            for extension in self.extensions:
                extension.include_dirs.insert(0, str(folder))
            super().build_extensions()

    library = CppExtension(
        'mmdf2.ops._C',
        sources=[str(path.relative_to(CSRC.parent)) for path in sorted(CSRC.rglob('*.cpp'))],
        depends=[str(path.relative_to(CSRC.parent)) for path in sorted(CSRC.rglob('*.h'))],
        extra_compile_args=flags,
        extra_link_args=openmp,
        py_limited_api=True,
    )
    return {
        'ext_modules': [library],
        'cmdclass': {'build_ext': BuildLibrary},
        'options': {'bdist_wheel': {'py_limited_api': 'cp310'}},
    }


def write_build_info(path, **facts):
    """Writes the header that library.cpp includes; untouched when nothing changed, so that nothing is recompiled."""
    members = json.dumps(facts)[1:-1]
    header = f'#define MMDF2_BUILD_INFO {json.dumps(members)}\n'
    if not path.exists() or path.read_text() != header:
        path.write_text(header)

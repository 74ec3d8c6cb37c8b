"""What pyproject.toml cannot say: the compiled operators, the torch that they fit, and a copy of ``.mim`` for mim."""

import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.egg_info import egg_info

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / 'csrc'))

from extension import OLDEST_TORCH, setup_options, torch_release  # noqa: E402

# No OpenCV here: the OpenMMLab line brings its own, and two distributions of OpenCV overwrite each other.
REQUIREMENTS = ['faiss-cpu>=1.8', 'numpy', 'pillow', 'pycocotools', 'safetensors', 'tqdm']


class MimEggInfo(egg_info):
    """Puts ``.mim`` into the metadata folder too.

    onedl-mim 0.5.1 takes the folder of the first file that pip recorded for the package itself. pip sorts that record,
    and ``mmdf2-<version>.dist-info/`` comes before ``mmdf2/``, as it does for every distribution named like its module.
    """

    def run(self):
        super().run()
        copy = Path(self.egg_info) / '.mim'
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(ROOT / 'mmdf2/.mim', copy, ignore=shutil.ignore_patterns('__pycache__'))


options = setup_options()
options['cmdclass'] |= {'egg_info': MimEggInfo}
# The sources can be compiled against any of many releases of torch; what is compiled works with that one alone.
torch = f'torch>={".".join(map(str, OLDEST_TORCH))}' if 'sdist' in sys.argv else f'torch=={torch_release()}'
setup(install_requires=[*REQUIREMENTS, torch], **options)

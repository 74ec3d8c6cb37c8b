"""What pyproject.toml cannot say: the compiled operators, and a copy of .mim where onedl-mim looks for it."""

import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.egg_info import egg_info

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / 'csrc'))

from extension import setup_options  # noqa: E402


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
options['cmdclass'] = {**options['cmdclass'], 'egg_info': MimEggInfo}
setup(**options)

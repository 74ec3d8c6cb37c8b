"""A virtual environment that remembers what was installed into it, and whether that was interrupted."""

import contextlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import lock
import mmcv_wheel


class Environment:
    """A virtual environment with notes inside (what each stage was made from) and a mark beside it (pip is at work)."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.python = folder / 'bin/python'
        self.state = folder / 'mmdf2-install'
        self._notes = self.state / 'notes.json'
        self._lock = Path(f'{folder}.lock')

    @contextlib.contextmanager
    def locked(self):
        """Lets one installation at a time work on the folder."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.held(self._lock, str(self.folder)) as self._held:
            yield

    @contextlib.contextmanager
    def marked_unfinished(self):
        """Leaves a mark when the process is killed inside; a failure that pip reports and undoes itself leaves none."""
        self._lock.write_text('unfinished')
        try:
            yield
        except subprocess.CalledProcessError:
            self._lock.write_text('')
            raise
        self._lock.write_text('')

    def notes(self) -> dict:
        """What was installed, from what; empty when the environment is new, was interrupted or is another Python's."""
        if not self.python.exists() or self._lock.read_text():
            return {}
        try:
            notes = json.loads(self._notes.read_text())
        except (OSError, ValueError):
            return {}
        return notes if notes['python'] == sys.version else {}

    def is_usable(self, stack: str) -> bool:
        """Whether installing may go on here, rather than in an emptied folder."""
        foreign = self.python.exists() and not self._notes.exists() and not self._lock.read_text()
        return foreign or self.notes().get('stack') == stack

    def note(self, **changes) -> None:
        """Adds to the notes; writes beside and renames, so that a killed run leaves the old ones or the new ones."""
        self.state.mkdir(exist_ok=True)
        beside = self._notes.with_suffix('.new')
        beside.write_text(json.dumps({**self.notes(), 'python': sys.version, **changes}, indent=1))
        os.replace(beside, self._notes)

    def create(self, stack: str) -> None:
        """Makes the environment anew for one of the lines of OpenMMLab."""
        with self.marked_unfinished():
            venv.create(self.folder, clear=True, with_pip=True)
        self.note(stack=stack)

    def pip_install(self, *arguments, quiet: bool = True) -> None:
        """Runs ``pip install``."""
        options = ['--disable-pip-version-check', *(['--quiet'] if quiet else [])]
        with self.marked_unfinished():
            command = [self.python, '-m', 'pip', 'install', *options, *arguments]
            subprocess.run(command, check=True, env=self.variables(), pass_fds=[self._held])

    def variables(self) -> dict:
        """Environment variables for pip and the compilers: the venv's ninja is found, foreign site-packages are not."""
        variables = {key: value for key, value in os.environ.items() if key not in ('PYTHONPATH', 'PYTHONHOME')}
        variables['PATH'] = f'{self.folder / "bin"}{os.pathsep}{variables.get("PATH", "")}'
        variables.setdefault('MAX_JOBS', str(mmcv_wheel.parallel_jobs()))
        return variables

    def torch_facts(self) -> dict:
        """Of the installed torch: ``version``, ``cuda`` version, whether it sees a ``gpu``, its ``architecture``."""
        code = (
            'import json, torch; gpu = torch.cuda.is_available(); '
            'print(json.dumps(dict(version=torch.__version__, cuda=torch.version.cuda, gpu=gpu, '
            "architecture='sm%d%d' % torch.cuda.get_device_capability() if gpu else None)))"
        )
        return json.loads(subprocess.run([self.python, '-c', code], check=True, stdout=subprocess.PIPE).stdout)

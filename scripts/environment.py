"""A virtual environment that remembers what was installed into it, and whether that was interrupted."""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

GIB_PER_COMPILER = 1.5

TORCH_FACTS = """
import json, torch
count, problem = (torch.cuda.device_count() if torch.cuda.is_available() else 0), None
if torch.version.cuda and not count:
    try:
        torch.cuda.init()
    except RuntimeError as error:
        problem = str(error).splitlines()[0].rstrip('.') + '.'
capabilities = [torch.cuda.get_device_capability(number) for number in range(count)]
facts = dict(version=torch.__version__, cuda=torch.version.cuda, capabilities=capabilities, problem=problem)
print(json.dumps(facts))
"""


class Environment:
    """A virtual environment with notes inside (what each stage was made from) and a mark beside it (pip is at work)."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.python = folder / 'bin/python'
        self.site_packages = folder / f'lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages'
        self.state = folder / 'mmdf2-install'
        self._notes = self.state / 'notes.json'
        self._lock = Path(f'{folder}.lock')

    @contextlib.contextmanager
    def locked(self):
        """Lets one installation at a time work on the folder."""
        with lock(self._lock, str(self.folder)) as self._held:
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
        """What each stage was made from; empty when the environment is new, was interrupted or is another Python's."""
        if not self.python.exists() or self._lock.read_text():
            return {}
        try:
            notes = json.loads(self._notes.read_text())
        except (OSError, ValueError):
            return {}
        return notes if notes['python'] == sys.version else {}

    def is_usable(self, stack: str) -> bool:
        """Whether installing may go on here, rather than in an emptied folder."""
        made_by_hand = self.python.exists() and not self._notes.exists() and not self._lock.read_text()
        return made_by_hand or self.notes().get('stack') == stack

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
        with self.marked_unfinished():
            self.run('-m', 'pip', 'install', '--disable-pip-version-check', *(['--quiet'] if quiet else []), *arguments)

    def run(self, *arguments, **options) -> subprocess.CompletedProcess:
        """Runs the environment's Python under the lock.

        Raises:
            subprocess.CalledProcessError: The program failed; its messages are on the screen.
        """
        command = [self.python, *arguments]
        return subprocess.run(command, check=True, env=self.variables(), pass_fds=[self._held], **options)

    def variables(self) -> dict:
        """Environment variables for pip and the compilers: the venv's ninja is found, foreign site-packages are not."""
        variables = {key: value for key, value in os.environ.items() if key not in ('PYTHONPATH', 'PYTHONHOME')}
        variables['PATH'] = f'{self.folder / "bin"}{os.pathsep}{variables.get("PATH", "")}'
        variables.setdefault('MAX_JOBS', str(parallel_jobs()))
        variables.setdefault('PYTHONWARNINGS', 'ignore')  # of setuptools, about what is meant here
        return variables

    def torch_facts(self) -> dict:
        """What the installed torch is built for and sees here.

        Returns:
            ``version``; ``cuda``, the version that torch is built with, or None; ``capabilities`` of the GPUs that it
            can use, such as [[9, 0]]; and ``problem``, a sentence that says why a torch with CUDA can use no GPU, or
            None.
        """
        return json.loads(self.run('-c', TORCH_FACTS, stdout=subprocess.PIPE).stdout)


@contextlib.contextmanager
def lock(path: Path, work: str):
    """Waits until nobody else holds ``path``; yields the descriptor to pass on to programs that do the work.

    The lock outlives a killed holder for as long as a program that it started is at work.

    Args:
        path: File that stands for the lock; its content is left alone.
        work: What is waited for, in the message.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, 'a') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'make install: waiting for another one that is at work on {work}', flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()


def parallel_jobs() -> int:
    """Compilers to run at once: one per core, as long as the memory lasts."""
    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30
    return max(1, min(cores, int(memory / GIB_PER_COMPILER)))

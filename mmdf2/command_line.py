"""What all commands share: faults that the user can cure end with one sentence, and noise of other libraries is hidden.

A tool calls :func:`start` before it imports anything slow, so that this also holds while the libraries are imported.
This module therefore needs the standard library alone.
"""

import contextlib
import errno
import functools
import linecache
import os
import re
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

# If this environment variable is set, the traceback of a fault that the user can cure is shown as well.
TRACEBACK = 'MMDF2_TRACEBACK'

# What to do about an error of the operating system, by its number.
_REMEDIES = {
    errno.ENOENT: 'check the path',
    errno.EACCES: 'choose a place where you may read and write',
    errno.EPERM: 'choose a place where you may read and write',
    errno.EROFS: 'choose a place where you may write',
    errno.EEXIST: 'a file is where a folder is needed, so give another path',
    errno.ENOTDIR: 'a file is where a folder is needed, so give another path',
    errno.EISDIR: 'a folder is where a file is needed, so give another path',
    errno.ENOSPC: 'free some space, then start the same command again',
}
_PACKAGE = Path(__file__).resolve().parent
_LIBRARIES = ('torch', 'numpy', 'PIL', 'cv2', 'pycocotools', 'faiss', 'safetensors', 'tqdm')
# What other libraries print to standard output, or log there, and a user cannot act on.
_FOREIGN_LINES = re.compile(
    r'^Could not import OneDL\. Skipping OneDL datasets\.$'  # mmdet, when it is imported
    r'|mmengine.* - .*"(FileClient|HardDiskBackend)" (will be deprecated|is the alias of)'  # its own CheckpointHook
)
# (message, category) of warnings of other libraries that a user cannot act on.
_FOREIGN_WARNINGS = (
    ('faster_coco_eval is not installed', UserWarning),  # mmdet, when its metrics are imported
    ('Setting (OMP|MKL)_NUM_THREADS environment variable for each process', UserWarning),  # MMEngine
    ('`broadcast_buffers` is deprecated', FutureWarning),  # MMEngine; what it recommends instead does something else
    ('pkg_resources is deprecated as an API', UserWarning),  # the original line of OpenMMLab
)


class UserError(RuntimeError):
    """A fault that the user can cure. The message is one sentence, with the remedy in it or behind it."""


def start(after_interrupt: str = '') -> None:
    """Turns this process into a command: faults of the user end with a sentence, and noise is filtered.

    Args:
        after_interrupt: What the user can do after pressing Ctrl-C; a sentence.
    """
    for message, category in _FOREIGN_WARNINGS:
        warnings.filterwarnings('ignore', message, category)
    # A file's name that is not UTF-8 would end the command when it is printed.
    if hasattr(sys.stdout, 'reconfigure'):
        sys.stdout.reconfigure(errors='backslashreplace')
    sys.stdout = _Screen(sys.stdout)
    # torch.distributed replaces sys.stderr while the hook runs, to name the process on every line.
    stderr = sys.stderr
    sys.excepthook = lambda kind, error, trace: _end(error, after_interrupt, stderr)


class _Screen:
    """Standard output without the lines of :data:`_FOREIGN_LINES`; it can be held back for a while."""

    def __init__(self, stream) -> None:
        self._stream = stream
        self._held: list[str] | None = None
        self._dropped = False

    def write(self, text: str) -> int:
        """Writes or keeps the text, or drops it if it is noise, with the end of its line."""
        if _FOREIGN_LINES.search(text.rstrip('\n')):
            self._dropped = not text.endswith('\n')
        elif self._dropped and text == '\n':
            self._dropped = False
        elif self._held is not None:
            self._held.append(text)
        else:
            self._stream.write(text)
        return len(text)

    @property
    def held(self) -> bool:
        """Whether output is held back at the moment."""
        return self._held is not None

    def hold(self) -> None:
        """Keeps what is written from now on."""
        self._held = []

    def release(self) -> None:
        """Writes what was kept, and everything from now on."""
        held, self._held = self._held or [], None
        self._stream.write(''.join(held))

    def drop(self) -> None:
        """Forgets what was kept."""
        self._held = None

    def __getattr__(self, name: str):
        return getattr(self._stream, name)


@contextlib.contextmanager
def foreign_lines_dropped() -> Iterator[None]:
    """A block, such as an import, whose standard output lacks the lines of :data:`_FOREIGN_LINES`."""
    with contextlib.redirect_stdout(_Screen(sys.stdout)):
        yield


@contextlib.contextmanager
def output_held() -> Iterator['_Screen']:
    """Holds standard output back until ``release`` is called on the result.

    If the block ends with a fault that the user can cure, output that is still held is dropped, so that the sentence
    about the fault stands alone. In all other cases it is written.
    """
    before = sys.stdout
    screen = sys.stdout = _Screen(before)
    screen.hold()
    try:
        yield screen
    except BaseException as error:
        if explain(error) is not None:
            screen.drop()
        raise
    finally:
        screen.release()
        sys.stdout = before


def require_input(option: str, path: str | os.PathLike) -> None:
    """Refuses a file that cannot be opened, before the work that comes before it is read; a UserError names it."""
    try:
        with open(path, 'rb'):
            pass
    except OSError as error:
        raise UserError(f'{option} {path} cannot be read ({error.strerror}); correct the path.') from error


def require_folder(option: str, folder: str | os.PathLike) -> None:
    """Refuses a folder for results that cannot be made or written to, before the work; it makes nothing.

    Args:
        option: The option that names the folder, such as '--out'.
        folder: The folder.

    Raises:
        UserError: The folder cannot be made, or no file can be written in it.
    """
    place = Path(folder)
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        raise UserError(
            f'{option} {folder}: nothing can be written there ({error.strerror}); give another path.'
        ) from error


def require_file(option: str, path: str | os.PathLike) -> None:
    """Refuses a file that cannot be written, before the work; it makes nothing.

    Raises:
        UserError: The path is a folder, or no file can be written beside it.
    """
    if Path(path).is_dir():
        raise UserError(f'{option} {path}: that is a folder; name a file.')
    require_folder(option, Path(path).parent)


def explain(error: BaseException) -> str | None:
    """Returns what to tell the user about an exception, or None for a bug, whose traceback has to be seen.

    These exceptions are written for users: those whose class mmdf2 defines, a ValueError or ImportError that mmdf2
    raises by a ``raise`` statement, and what the operating system says about files and devices.
    """
    message = str(error).strip()
    kind = type(error)
    if isinstance(error, KeyboardInterrupt):
        return 'interrupted.'
    if kind.__module__.partition('.')[0] == 'mmdf2':
        return message
    if kind.__name__ == 'OutOfMemoryError':
        return f'{message.splitlines()[0]} Take smaller batches or images, or another device.'
    if isinstance(error, ModuleNotFoundError) and str(error.name).partition('.')[0] in _LIBRARIES:
        return (
            f'{error.name} is not installed for {sys.executable}; use the Python of the environment that mmdf2 was '
            'installed into (in a checkout: `make install`, then .venv/bin/python).'
        )
    if isinstance(error, OSError):
        return _explain_os_error(error, message)
    if isinstance(error, (ValueError, ImportError)) and _raised_on_purpose(error):
        return message
    return None


def _explain_os_error(error: OSError, message: str) -> str:
    if 'Original Traceback' in message:  # raised in a worker process of a data loader
        message = re.sub(r'^\w+(?:\.\w+)*: ', '', message.splitlines()[-1])
    if error.filename is None or error.strerror is None:
        return message
    names = f'{error.filename} -> {error.filename2}' if error.filename2 else error.filename
    remedy = f'; {_REMEDIES[error.errno]}' if error.errno in _REMEDIES else ''
    return f'{names}: {error.strerror}{remedy}.'


def _raised_on_purpose(error: BaseException) -> bool:
    """Whether a ``raise`` statement in mmdf2 raised the exception, and not Python itself or another library."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or _PACKAGE not in Path(frames[-1].filename).resolve().parents:
        return False
    return linecache.getline(frames[-1].filename, frames[-1].lineno).lstrip().startswith('raise ')


def _end(error: BaseException, after_interrupt: str, stderr) -> None:
    """Prints what a process that ends with an exception has to say, and ends it with status 1."""
    if isinstance(error, BrokenPipeError):  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    message = explain(error)
    if message is None or os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    if message is not None and is_first_to_end():
        if isinstance(error, KeyboardInterrupt):
            message = f'{message} {after_interrupt}'.strip()
        print(f'error: {message}', file=stderr, flush=True)
    # After Ctrl-C, Python would end some processes by the signal and others with status 1.
    if isinstance(error, KeyboardInterrupt):
        raise SystemExit(1)


@functools.cache
def is_first_to_end() -> bool:
    """Whether this process is the one of its launch that prints its fault; usually all of them have the same one.

    It is the first process that asks. A process that asks again gets the same answer.
    """
    error_file = os.environ.get('TORCHELASTIC_ERROR_FILE')
    if error_file:
        # <folder of this launch>/<number of the process>/error.json; the launcher deletes the folder.
        with contextlib.suppress(OSError):
            folder = Path(error_file).parent.parent
            folder.mkdir(parents=True, exist_ok=True)
            try:
                (folder / 'mmdf2-has-ended').touch(exist_ok=False)
            except FileExistsError:
                return False
            return True
    return os.environ.get('RANK', os.environ.get('SLURM_PROCID', '0')) == '0'

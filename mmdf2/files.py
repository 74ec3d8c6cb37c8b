"""Writing files that no reader sees half of, locks between processes, and the number of usable cores.

Every file that mmdf2 writes goes through this module: it is written beside its place, flushed to the disk and renamed,
so that a kill or a power failure at any moment leaves the old file or the new one.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any

# What is accepted as a path.
AnyPath = str | os.PathLike[str]

_UNFINISHED = '.unfinished'


@contextlib.contextmanager
def path_beside(path: AnyPath, durable: bool = True) -> Iterator[Path]:
    """Gives a path in the same folder to write to; it replaces ``path`` when the block ends without an error.

    This is for writers that need a path; :func:`open_for_replacement` is for those that need an open file.

    Args:
        path: The file to create or replace. Its folder is created if it is missing.
        durable: Whether to wait until the content is on the disk. Only files that are numerous and quickly made again
            (such as the images of a drawn dataset) are written without.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = _unfinished(path)
    try:
        yield beside
        _replace(beside, path, durable)
    finally:
        beside.unlink(missing_ok=True)


@contextlib.contextmanager
def open_for_replacement(path: AnyPath, mode: str = 'w', durable: bool = True) -> Iterator[IO[Any]]:
    """Opens a file whose content replaces that of ``path`` when the block ends without an error.

    Args:
        path: The file to create or replace. Its folder is created if it is missing.
        mode: 'w' for UTF-8 text with '\\n' at the end of lines, 'wb' for bytes.
        durable: Whether to wait until the content is on the disk, as for :func:`path_beside`.
    """
    encoding, newline = (None, None) if 'b' in mode else ('utf-8', '\n')
    with path_beside(path, durable) as beside, open(beside, mode, encoding=encoding, newline=newline) as file:
        yield file


def write_named_by_hash(path: AnyPath, write: Callable[[Path], None]) -> tuple[Path, str]:
    """Writes a file whose name contains the hash of its content, so that different contents never have the same name.

    The content is on the disk when the function returns. The name is on the disk after :func:`flush_folder`, which the
    caller calls once for several files.

    Args:
        path: The file's path without the hash: 'folder/ids.npy' becomes 'folder/ids-<16 digits of the hash>.npy'.
        write: Writes the content to the path that it is given.

    Returns:
        The file's path, and the SHA-256 of its content, hexadecimal.
    """
    path = Path(path)
    beside = _unfinished(path)
    try:
        write(beside)
        digest = sha256(beside)
        path = path.with_name(f'{path.stem}-{digest[:16]}{path.suffix}')
        _flush(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    return path, digest


def write_text(path: AnyPath, text: str) -> None:
    """Replaces a file by UTF-8 text."""
    with open_for_replacement(path) as file:
        file.write(text)


def write_bytes(path: AnyPath, content: bytes, durable: bool = True) -> None:
    """Replaces a file by bytes; ``durable`` as in :func:`path_beside`."""
    with open_for_replacement(path, 'wb', durable) as file:
        file.write(content)


def write_json(path: AnyPath, value: Any, indent: int | None = 1, **options: Any) -> None:
    """Replaces a file by JSON; ``options`` are those of ``json.dumps``.

    Raises:
        ValueError: A number is not finite: JSON has no word for NaN and infinity.
    """
    write_text(path, json.dumps(value, indent=indent, allow_nan=False, **options) + '\n')


def parse_json(content: str | bytes, **options: Any) -> Any:
    """The value of a JSON text that anybody may have written; ``options`` are those of ``json.loads``.

    Raises:
        ValueError: It is not JSON, not UTF-8, or its lists and objects lie too deep in each other.
    """
    try:
        return json.loads(content, **options)
    except RecursionError as error:
        raise ValueError(f'lists or objects lie too deep in each other: {error}') from error


def write_json_list(file: IO[str], entries: Iterable[Any], end: str = '\n]') -> None:
    """Writes a JSON list to an open file, one entry per line; entries are written as they come and are not collected.

    Args:
        file: Text file, open for writing.
        entries: Values that ``json.dumps`` accepts.
        end: The last characters; the exchange files of a dataset have the bracket right behind the last entry.

    Raises:
        ValueError: A number is not finite: JSON has no word for NaN and infinity.
    """
    file.write('[')
    for number, entry in enumerate(entries):
        file.write((',\n' if number else '\n') + json.dumps(entry, allow_nan=False))
    file.write(end)


@contextlib.contextmanager
def open_growing(path: AnyPath) -> Iterator[IO[str]]:
    """Opens a file of UTF-8 text that is worth reading before it is complete, such as the lines of a long run.

    It grows under its name with '.partial' behind it, and replaces ``path`` when the block ends without an error. One
    process at a time may write it.

    Args:
        path: The file to create or replace. Its folder is created if it is missing.

    Raises:
        FileExistsError: Another process is writing it.
    """
    path = Path(path)
    partial = path.with_name(f'{path.name}.partial')
    path.parent.mkdir(parents=True, exist_ok=True)

    def refuse() -> None:
        raise FileExistsError(f'{partial}: another process is writing it; give another folder, or wait for its end')

    try:
        descriptor = _open_locked(partial, refuse)
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    with open(descriptor, 'w', encoding='utf-8', newline='\n') as file:
        os.ftruncate(descriptor, 0)
        try:
            yield file
            file.flush()
            _replace(partial, path, durable=True)
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_UN)


def replace_folder(new: Path, folder: Path) -> None:
    """Puts the folder ``new`` in the place of ``folder``, whose old content is deleted.

    All files of ``new`` are flushed to the disk first. Between the two renames, ``folder`` does not exist and its old
    content is in ``.<name>.old`` beside it.
    """
    for parent, _, names in os.walk(new):
        for name in names:
            _flush(Path(parent, name))
        flush_folder(parent)
    old = folder.with_name(f'.{folder.name}.old')
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        os.replace(folder, old)
    os.replace(new, folder)
    flush_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def delete_folder(folder: Path) -> None:
    """Deletes a folder. It is renamed first, so that a kill never leaves a part of it under its name."""
    doomed = folder.with_name(f'.{folder.name}.deleted')
    shutil.rmtree(doomed, ignore_errors=True)
    os.replace(folder, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def is_unfinished(name: str) -> bool:
    """Whether a name is one that :func:`path_beside` gives: such a file was left behind by a killed process."""
    return name.startswith('.') and _UNFINISHED in name


def flush_folder(folder: AnyPath) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: AnyPath) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def lock_beside(path: AnyPath) -> Path:
    """The lock's file of a folder or file that is replaced as a whole, and that therefore cannot hold it itself."""
    path = Path(path)
    return path.with_name(f'.{path.name}.lock')


@contextlib.contextmanager
def locked(path: AnyPath, on_wait: Callable[[], None] | None = None) -> Iterator[None]:
    """Holds a lock that one thread of one process at a time can hold; a process that ends, even by a kill, frees it.

    The thread that holds the lock gets it again at once, so that a function that needs it can call another one that
    needs it, too.

    Args:
        path: The lock's file, created if it is missing. It is never deleted: otherwise two processes could hold locks
            on two files of the same name.
        on_wait: Called once when somebody else holds the lock, before waiting for it.

    Raises:
        OSError: The file cannot be created, or it lies on a file system without locks, or on one whose locks other
            machines do not see.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _refuse_local_locks(path)

    def tell() -> None:
        nonlocal on_wait
        if on_wait is not None:
            on_wait()
        on_wait = None

    with _LOCKS_GUARD:
        lock = _LOCKS.setdefault(os.path.realpath(path), _Lock())
    if not lock.thread.acquire(blocking=False):
        tell()
        lock.thread.acquire()
    try:
        outermost = lock.descriptor is None
        if outermost:
            lock.descriptor = _open_locked(path, tell)
        try:
            yield
        finally:
            if outermost and lock.descriptor is not None:
                # Without this, a process that a C library forked would go on holding the lock.
                fcntl.flock(lock.descriptor, fcntl.LOCK_UN)
                os.close(lock.descriptor)
                lock.descriptor = None
    finally:
        lock.thread.release()


class _Lock:
    """What this process knows of a lock: which of its threads holds it, and by which open file."""

    def __init__(self) -> None:
        self.thread = threading.RLock()
        self.descriptor: int | None = None


_LOCKS: dict[str, _Lock] = {}  # by the real path of the lock's file
_LOCKS_GUARD = threading.Lock()


def _forget_locks() -> None:
    """Leaves all locks to the process that this one was forked from."""
    global _LOCKS_GUARD
    _LOCKS_GUARD = threading.Lock()
    for lock in _LOCKS.values():
        if lock.descriptor is not None:
            os.close(lock.descriptor)
            lock.descriptor = None
    _LOCKS.clear()


os.register_at_fork(after_in_child=_forget_locks)


def _open_locked(path: Path, on_wait: Callable[[], None]) -> int:
    """Waits for the lock of a file; returns the descriptor that holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                on_wait()
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            # Somebody may have deleted the folder with the lock in it: then the next process would lock another file.
            if path.exists() and os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        path.parent.mkdir(parents=True, exist_ok=True)


def network_file_system(path: AnyPath) -> str | None:
    """The kind of the network file system, such as 'nfs4', that a path lies on; None for a disk of this machine.

    Args:
        path: A file or folder that exists.
    """
    kind, _ = _mount_of(path)
    return kind if kind in _NETWORK_FILE_SYSTEMS else None


def _refuse_local_locks(path: Path) -> None:
    """OSError when the locks of the folder's file system are not seen by other machines that use it."""
    kind, options = _mount_of(path.parent)
    if kind in _NETWORK_FILE_SYSTEMS and not options.isdisjoint(_NETWORK_FILE_SYSTEMS[kind]):
        raise OSError(
            errno.ENOLCK,
            f'the folder is on a network file system ({kind}) whose locks other machines do not see; use a local disk, '
            'or mount it with locks',
            str(path),
        )


_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)  # of file systems without locks
_MOUNTS = '/proc/self/mountinfo'
# Kinds of network file systems, each with those options of its mount that keep locks on this machine; '' stands for
# any mount, because the kind has no locks that another machine sees.
_NETWORK_FILE_SYSTEMS = {
    'nfs': {'nolock', 'local_lock=all', 'local_lock=flock'},
    'nfs4': {'nolock', 'local_lock=all', 'local_lock=flock'},
    'cifs': {'nobrl', 'nolock'},
    'smb3': {'nobrl', 'nolock'},
    'lustre': {'localflock', 'noflock'},
    'ceph': set(),
    'gpfs': set(),
    'afs': {''},
    'fuse.sshfs': {''},
    'fuse.s3fs': {''},
    'fuse.gcsfuse': {''},
    'fuse.rclone': {''},
    'fuse.goofys': {''},
    'fuse.mount-s3': {''},
    'fuse.davfs': {''},
    'fuse.glusterfs': set(),
    'fuse.juicefs': set(),
}


def _mount_of(path: AnyPath) -> tuple[str, set[str]]:
    """The kind of file system that a path lies on, and the options of its mount, '' among them."""
    try:
        device = os.stat(path).st_dev
        lines = Path(_MOUNTS).read_text(errors='surrogateescape').splitlines()
    except OSError:  # another system than Linux
        return '', {''}
    number = f'{os.major(device)}:{os.minor(device)}'
    for line in lines:
        before, _, after = line.partition(' - ')
        words, rest = before.split(), after.split()
        if len(words) > 5 and words[2] == number and rest:
            return rest[0], {'', *words[5].split(','), *rest[-1].split(',')}
    return '', {''}


def printable(path: AnyPath) -> str:
    """A path for messages and for JSON; bytes of a name that are not UTF-8 stand as ``\\xe9``."""
    return os.fsencode(path).decode('utf-8', 'backslashreplace')


def usable_cores() -> int:
    """Counts the CPU cores that this process may use: all of the machine, or those that it is confined to."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def _unfinished(path: Path) -> Path:
    """A new path in the same folder that :func:`is_unfinished` knows."""
    # The suffix stays the last, because some writers choose the format by it. A name has 255 bytes at most.
    return path.with_name(f'.{path.stem[:40]}.{os.getpid()}-{uuid.uuid4().hex[:8]}{_UNFINISHED}{path.suffix}')


def _replace(beside: Path, path: Path, durable: bool) -> None:
    if durable:
        _flush(beside)
    os.replace(beside, path)
    if durable:
        flush_folder(path.parent)


def _flush(path: Path) -> None:
    with open(path, 'rb') as file:
        os.fsync(file.fileno())

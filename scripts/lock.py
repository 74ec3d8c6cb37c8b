"""A lock on a file that outlives a killed holder for as long as the program it started is at work."""

import contextlib
import fcntl


@contextlib.contextmanager
def held(path, work: str):
    """Waits until nobody else holds ``path``; yields the descriptor to pass on to programs that do the work.

    Args:
        path: File that stands for the lock; its content is left alone.
        work: What is waited for, in the message.
    """
    with open(path, 'a') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f'make install: waiting for another one that is at work on {work}', flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file.fileno()

"""Runs a command in a process of its own and measures its time and memory, for the other scripts.

A script that measures so imports nothing large itself: the peak memory of a process that is started later begins at
that of its parent.
"""

import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SAMPLING_SECONDS = 1
_TAIL = 6000  # characters of the output that a failure shows


@dataclass(frozen=True)
class Measured:
    """What a command took.

    Attributes:
        seconds: Time from its start to its end, the start of Python included.
        cpu_seconds: CPU time of the command and of all processes that it started; other work on the machine changes it
            less than ``seconds``.
        largest: Peak resident memory of its largest process, in bytes; pages that processes share count in each.
        together: Peak memory of all its processes together, in bytes; shared pages count once. It is read once a
            second, so a short peak can be missed.
        output: What it printed.
    """

    seconds: float
    cpu_seconds: float
    largest: int
    together: int
    output: str

    def numbers(self) -> dict:
        """The last line of the output that is a JSON object."""
        return json.loads([line for line in self.output.splitlines() if line.startswith('{')][-1])


def measured(command: Sequence, folder: Path | None = None) -> Measured:
    """Runs Python with some arguments.

    Args:
        command: The arguments of Python, such as a script and its options.
        folder: The working directory; by default the present one.

    Raises:
        SystemExit: It ended with another status than 0; the end of its output says why.
    """
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env={**os.environ, 'PYTHONWARNINGS': 'ignore'},
    )
    peak, ended = [0], threading.Event()
    watcher = threading.Thread(target=_watch, args=(process.pid, ended, peak))
    watcher.start()
    output = process.stdout.read()
    ended.set()
    watcher.join()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if status:
        raise SystemExit(f'{" ".join(map(str, command))} ended with {process.returncode}:\n{output[-_TAIL:]}')
    largest = usage.ru_maxrss * 1024
    return Measured(
        seconds=time.perf_counter() - start,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
        largest=largest,
        together=max(peak[0], largest),
        output=output,
    )


def _watch(pid: int, ended: threading.Event, peak: list[int]) -> None:
    while not ended.wait(_SAMPLING_SECONDS):
        peak[0] = max(peak[0], sum(map(_proportional_memory, _tree(pid))))


def _tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    children = defaultdict(list)
    for stat in Path('/proc').glob('[0-9]*/stat'):
        # A process may end at any moment. Its name, in parentheses, may hold spaces; the parent is the second field
        # behind it.
        try:
            parent = int(stat.read_text().rpartition(')')[2].split()[1])
        except OSError:
            continue
        children[parent].append(int(stat.parent.name))
    tree = [pid]
    for member in tree:
        tree += children[member]
    return tree


def _proportional_memory(pid: int) -> int:
    """Memory of a process in bytes; a page that n processes share counts as one n-th of a page."""
    try:
        text = Path(f'/proc/{pid}/smaps_rollup').read_text()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith('Pss:')), 0)

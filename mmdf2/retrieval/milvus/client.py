"""Calls to Milvus, which may be far away: failures that pass are repeated, and the others become clear errors."""

import contextlib
import functools
import logging
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mmdf2.retrieval.gallery import GalleryError

_LOGGER = logging.getLogger(__name__)
_ATTEMPTS = 5
_FIRST_PAUSE = 0.1  # seconds; doubles from attempt to attempt
# Milvus's error codes for: not ready, unreachable, too many requests.
_PASSING = (1, 2, 8)


def import_pymilvus():
    """The module pymilvus, imported when the first gallery in Milvus is opened: it is an extra, and slow to import.

    Raises:
        ImportError: pymilvus is not installed.
    """
    try:
        import pymilvus
    except ImportError as error:
        raise ImportError(
            'galleries in Milvus need pymilvus, and milvus-lite for a file: pip install pymilvus milvus-lite'
        ) from error
    return pymilvus


def is_file(uri: str) -> bool:
    """Whether an address is a file of milvus-lite.

    Raises:
        ValueError: It is neither a file of milvus-lite nor the address of a server.
    """
    if str(uri).startswith(('http://', 'https://')):
        # Without a host, pymilvus would go to this machine.
        if not urlsplit(str(uri)).hostname:
            raise ValueError(f'a Milvus server is at http(s)://host:port, got {uri}')
        return False
    if not str(uri).endswith('.db'):
        raise ValueError(
            f'a gallery in Milvus is at http(s)://host:port or in a milvus-lite file, whose name ends in .db; got {uri}'
        )
    return True


class MilvusConnection:
    """A client that repeats calls when a failure passes, and raises GalleryError within seconds when it does not.

    Every call must be one that may be repeated: a write that replaces what is there, a deletion by id, a read.

    Args:
        uri: A file whose name ends in .db, or http(s)://host:port.
        token: 'user:password' or an API key; empty for none.
        patience: Seconds that a call may take with all its repetitions.

    Raises:
        ImportError: pymilvus, or for a file milvus-lite, is not installed.
        GalleryError: Nothing answers at the address.
    """

    def __init__(self, uri: str, token: str = '', patience: float = 10.0) -> None:
        self.uri, self._patience = str(uri), patience
        self._consistency = threading.local()
        self._local = is_file(self.uri)
        pymilvus = import_pymilvus()
        if self._local:
            _check_milvus_lite()
            Path(self.uri).absolute().parent.mkdir(parents=True, exist_ok=True)
        self._client = self._repeat(
            'connect', lambda timeout: pymilvus.MilvusClient(self.uri, token=token, timeout=timeout), patience
        )

    def call(self, name: str, *args, patience: float | None = None, **kwargs):
        """Calls a method of ``pymilvus.MilvusClient``.

        Args:
            name: The method's name.
            args: Its arguments, but for the timeout.
            patience: Seconds that this call may take with all its repetitions; None for those of the connection.
            kwargs: Its keyword arguments, but for the timeout.

        Raises:
            GalleryError: The server does not answer, or it refuses the call.
        """
        method = getattr(self._client, name)
        return self._repeat(name, lambda timeout: method(*args, timeout=timeout, **kwargs), patience)

    def write_rows(self, collection: str, rows: list[dict], replaced: bool) -> None:
        """Writes rows with the column ``id``.

        New rows are inserted, so that the server need not look for older ones. What an attempt without an answer may
        have written is replaced by the next one.

        Args:
            collection: Name of the collection.
            rows: The rows, all of them new or each of them perhaps there already.
            replaced: Whether some may be there already.

        Raises:
            GalleryError: The server does not answer, or it refuses the rows.
        """
        maybe_there = replaced

        def write(timeout: float) -> None:
            nonlocal maybe_there
            there, maybe_there = maybe_there, True
            if there and self.replaces_at_once:
                self._client.upsert(collection, rows, timeout=timeout)
                return
            if there:
                self._client.delete(collection, ids=[row['id'] for row in rows], timeout=timeout)
            self._client.insert(collection, rows, timeout=timeout)

        self._repeat('insert', write, None)

    @functools.cached_property
    def version(self) -> tuple[int, ...] | None:
        """The server's version, such as (2, 3, 5); None for milvus-lite, and where it is not known."""
        if self._local:
            return None
        found = re.match(r'v?(\d+)\.(\d+)\.(\d+)', str(self.call('get_server_version')))
        return tuple(map(int, found.groups())) if found else None

    @property
    def replaces_at_once(self) -> bool:
        """Whether an upsert keeps a row's partition key; before 2.3.11 it took the id in its place."""
        return self.version is None or self.version >= (2, 3, 11)

    def read(self, name: str, *args, **kwargs):
        """Calls a method of ``pymilvus.MilvusClient`` that reads rows; the arguments are those of ``call``.

        It sees what this process has written. What others write it sees as soon as the server has it at hand, usually
        within a second, because waiting until the server knows of all of it would take longer than the read itself.
        ``seeing_all_writes`` waits.
        """
        level = getattr(self._consistency, 'level', 'Session')
        return self.call(name, *args, consistency_level=level, **kwargs)

    @contextlib.contextmanager
    def seeing_all_writes(self) -> Iterator[None]:
        """A block in which the reads of this thread see everything that any process had written before them."""
        before = getattr(self._consistency, 'level', 'Session')
        self._consistency.level = 'Strong'
        try:
            yield
        finally:
            self._consistency.level = before

    def _repeat(self, name: str, function, patience: float | None):
        # pymilvus brings grpc with it, so both are imported together.
        from grpc import RpcError

        patience = self._patience if patience is None else patience
        end, pause = time.monotonic() + patience, _FIRST_PAUSE
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                # Within its timeout the client itself repeats what the network lost.
                with _quiet_client():
                    return function(max(end - time.monotonic(), 0.1))
            except (import_pymilvus().exceptions.MilvusException, RpcError) as error:
                if not _passes(error):
                    raise GalleryError(f'Milvus at {self.uri} refused {name}: {_message(error)}') from error
                if attempt == _ATTEMPTS or time.monotonic() + pause >= end:
                    raise GalleryError(self._no_answer(name, attempt, error)) from error
                _LOGGER.warning('%s at %s failed, attempt %d of %d: %s', name, self.uri, attempt, _ATTEMPTS, error)
            time.sleep(pause)
            pause *= 2
        raise AssertionError('unreachable')

    def _no_answer(self, name: str, attempts: int, error: Exception) -> str:
        remedy = 'check that the server runs, that the address is right and that the network lets it through'
        if self._local:
            remedy = 'a file of milvus-lite serves one process at a time: end the other one, or run a Milvus server'
        return f'Milvus at {self.uri} does not answer {name} ({attempts} attempts): {_message(error)}; {remedy}'

    def close(self) -> None:
        """Ends the connection. A file is then free for other processes and closed for all galleries of this one."""
        self._client.close()
        if self._local:
            # Optional: only files need it.
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self.uri)


_QUIET = threading.local()


@contextlib.contextmanager
def _quiet_client() -> Iterator[None]:
    """A block in which pymilvus does not print a traceback of each failed call, which becomes an error anyway."""
    logger = logging.getLogger('pymilvus.decorators')
    if _not_ours not in logger.filters:
        logger.addFilter(_not_ours)
    before, _QUIET.on = getattr(_QUIET, 'on', False), True
    try:
        yield
    finally:
        _QUIET.on = before


def _not_ours(record: logging.LogRecord) -> bool:
    return not getattr(_QUIET, 'on', False)


def _check_milvus_lite() -> None:
    """ImportError when milvus-lite is not installed."""
    try:
        # Optional: only files need it, and pymilvus imports it late and says less.
        import milvus_lite  # noqa: F401
    except ImportError as error:
        raise ImportError('galleries in a file of Milvus need milvus-lite: pip install pymilvus milvus-lite') from error


def _passes(error: Any) -> bool:
    """Whether a failure is one that may be gone at the next attempt."""
    # pymilvus brings grpc with it, so both are imported together.
    from grpc import RpcError, StatusCode

    exceptions = import_pymilvus().exceptions
    if isinstance(error, RpcError):
        return error.code() in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.RESOURCE_EXHAUSTED)
    if isinstance(
        error,
        exceptions.ConnectError | exceptions.MilvusUnavailableException | exceptions.ConnectionConfigException,
    ):
        return True
    if isinstance(error, exceptions.ParamError) or error.is_input_error:
        return False
    # A client that ran out of repetitions passes on the network's code, which is not a number.
    return error.retriable or error.code in _PASSING or isinstance(error.code, StatusCode)


def _message(error: Exception) -> str:
    return str(getattr(error, 'message', '') or error).strip().splitlines()[0][:300]

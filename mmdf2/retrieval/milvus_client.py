"""Calls to a Milvus that may be far away: which failures pass, how long to wait for them, and what to say if not."""

import logging
import time
from pathlib import Path

from mmdf2.retrieval.gallery import GalleryError

_LOGGER = logging.getLogger(__name__)
_ATTEMPTS = 5
_FIRST_PAUSE = 0.1  # seconds; doubles from attempt to attempt
# Milvus's numbers: not ready, cannot be reached, too many requests.
_PASSING = (1, 2, 8)


def is_file(uri: str) -> bool:
    """Whether the address is a file of milvus-lite's.

    Raises:
        ValueError: It is no address of Milvus at all.
    """
    if str(uri).startswith(('http://', 'https://')):
        return False
    if not str(uri).endswith('.db'):
        raise ValueError(
            f'a gallery in Milvus is at http(s)://host:port or in a milvus-lite file, whose name ends in .db; got {uri}'
        )
    return True


class MilvusConnection:
    """A client whose calls are repeated when a failure passes, and end in a GalleryError in seconds when it does not.

    Every call must be one that may be repeated: upserts, deletions by id, reads.

    Args:
        uri: A file that ends in .db, or http(s)://host:port.
        token: 'user:password' or an API key; empty for none.
        patience: Seconds that a call may take in all.

    Raises:
        ImportError: pymilvus, or for a file milvus-lite, is not installed.
        GalleryError: Nothing answers at the address.
    """

    def __init__(self, uri: str, token: str = '', patience: float = 10.0) -> None:
        self.uri, self._patience = str(uri), patience
        self._local = is_file(self.uri)
        try:
            import pymilvus

            if self._local:
                import milvus_lite  # noqa: F401
        except ImportError as error:
            raise ImportError(
                'galleries in Milvus need pymilvus, and milvus-lite for a file: pip install mmdf2[milvus]'
            ) from error
        if self._local:
            Path(self.uri).absolute().parent.mkdir(parents=True, exist_ok=True)
        self._client = self._patiently(
            'connect', lambda timeout: pymilvus.MilvusClient(self.uri, token=token, timeout=timeout), patience
        )

    def call(self, name: str, *args, patience: float | None = None, **kwargs):
        """Calls a method of ``pymilvus.MilvusClient``.

        Raises:
            GalleryError: The server is gone, or refused.
        """
        method = getattr(self._client, name)
        return self._patiently(name, lambda timeout: method(*args, timeout=timeout, **kwargs), patience)

    def _patiently(self, name: str, function, patience: float | None):
        from grpc import RpcError
        from pymilvus.exceptions import MilvusException

        patience = self._patience if patience is None else patience
        end, pause = time.monotonic() + patience, _FIRST_PAUSE
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                # Within its timeout the client repeats what the network lost.
                return function(max(end - time.monotonic(), 0.1))
            except (MilvusException, RpcError) as error:
                if not _passes(error):
                    raise GalleryError(f'Milvus at {self.uri} refused {name}: {_said(error)}') from error
                if attempt == _ATTEMPTS or time.monotonic() + pause >= end:
                    raise GalleryError(self._gone(name, attempt, error)) from error
                _LOGGER.warning('%s at %s failed, attempt %d of %d: %s', name, self.uri, attempt, _ATTEMPTS, error)
            time.sleep(pause)
            pause *= 2
        raise AssertionError('unreachable')

    def _gone(self, name: str, attempts: int, error: Exception) -> str:
        remedy = 'check that the server runs, that the address is right and that the network lets it through'
        if self._local:
            remedy = 'a file of milvus-lite serves one process at a time: end the other one, or run a Milvus server'
        return f'Milvus at {self.uri} does not answer {name} ({attempts} attempts): {_said(error)}; {remedy}'

    def close(self) -> None:
        """Ends the connection; a file is free for other processes then, and closed for every gallery of this one."""
        self._client.close()
        if self._local:
            from milvus_lite.server_manager import server_manager_instance

            server_manager_instance.release_server(self.uri)


def _passes(error: Exception) -> bool:
    from grpc import RpcError, StatusCode
    from pymilvus.exceptions import ConnectError, ConnectionConfigException, MilvusUnavailableException, ParamError

    if isinstance(error, RpcError):
        return error.code() in (StatusCode.UNAVAILABLE, StatusCode.DEADLINE_EXCEEDED, StatusCode.RESOURCE_EXHAUSTED)
    if isinstance(error, ConnectError | MilvusUnavailableException | ConnectionConfigException):
        return True
    if isinstance(error, ParamError) or error.is_input_error:
        return False
    # A client that ran out of repetitions hands on the network's code, which is no number.
    return error.retriable or error.code in _PASSING or isinstance(error.code, StatusCode)


def _said(error: Exception) -> str:
    return str(getattr(error, 'message', '') or error).strip().splitlines()[0][:300]

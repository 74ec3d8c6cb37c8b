"""A standalone Milvus server from the package ``milvus``, which tests start, kill and start again."""

import importlib.util
import socket
from pathlib import Path

_STORE_PORT = 2380  # of the etcd inside, which cannot be given another


def reason_against() -> str | None:
    """Why no server can be started here; None where one can."""
    if not all(importlib.util.find_spec(name) for name in ('milvus', 'pymilvus')):
        return 'Milvus 2.3 as a package runs on Linux with x86-64 alone: pip install pymilvus milvus'
    with socket.socket() as probe:
        if probe.connect_ex(('127.0.0.1', _STORE_PORT)) == 0:
            return f'another Milvus or etcd on this machine uses port {_STORE_PORT}: stop it'
    return None


class MilvusServer:
    """A server over one folder, always at the same address.

    Args:
        folder: Where the server keeps its programs (300 MB) and its data.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ports: dict[str, int] = {}
        self._server = None
        self.start()

    @property
    def address(self) -> str:
        """Where clients reach the server."""
        return f'http://127.0.0.1:{self._ports["proxy_port"]}'

    def start(self) -> None:
        """Starts the server; returns when it serves."""
        from milvus import MilvusServer as Package

        self._server = Package(data_dir=str(self._folder), **self._ports)
        self._server.start()
        self._ports = {'proxy_port': self._server.listen_port}

    def kill(self) -> None:
        """Ends the server as a crash does."""
        self._server.server_proc.kill()
        self._server.server_proc.wait()
        self._server.stop()

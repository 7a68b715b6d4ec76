"""What holds for every test: one thread a process, no network but loopback, a cache of its own."""

import os
import socket
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest
import torch

# The suite runs on two processes, and small tensors lose by sharing out.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def cache_of_its_own() -> Iterator[None]:
    before = os.environ.get("SFUMATO_CACHE")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SFUMATO_CACHE"] = folder
        yield
    if before is None:
        del os.environ["SFUMATO_CACHE"]
    else:
        os.environ["SFUMATO_CACHE"] = before


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Nothing in Sfumato reaches out: a connection to anywhere else fails the test that made it."""
    connect = socket.socket.connect

    def only_loopback(self: socket.socket, address: Any) -> None:
        host = address[0] if isinstance(address, tuple) else ""
        internet = self.family in (socket.AF_INET, socket.AF_INET6)
        if internet and host not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    patch = pytest.MonkeyPatch()
    patch.setattr(socket.socket, "connect", only_loopback)
    yield
    patch.undo()

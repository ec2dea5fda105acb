"""An application served from a thread, for a browser."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from starlette.applications import Starlette

from pipeline.serving.connections import Server
from pipeline.serving.desk import Limits


@contextmanager
def served(app: Starlette, key: str) -> Iterator[str]:
    """The address of the page."""
    server = Server(app, Limits())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/{key}/"
        server.should_exit = True
        thread.join()

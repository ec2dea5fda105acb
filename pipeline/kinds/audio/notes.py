"""Keep off the screen what libmpg123 writes to standard error while it decodes an MP3.

libsndfile offers no way to silence these lines. A user could not act on them: if a file is refused,
the reason is reported anyway.
"""

import contextlib
import fcntl
import os
import re
import threading
from collections.abc import Iterator

STDERR = 2
ITS_OWN = re.compile(rb"(?:Note|Warning): .*|\[[^\]]*\.c:.*|")

_lock = threading.Lock()


class _Screen:
    """Standard error while `users` threads decode.

    Lines go to the file `caught`; its first `passed` bytes have been passed on to `real`.
    """

    users = passed = 0
    real = caught = -1


def _pass_on(all_of_it: bool) -> None:
    """Write to the screen what other code has written so far.

    An incomplete last line waits for the next call, unless `all_of_it` is set.
    """
    text = b""
    while part := os.pread(_Screen.caught, 1 << 16, _Screen.passed + len(text)):
        text += part
    whole = text if all_of_it else text[: text.rfind(b"\n") + 1]
    _Screen.passed += len(whole)
    lines = whole.splitlines(keepends=True)
    if kept := b"".join(line for line in lines if not ITS_OWN.fullmatch(line.rstrip(b"\r\n"))):
        os.write(_Screen.real, kept)


@contextlib.contextmanager
def kept_off() -> Iterator[None]:
    """Keep libmpg123's lines off standard error, and pass on all others at the end of the context.

    Several threads may be in the context at once. On systems other than Linux, no line is kept off.
    """
    if not hasattr(os, "memfd_create"):  # only Linux has it
        yield
        return
    with _lock:
        if not _Screen.users:
            try:
                _Screen.real = os.dup(STDERR)
            except OSError:  # standard error is closed
                _Screen.real = os.open(os.devnull, os.O_WRONLY)
            _Screen.caught, _Screen.passed = os.memfd_create("stderr"), 0
            # Otherwise two threads that write at once could write to the same place.
            fcntl.fcntl(_Screen.caught, fcntl.F_SETFL, os.O_APPEND)
            os.dup2(_Screen.caught, STDERR)
        _Screen.users += 1
    try:
        yield
    finally:
        with _lock:
            _Screen.users -= 1
            if not _Screen.users:
                os.dup2(_Screen.real, STDERR)
            with contextlib.suppress(OSError):  # the screen is gone
                _pass_on(not _Screen.users)
            if not _Screen.users:
                os.close(_Screen.real)
                os.close(_Screen.caught)

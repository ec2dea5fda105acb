"""The exceptions, as one tree; each kind of error has its own exit code.

    HeadstartError (1)
        ├── ParamsError (2)      params.yaml or an argument has an invalid value
        ├── DataError (3)        examples, labels or tables cannot be used as they are
        │   ├── RefusedError     a file is refused as an example
        │   └── ChangedError     an object of a bucket has changed since it was listed
        ├── WeightsError (4)     a backbone's weights are not available
        ├── StoreError (5)       the feature store cannot be read or written
        ├── TrainingError (6)    training produced no head
        ├── DeviceError (7)      a requested device does not exist, or its memory is too small
        ├── DiskError (8)        a file cannot be read or written; the disk may be full
        ├── RunError (9)         DVC, Prefect or git cannot do what a run needs
        │   ├── StageError       a stage failed, and another try would fail again
        │   ├── MayPassError     a temporary failure: another try may succeed
        │   ├── StoppedError     the run ended while DVC was at work
        │   ├── BusyError        another run is using the working copy
        │   └── ExperimentError  the experiment cannot be made
        ├── MissingSetError (10) a required extra is not installed
        ├── RunnerError (11)     the cluster for extract cannot be used
        ├── LeftOutError (12)    some sites were left out, and the others were joined
        └── LockError (13)       headstart.lock and the installed packages differ

Only `flows/` and `headstart/` raise `RunError` and its subclasses. A message is one line: what is
wrong, where, and what to do about it. Only the message of a `StageError` also has the stage's last
lines. A command converts an `OSError` to a `DiskError`, and an exception of a plugin's code to a
`ParamsError` (`command.py`). Any other exception is a bug in Headstart, with exit code 1.
"""


class HeadstartError(Exception):
    """An error that a person can act on; its message is one line."""

    exit_code = 1


class ParamsError(HeadstartError):
    """`params.yaml` or an argument has an invalid value."""

    exit_code = 2


class DataError(HeadstartError):
    """Examples, labels or tables cannot be used as they are."""

    exit_code = 3


class RefusedError(DataError):
    """A file is refused as an example; the message is the reason."""


class ChangedError(DataError):
    """An object of a bucket has changed since it was listed."""


class WeightsError(HeadstartError):
    """A backbone's weights are not available."""

    exit_code = 4


class StoreError(HeadstartError):
    """The feature store cannot be read or written."""

    exit_code = 5


class TrainingError(HeadstartError):
    """Training produced no head."""

    exit_code = 6


class DeviceError(HeadstartError):
    """A requested device does not exist, or its memory is too small."""

    exit_code = 7


# The message of a DeviceError of `extract`, whichever part of it needs the memory.
NO_MEMORY = (
    "GPU memory ran out; free some of it, lower extract.batch_size or set extract.device: cpu"
)


class DiskError(HeadstartError):
    """A file cannot be read or written; the disk may be full."""

    exit_code = 8


class RunError(HeadstartError):
    """DVC, Prefect or git cannot do what a run needs."""

    exit_code = 9


class StageError(RunError):
    """A stage failed, and another try would fail again; the message ends with its last lines."""


class MayPassError(RunError):
    """A temporary failure: a lock is held, or a remote does not answer."""


class StoppedError(RunError):
    """The run ended while DVC was at work."""


class BusyError(RunError):
    """Another run, or another session, is using the same files, and this one does not wait."""


class ExperimentError(RunError):
    """The experiment cannot be made under this name or from this working copy."""


class MissingSetError(HeadstartError):
    """A required extra is not installed; the message says how to install it."""

    exit_code = 10

    def __init__(self, message: str, set_name: str = "") -> None:
        """Keep the message, and the set that is missing, if it is one of `packages.SETS`."""
        super().__init__(message)
        self.set_name = set_name


class RunnerError(HeadstartError):
    """The cluster for `extract` cannot be used."""

    exit_code = 11


class LeftOutError(HeadstartError):
    """`headstart federate` left out some sites, and joined the others."""

    exit_code = 12


class LockError(HeadstartError):
    """`headstart.lock` cannot be read, or differs from what is installed."""

    exit_code = 13

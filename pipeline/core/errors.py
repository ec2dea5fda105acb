"""What can go wrong, as one tree; each kind has its exit code.

    HeadstartError (1)
    ├── ParamsError (2)      params.yaml or an argument holds something impossible
    ├── DataError (3)        examples, labels or tables that cannot be used as they are
    │   ├── RefusedError     a file that is not taken as an example
    │   └── ChangedError     an object of a bucket that is not the one that was listed
    ├── WeightsError (4)     a backbone's weights cannot be had
    ├── StoreError (5)       the feature store cannot be read or written
    ├── TrainingError (6)    no head came out of training
    ├── DeviceError (7)      a device was requested that is not there, or its memory is too small
    ├── DiskError (8)        a file cannot be read or written; the disk may be full
    ├── RunError (9)         DVC, Prefect or git cannot do what a run asks of it
    │   ├── StageError       a stage failed, and another try would fail again
    │   ├── MayPassError     something is in the way that may soon be gone
    │   ├── StoppedError     the run ended while DVC was at work
    │   ├── BusyError        another run has the working copy
    │   └── ExperimentError  the experiment cannot be made
    ├── MissingSetError (10) a set of packages is needed that is not installed
    ├── RunnerError (11)     the cluster that extract was to use cannot be used
    └── LeftOutError (12)    sites were left out, and the others are joined

`RunError` and what is below it are raised in `flows/` alone. A message is one line: what is wrong,
where, and what to do about it; only a `StageError` is followed by the stage's last lines. Whatever
is no `HeadstartError` is a mistake of ours, and ends a command with 1 (`command.py`).
"""


class HeadstartError(Exception):
    """A failure that a person can act on; its text is one line."""

    exit_code = 1


class ParamsError(HeadstartError):
    """`params.yaml` or an argument holds something impossible."""

    exit_code = 2


class DataError(HeadstartError):
    """Examples, labels or tables cannot be used as they are."""

    exit_code = 3


class RefusedError(DataError):
    """A file that is not taken as an example; the text is the reason."""


class ChangedError(DataError):
    """An object of a bucket is not the one that was listed."""


class WeightsError(HeadstartError):
    """A backbone's weights cannot be had."""

    exit_code = 4


class StoreError(HeadstartError):
    """The feature store cannot be read or written."""

    exit_code = 5


class TrainingError(HeadstartError):
    """No head came out of training."""

    exit_code = 6


class DeviceError(HeadstartError):
    """A device was requested that this machine does not have."""

    exit_code = 7


# The text of a DeviceError of `extract`, whichever part of it needs the memory.
NO_MEMORY = (
    "GPU memory ran out; free some of it, lower extract.batch_size or set extract.device: cpu"
)


class DiskError(HeadstartError):
    """A file cannot be read or written; the disk may be full."""

    exit_code = 8


class RunError(HeadstartError):
    """DVC, Prefect or git cannot do what a run asks of it."""

    exit_code = 9


class StageError(RunError):
    """A stage failed, and another try would fail again; the text ends with its last lines."""


class MayPassError(RunError):
    """Something is in the way that may soon be gone: a lock held, a remote not answering."""


class StoppedError(RunError):
    """The run ended while DVC was at work."""


class BusyError(RunError):
    """Another run has the working copy, and this one is not to wait."""


class ExperimentError(RunError):
    """The experiment cannot be made under this name or from this working copy."""


class MissingSetError(HeadstartError):
    """A set of packages is needed that is not installed; the text says what installs it."""

    exit_code = 10


class RunnerError(HeadstartError):
    """The cluster on which `extract` was to compute cannot be used."""

    exit_code = 11


class LeftOutError(HeadstartError):
    """`headstart federate` joined what it could, and some sites may be lacking."""

    exit_code = 12

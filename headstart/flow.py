"""The flow by the name that is the same in a clone and in the wheel, for `prefect.yaml`."""

from flows.headstart import headstart

__all__ = ["headstart"]

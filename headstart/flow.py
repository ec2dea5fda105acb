"""The flow, under a name for `prefect.yaml` that is the same in a clone and in the wheel."""

from flows.headstart import headstart

__all__ = ["headstart"]

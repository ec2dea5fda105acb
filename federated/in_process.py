"""All sites in this process: the same messages and the same code, without SuperLink and processes.

Benchmarks and tests run many federations with it: `python -m federated.in_process FILE`, in
`.venv-flower`, where FILE is JSON: a list of runs, each with `sites` (folders by name), `settings`
as in `app/pyproject.toml`, and where wanted `secure_sites`, `gone` (site: how many messages it
answers before it is gone) and `spoilt` (site: the message that it answers with NaN).
"""

import copy
import itertools
import json
import sys
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from pipeline.core.errors import HeadstartError

from .client_app import app
from .loopback import APP
from .records import ARRAYS, arrays_of
from .server_app import federate
from .settings import Settings


class InProcess(Grid):
    """A grid whose sites answer as soon as they are asked."""

    def __init__(
        self,
        sites: Mapping[str, Path],
        secure_sites: bool = False,
        gone: Mapping[str, int] | None = None,
        spoilt: Mapping[str, int] | None = None,
    ) -> None:
        """Make a site of each folder."""
        TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 0
        self.contexts = {
            number: Context(
                run_id=1,
                node_id=number,
                node_config={"project": str(folder), "name": name, "secure": secure_sites},
                state=RecordDict(),
                run_config={},
            )
            for number, (name, folder) in enumerate(sites.items(), 1)
        }
        self.gone, self.spoilt = dict(gone or {}), dict(spoilt or {})
        self.asked = dict.fromkeys(sites, 0)
        self.replies: dict[str, Message] = {}
        self.ids = map(str, itertools.count(1))

    def get_node_ids(self) -> list[int]:
        """All sites, those that are gone too: Flower notices only after a while."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Have each site answer."""
        names = []
        for message in messages:
            name = next(self.ids)
            node = message.metadata.dst_node_id
            context = self.contexts[node]
            site = str(context.node_config["name"])
            number = self.asked[site] = self.asked[site] + 1
            sent = Message(
                copy.deepcopy(message.content),  # a site may change what it gets
                dst_node_id=node,
                message_type=message.metadata.message_type,
            )
            sent.metadata.__dict__["_message_id"] = name
            names.append(name)
            if number > self.gone.get(site, number):
                continue
            try:
                reply = app(sent, context)
                if self.spoilt.get(site) == number and ARRAYS in reply.content:
                    arrays = arrays_of(reply.content).items()
                    spoilt = {key: Array(array * float("nan")) for key, array in arrays}
                    reply.content[ARRAYS] = ArrayRecord(spoilt)
            except Exception as error:  # as Flower does
                reply = Message(Error(2, f"{type(error)}:<'{error}'>"), reply_to=sent)
            reply.metadata.__dict__["_src_node_id"] = node
            self.replies[name] = reply
        return names

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """What they answered."""
        return [self.replies.pop(name) for name in message_ids if name in self.replies]

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Both."""
        return self.pull_messages(self.push_messages(messages))

    def set_run(self, run: Any) -> None:
        """There is none."""

    @property
    def run(self) -> Any:
        """There is none."""
        return None

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """A message to a site."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)


def usual() -> dict[str, Any]:
    """The settings that the Flower app comes with."""
    document = tomllib.loads((APP / "pyproject.toml").read_text(encoding="utf-8"))
    config: dict[str, Any] = document["tool"]["flwr"]["app"]["config"]
    return config


def one(asked: Mapping[str, Any]) -> None:
    """A run; an error is a line."""
    sites = {name: Path(folder) for name, folder in asked["sites"].items()}
    grid = InProcess(
        sites, asked.get("secure_sites", False), asked.get("gone"), asked.get("spoilt")
    )
    context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
    settings = usual() | {"sites": len(sites)} | asked["settings"]
    try:
        federate(grid, context, Settings.of(settings))
    except HeadstartError as error:
        print(f"federated: error: {error}", flush=True)


if __name__ == "__main__":
    for run in json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")):
        one(run)

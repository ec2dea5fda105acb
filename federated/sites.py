"""The sites as a strategy of Flower sees them: those that agreed, answered, and sent numbers.

`Sites` stands between Flower's strategy and Flower's `Grid`. What is wrong with a site is said in a
line with its name, and the round goes on with the others.
"""

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from pipeline.core.errors import DataError

from .agreement import Agreement, Offer, agreed, why_not_averaged, why_refused
from .records import ARRAYS, CONFIG, OFFER, arrays_of, offer_in
from .secure import secure_round

EVERY = 0.2  # seconds between questions to the SuperLink
QUERY = "query"
LATE, GONE = "it did not answer in time", "it is gone: no sign of life for a minute"


@dataclass
class Round:
    """What became of a round: who was in it, who was not and why, and what was sent."""

    number: int
    seconds: float = 0.0
    there: list[str] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    counted: bool = False


class Sites(Grid):
    """A `Grid` of the sites that agree.

    A site that did not answer in time is asked again in the background, and is back in a round when
    it has answered; a site that comes later is taken in likewise.
    """

    def __init__(
        self,
        grid: Grid,
        context: Context,
        fewest: int,
        wait: float,
        timeout: float,
        secure: bool,
        say: Callable[[str], None],
    ) -> None:
        """Ask nobody yet.

        Args:
            grid: reaches the sites.
            context: the run's.
            fewest: sites without which no round counts.
            wait: seconds to wait for sites.
            timeout: seconds that a round waits for an answer.
            secure: whether the sites' numbers are masked.
            say: what a line for people is told.
        """
        self.grid, self.context, self.say = grid, context, say
        self.fewest, self.wait, self.timeout, self.secure = fewest, wait, timeout, secure
        self.names: dict[int, str] = {}  # of the sites that take part
        self.present: list[int] = []
        self.refused: set[int] = set()
        self.asked: dict[str, int] = {}  # sites that still have to say what they have
        self.agreement: Agreement | None = None
        self.rounds: list[Round] = []

    def gather(self, expected: int) -> Agreement:
        """Wait for `expected` sites, or for as many as come in time, and have them agree.

        Raises:
            DataError: too few came or agree.
        """
        offers: dict[int, Offer] = {}
        end = time.monotonic() + self.wait
        while len(offers) < expected and time.monotonic() < end:
            self._ask_newcomers(set(offers))
            offers |= self._answers()
            time.sleep(EVERY)
        taken: set[str] = set()
        if offers:
            self.agreement = agreed(list(offers.values()))
        for node, offer in sorted(offers.items(), key=lambda item: item[1].name):
            self._take(node, offer, taken)
        if not self.agreement or len(self.names) < self.fewest:
            raise DataError(
                f"{len(self.names)} of at least {self.fewest} sites take part after "
                f"{self.wait:g} s: see min-sites and wait, and what the sites say"
            )
        return self.agreement

    def get_node_ids(self) -> list[int]:
        """The sites that `ready` found, by name: the same ones however often a strategy asks."""
        return self.present

    def ready(self) -> None:
        """See which sites take part and are connected; newcomers are taken in.

        Raises:
            DataError: they are too few, for as long as `wait`.
        """
        end = time.monotonic() + self.wait
        while True:
            self._ask_newcomers(set(self.names))
            for node, offer in self._answers().items():
                self._take(node, offer, set(self.names.values()))
            connected = set(self.grid.get_node_ids())
            for node in set(self.names) - connected:
                self.say(f"{self.names.pop(node)} is gone")
            if len(self.names) >= self.fewest:
                self.present = sorted(self.names, key=lambda node: self.names[node])
                return
            if time.monotonic() > end:
                raise DataError(
                    f"{len(self.names)} of at least {self.fewest} sites are there after "
                    f"{self.wait:g} s"
                )
            time.sleep(EVERY)

    def send_and_receive(
        self, messages: Iterable[Message], *, timeout: float | None = None
    ) -> list[Message]:
        """Have a round: the replies that can be averaged, by the sites' names.

        A round with fewer than `fewest` of them is none, and gives no reply.
        """
        asked = sorted(messages, key=lambda one: self.names[one.metadata.dst_node_id])
        if not asked:
            return []
        began = time.monotonic()
        number = int(asked[0].content[CONFIG]["server-round"])
        this = Round(number)
        # What is expected back is what is sent.
        shapes = {name: array.shape for name, array in arrays_of(asked[0].content).items()}
        if self.secure:
            most = self.agreement.at_most if self.agreement else 1
            quick = _Quick(self.grid)
            replies = secure_round(quick, asked, self.context, most, self.timeout, self.fewest)
            replies = quick.failed | replies
        else:
            replies = exchange(self.grid, asked, self.timeout)
        good = {}
        for message in asked:
            node = message.metadata.dst_node_id
            name = self.names[node]
            if why := _why_not(replies.get(node), shapes, self.secure):
                this.left_out[name] = why
                self.say(f"{name} is left out of round {number}: {why}")
                if why in (LATE, GONE):
                    del self.names[node]  # asked again, and back once it answers
            else:
                good[name] = replies[node]
        this.there = sorted(good)
        this.counted = len(good) >= self.fewest
        this.seconds = time.monotonic() - began
        self.rounds.append(this)
        if not this.counted:
            self.say(f"round {number} does not count: {len(good)} of at least {self.fewest} sites")
            return []
        return [good[name] for name in this.there]

    def _take(self, node: int, offer: Offer, taken: set[str]) -> None:
        if self.agreement is None:
            return
        if why := why_refused(offer, self.agreement, taken):
            self.say(f"{offer.name} is refused: {why}")
            self.refused.add(node)
        else:
            self.say(f"{offer.name} takes part")
            taken.add(offer.name)
            self.names[node] = offer.name

    def _ask_newcomers(self, known: set[int]) -> None:
        """Ask those that are connected and not known what they have, and wait for no answer."""
        known = {*known, *self.refused, *self.asked.values()}
        new = [node for node in self.grid.get_node_ids() if node not in known]
        if new:
            content = RecordDict({CONFIG: ConfigRecord({})})
            asked = [Message(content, dst_node_id=node, message_type=QUERY) for node in new]
            self.asked |= dict(zip(self.grid.push_messages(asked), new, strict=True))

    def _answers(self) -> dict[int, Offer]:
        """What has come in since."""
        offers = {}
        for reply in self.grid.pull_messages(list(self.asked)) if self.asked else ():
            node = self.asked.pop(reply.metadata.reply_to_message_id)
            if reply.has_error():
                continue  # it is gone; were it there, it is asked again
            try:
                said = reply.content[OFFER]
                if "error" in said:
                    self.say(f"{said['name']} is refused: {said['error']}")
                    self.refused.add(node)
                    continue
                offers[node] = offer_in(reply.content)
            except (KeyError, TypeError, ValueError) as error:
                self.say(f"a site is refused: what it says of itself is not understood ({error})")
                self.refused.add(node)
        return offers

    def set_run(self, run: Any) -> None:
        """As Flower's."""
        self.grid.set_run(run)

    @property
    def run(self) -> Any:
        """As Flower's."""
        return self.grid.run

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        """As Flower's."""
        return self.grid.create_message(*args, **kwargs)

    def push_messages(self, messages: Iterable[Message]) -> Any:
        """As Flower's."""
        return self.grid.push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> Any:
        """As Flower's."""
        return self.grid.pull_messages(message_ids)


class _Quick:
    """A grid that looks for replies more often than each three seconds, and keeps failures."""

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.failed: dict[int, Message] = {}

    def send_and_receive(self, messages: Sequence[Message], timeout: float) -> list[Message]:
        found = exchange(self.grid, messages, timeout)
        for node, message in found.items():
            if message.has_error():
                self.failed.setdefault(node, message)
        return list(found.values())


def exchange(grid: Grid, messages: Sequence[Message], timeout: float) -> dict[int, Message]:
    """Send messages and wait for the replies, at most `timeout` seconds; replies by site."""
    nodes = [message.metadata.dst_node_id for message in messages]
    waiting = dict(zip(grid.push_messages(messages), nodes, strict=True))
    found: dict[int, Message] = {}
    end = time.monotonic() + timeout
    while waiting and time.monotonic() < end:
        # Of a site that is gone, the SuperLink replies in its own name.
        for message in grid.pull_messages(list(waiting)):
            found[waiting.pop(message.metadata.reply_to_message_id)] = message
        if waiting:
            time.sleep(EVERY)
    return found


def _reason(told: str, secure: bool) -> str:
    """Why a site failed, of what Flower makes of its exception: `<class 'name'>:<'text'>`."""
    found = re.fullmatch(r"<class '([\w.]+)'>:<'(.*)'>", told, re.DOTALL)
    if not found:
        return " ".join(told.split())
    if secure and found[1] == "KeyError":  # of Flower's mod, which lacks the share of a site
        return "it could not help to unmask a site that left as the round began"
    return " ".join(found[2].split())


def _why_not(reply: Message | None, shapes: dict[str, tuple[int, ...]], secure: bool) -> str:
    """Why a reply cannot be averaged, in a few words; empty where it can."""
    if reply is None:
        return LATE
    if reply.has_error() and reply.error.code == ErrorCode.NODE_UNAVAILABLE:
        return GONE
    if reply.has_error():
        return _reason(reply.error.reason, secure)
    if ARRAYS not in reply.content:
        return "it sent no numbers"
    return why_not_averaged(arrays_of(reply.content), shapes)

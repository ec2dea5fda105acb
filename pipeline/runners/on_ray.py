"""Compute missing features with workers on the nodes of a Ray cluster.

A worker is an actor that occupies one slot of a node for the whole run: a CPU, or a GPU with its
share of the CPUs. A worker opens the engine, and gets pieces of work, each with the missing views
of some examples. It reads the files, computes the features and puts them into the store; it returns
only counts, never features. Before a worker gets work, it checks that it can do all this, and that
its features would have the same bits as if this process computed them. If not, its node is not
used, and a printed line says why. (Ray Data and `ray.util.ActorPool` are not used because they
choose the nodes themselves, and do not replace actors that died.)

If a worker or its node dies, other workers get its pieces, and the node, if it is still there, gets
a new worker. The run ends if three workers die on the same piece, if the head does not answer for
`GONE_S` seconds, or if no worker starts for `ALONE_S` seconds. Ray itself detects machines that do
not respond. Features in the store are kept, whichever process is killed; the next run computes the
rest.
"""

import contextlib
import hashlib
import logging
import os
import re
import socket
import sys
import time
import uuid
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from .. import kinds
from ..backbones.engines import Encoder, open_encoder
from ..core import command, errors, packages, plugins
from ..core.errors import HeadstartError, RunnerError
from ..core.params import ExtractParams
from ..core.progress import Progress
from ..examples import files
from ..store.interface import Store
from ..store.places import default_limit, default_place
from ..store.vectors import store_at
from .threads import batches, features_of, keys_of, without

GONE_S = 20.0  # without a response of the head; Ray would end this process after 60 s
ALONE_S = 300.0  # without a worker: it may wait for a slot, or start on a busy machine
LOOK_EVERY_S = 5.0  # how often to list the nodes
CONNECT_S = 10.0
CLOSE_S = 300.0  # a shared store may merge its shards when it is closed
QUEUED = 2  # pieces per worker: the current one and the next
DEATHS = 3  # deaths of workers at one piece, or at start on one node

RUN_AGAIN = "the views computed so far are kept: run again to compute the rest"
PACKAGE = Path(__file__).parents[1]
HEX = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


class Identity(NamedTuple):
    """Code and libraries that must be the same in all processes that compute for one store."""

    code: str
    engines: list[str]
    views: list[str]
    forms: list[str]  # formats of examples that may need their own libraries


class Order(NamedTuple):
    """The arguments that a worker starts with."""

    project: str
    settings: ExtractParams
    kind: str
    store: str
    limit: int | None
    machine: str | None  # that has the store's folder; None if it is in a bucket
    identity: Identity
    example: tuple[str, str]  # path and digest of one that the worker must be able to read


class Answer(NamedTuple):
    """A worker's result: the number of computed views, or the reason why there are none."""

    views: int = 0
    refusal: str = ""  # why the node cannot be used
    error: tuple[str, str] = ("", "")  # the class and text of a HeadstartError, which ends the run


def identity(encoder: Encoder, forms: list[str]) -> Identity:
    """Return the identity of this process, for examples of these formats."""
    sha = hashlib.sha256(plugins.digest().encode() if plugins.folder().is_dir() else b"")
    for file in sorted(PACKAGE.rglob("*.py")):
        sha.update(file.relative_to(PACKAGE).as_posix().encode() + file.read_bytes())
    kind = encoder.kind
    made_by = [str(kind.views_made_by(augmented)) for augmented in (False, True)]
    made_by += [str(kind.read_by(form)) for form in forms]
    return Identity(sha.hexdigest(), [one.made_by for one in encoder.engines], made_by, forms)


def machine_of(folder: str) -> str:
    """Return what identifies this machine, until it reboots, and a folder on it."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    name = boot.read_text().strip() if boot.exists() else f"{uuid.getnode():x}"
    status = Path(folder).stat()
    return f"{name} {status.st_dev} {status.st_ino}"


class Worker:
    """The Ray actor that computes features."""

    def __init__(self, order: Order) -> None:
        """Store the arguments; `open` opens the backbone and the store."""
        self._order = order
        self._encoder: Encoder | None = None
        self._store: Store | None = None

    def compute(self, network: int, piece: pd.DataFrame) -> Answer:
        """Compute the views of a piece and put them into the store."""
        assert self._encoder and self._store is not None  # noqa: S101, PT018 - they are open
        try:
            engine, size = self._encoder.engines[network], self._order.settings.batch_size
            self._store.put(features_of(piece, engine, size))
        except Exception as error:
            found = command.in_words(error)
            return Answer(error=(type(found).__name__, str(found)))
        return Answer(len(piece))

    def close(self) -> None:
        """Close the store."""
        if self._store:
            self._store.close()

    def open(self) -> Answer:
        """Check that this process can do the work, and would compute the same bits."""
        return Answer(refusal=self._open())

    def _open(self) -> str:
        """Return why this process cannot do the work; empty if it can."""
        order = self._order
        try:
            os.chdir(order.project)
        except OSError as error:
            return f"has no folder {order.project} ({error.strerror})"
        if order.machine is not None:
            try:
                same = machine_of(order.store) == order.machine
            except OSError:
                same = False
            if not same:
                return (
                    f"is a different machine and does not have the store's folder {order.store}:"
                    " set store.folder in params.yaml (or HEADSTART_STORE) to s3://BUCKET/PREFIX"
                )
        try:
            encoder = open_encoder(order.settings, kinds.named(order.kind))
            if differs := _difference(identity(encoder, order.identity.forms), order.identity):
                return differs
            files.read(Path(order.example[0]), order.example[1])
            store = store_at(order.store, order.limit)
            store.held([])
        except Exception as error:  # the driver could open the same, so the node is the cause
            return f"cannot do the work: {command.in_words(error)}"
        self._encoder, self._store = encoder, store
        return ""


def _difference(here: Identity, asked: Identity) -> str:
    """Describe how a worker (`here`) differs from the driver (`asked`); empty if it does not."""
    if here.code != asked.code:
        return (
            "has a different version of Headstart's code, or different plugins: install the same"
            " there"
        )
    pairs = zip(here.engines + here.views, asked.engines + asked.views, strict=True)
    for one, other in pairs:
        if one != other:
            return (
                f"would compute different features: it has {_short(one)!r}, and this process has"
                f" {_short(other)!r}"
            )
    return ""


def _short(made_by: str) -> str:
    return HEX.sub(r"\1", made_by)


@dataclass(eq=False)
class _Piece:
    """A piece of work for a worker."""

    network: int
    rows: pd.DataFrame
    deaths: int = 0


@dataclass(eq=False)
class _Hired:
    """A worker, as seen by this process."""

    actor: Any
    node: str
    most: int  # pieces at a time
    is_open: bool = False


def compute_each(
    missing: list[pd.DataFrame],
    encoder: Encoder,
    settings: ExtractParams,
    kind: str,
    cache: Store,
    address: str,
) -> None:
    """Compute the features of the missing views on a Ray cluster, and put them into the store.

    Args:
        missing: the rows of `wanted.every_view` for these views, one table per network.
        encoder: the encoder of this process; workers open their own.
        address: HOST:PORT of the cluster's head.

    Raises:
        HeadstartError: a view cannot be computed, no node can be used, or the cluster is gone.
    """
    tables = [table for table in missing if len(table)]
    if not tables:
        return
    place, first = default_place(), tables[0].iloc[0]
    files.read(Path(first["path"]), first["digest"])  # else every node would report the error
    order = Order(
        str(Path.cwd()),
        settings,
        kind,
        place,
        default_limit(),
        None if place.startswith("s3://") else machine_of(place),
        identity(encoder, sorted(set().union(*(table["example_format"] for table in tables)))),
        (first["path"], first["digest"]),
    )
    waiting = deque(
        _Piece(network, rows)
        for network, table in enumerate(missing)
        for rows in batches(table, settings.batch_size)
    )
    cache.get([])  # a store in a bucket records the requested keys, so no worker evicts them
    with (
        _joined(address) as ray,
        Progress("extract", sum(map(len, tables)), "views") as progress,
    ):
        _Run(ray, order, encoder.on_gpu, waiting, progress, address).to_its_end()
    held = cache.held([key for table in tables for key in keys_of(table)])
    if lost := sum(len(without(table, held)) for table in tables):
        print(
            f"extract: the store lacks {lost} of these views; this machine computes them",
            flush=True,
        )


class _Run:
    """Assigns pieces to workers, and starts and replaces workers."""

    def __init__(
        self,
        ray: Any,
        order: Order,
        on_gpu: bool,
        waiting: deque[_Piece],
        progress: Progress,
        address: str,
    ) -> None:
        self._ray, self._order, self._on_gpu = ray, order, on_gpu
        self._waiting, self._progress, self._address = waiting, progress, address
        self._hired: list[_Hired] = []
        self._calls: dict[Any, tuple[_Hired, _Piece | None]] = {}  # None: the worker is opening
        self._refused: set[str] = set()  # nodes
        self._failed: Counter[str] = Counter()  # workers that died at start, by node
        self._names: dict[str, str] = {}
        self._looked = -LOOK_EVERY_S
        self._here = ray.get_runtime_context().get_node_id()
        self._opened = self._reached = time.monotonic()

    def to_its_end(self) -> None:
        """Run until everything is computed."""
        while self._waiting or any(piece for _, piece in self._calls.values()):
            now = time.monotonic()
            if now - self._looked >= LOOK_EVERY_S:
                self._looked = now
                if _answers(self._address):
                    self._reached = now
                    self._hire()
            self._hand_out()
            self._stop_if_hopeless(now)
            if not self._calls:
                time.sleep(0.2)
                continue
            answered, _ = self._ray.wait(list(self._calls), num_returns=1, timeout=1.0)
            for call in answered:
                if call in self._calls:  # else its worker has just been ended
                    self._settle(call, *self._calls.pop(call))
        closing = [hired.actor.close.remote() for hired in self._hired if hired.is_open]
        self._ray.wait(closing, num_returns=len(closing), timeout=CLOSE_S)

    def _hire(self) -> None:
        """Start a worker for each free slot of the current nodes."""
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        if self._here not in [node["NodeID"] for node in nodes]:
            raise RunnerError(f"Ray on this machine has stopped; {RUN_AGAIN}")
        names = Counter(node["NodeManagerAddress"] for node in nodes)
        of = Counter(hired.node for hired in self._hired)
        usable = False
        for node in nodes:
            name, own = node["NodeID"], node["NodeManagerAddress"]
            self._names[name] = own if names[own] == 1 else f"{own} ({name[:8]})"
            cpus, gpus = (int(node["Resources"].get(kind, 0)) for kind in ("CPU", "GPU"))
            slots = gpus if self._on_gpu else cpus
            if slots and name not in self._refused:
                usable = True
                threads = max(1, cpus // gpus) if self._on_gpu else 1
                for _ in range(min(slots, len(self._waiting)) - of[name]):
                    self._hire_one(name, threads)
        if self._refused and not usable and not self._hired:
            raise RunnerError(
                f"no node of the Ray cluster at {self._address} can be used; see the lines above"
            )

    def _hire_one(self, node: str, threads: int) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        slot = self._ray.remote(
            num_cpus=threads,
            num_gpus=1 if self._on_gpu else 0,
            max_concurrency=threads,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
        )
        hired = _Hired(slot(Worker).remote(self._order), node, threads + QUEUED - 1)
        self._hired.append(hired)
        self._calls[hired.actor.open.remote()] = hired, None

    def _hand_out(self) -> None:
        # Each worker gets one piece before any gets a second, so no worker is idle at the end.
        has = Counter(id(hired) for hired, _ in self._calls.values())
        for depth in range(max((hired.most for hired in self._hired), default=0)):
            for hired in self._hired:
                if self._waiting and hired.is_open and has[id(hired)] == depth < hired.most:
                    piece = self._waiting.popleft()
                    has[id(hired)] += 1
                    self._calls[hired.actor.compute.remote(piece.network, piece.rows)] = (
                        hired,
                        piece,
                    )

    def _settle(self, call: Any, hired: _Hired, piece: _Piece | None) -> None:
        """Handle the result of a worker, or the death of the worker or its node."""
        try:
            answer: Answer = self._ray.get(call)
        except self._ray.exceptions.RayError as error:
            self._lose(hired, piece, error)
            return
        if answer.refusal:
            self._refuse(hired.node, answer.refusal)
        elif answer.error[0]:
            name, text = answer.error
            kind = getattr(errors, name, HeadstartError)
            raise kind(f"node {self._names[hired.node]}: {text}")
        else:
            hired.is_open = True
            self._progress.advance(answer.views)

    def _refuse(self, node: str, why: str) -> None:
        """Stop using a node, and end its workers."""
        self._refused.add(node)
        self._say(f"node {self._names[node]} is not used: it {why}")
        for hired in [hired for hired in self._hired if hired.node == node]:
            self._let_go(hired, None)

    def _lose(self, hired: _Hired, piece: _Piece | None, error: Exception) -> None:
        lost = self._let_go(hired, piece)
        self._looked = -LOOK_EVERY_S  # list the nodes at once, to start another worker
        if not hired.is_open:
            self._failed[hired.node] += 1
            if self._failed[hired.node] >= DEATHS:
                self._refuse(hired.node, f"starts no worker: {_line(error)}")
            return
        self._say(f"a worker on node {self._names[hired.node]} is lost; other workers do its work")
        for one in lost:
            one.deaths += 1
            if one.deaths >= DEATHS:
                paths = one.rows["path"].tolist()
                raise RunnerError(
                    f"{DEATHS} workers died at the same examples, from {paths[0]} to {paths[-1]};"
                    f" one was on node {self._names[hired.node]}: check its memory and Ray's logs"
                )

    def _let_go(self, hired: _Hired, piece: _Piece | None) -> list[_Piece]:
        """End a worker, and queue its pieces again, including `piece`."""
        pieces = [piece] + [piece for other, piece in self._calls.values() if other is hired]
        given = [piece for piece in pieces if piece]
        self._waiting.extendleft(reversed(given))
        self._hired.remove(hired)
        self._calls = {c: of for c, of in self._calls.items() if of[0] is not hired}
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.kill(hired.actor)
        return given

    def _stop_if_hopeless(self, now: float) -> None:
        if any(hired.is_open for hired in self._hired):
            self._opened = now
        if now - self._reached > GONE_S:
            raise RunnerError(
                f"the head of the Ray cluster at {self._address} no longer answers; {RUN_AGAIN}"
            )
        if now - self._opened > ALONE_S:
            raise RunnerError(
                f"no worker of the Ray cluster at {self._address} started in {ALONE_S:.0f} s: check"
                f" with `ray status` that a node has a free CPU or GPU; {RUN_AGAIN}"
            )

    def _say(self, line: str) -> None:
        self._progress.clear()
        print(f"extract: {line}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _joined(address: str) -> Iterator[Any]:
    """Connect to the Ray cluster at this address, never to a different one, as a driver.

    Raises:
        MissingSetError: Ray is not installed.
        RunnerError: the cluster cannot be joined; the text says why.
    """
    packages.need("ray", "cluster.runner ray")
    _stop_if_open(address)
    if not _answers(address):  # Ray would wait for two minutes
        raise RunnerError(
            f"nothing answers at cluster.address {address}: start the Ray cluster, or set"
            " cluster.runner to local"
        )
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_NUM_REDIS_GET_RETRIES", "5")  # with a wrong token, one second each
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    with _silence():
        try:
            ray.init(
                address,
                namespace=f"headstart-{uuid.uuid4()}",
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
        except Exception as error:
            problem: HeadstartError | None = _not_joined(error, address)
        else:
            problem = None
    if problem:
        raise problem
    try:
        yield ray
    finally:
        with _silence():
            ray.shutdown()


def _stop_if_open(address: str) -> None:
    """Refuse to join a cluster on other machines without a token.

    Raises:
        RunnerError: this process is not configured to use a token.
    """
    host = address.rpartition(":")[0].strip("[]")
    on_loopback = host == "localhost" or host.startswith("127.") or host == "::1"
    if os.environ.get("RAY_AUTH_MODE") != "token" and not on_loopback:
        raise RunnerError(
            f"the Ray cluster at {address} would be joined without a token, so anyone who reaches"
            " its port could run commands on all its machines: set RAY_AUTH_MODE=token here and"
            " where `ray start` is called (docs/cluster.md)"
        )


def _answers(address: str) -> bool:
    """Return whether the address accepts connections."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_S).close()
    except (OSError, OverflowError):
        return False
    return True


def _not_joined(error: BaseException, address: str) -> HeadstartError:
    """Convert Ray's exception to a one-line error."""
    chain: list[BaseException] = [error]
    while (before := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(before)
    texts = " ".join(str(one) for one in chain)
    if "no authentication token was found" in texts:
        return RunnerError(
            f"the Ray cluster at {address} requires a token, and none is set: set"
            " RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file with it (docs/cluster.md)"
        )
    if "InvalidAuthToken" in texts or "Unauthenticated" in texts:
        return RunnerError(
            f"the Ray cluster at {address} rejects the token: set RAY_AUTH_MODE=token and"
            " RAY_AUTH_TOKEN to that of the cluster (docs/cluster.md)"
        )
    return RunnerError(f"the Ray cluster at {address} cannot be joined: {_line(error)}")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Discard what Ray's C++ code writes to stderr; its errors also raise exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(kept, 2)
        os.close(kept)

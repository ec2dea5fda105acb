"""The store in a bucket when a worker, a committer or the server is killed, or it is full."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.core.errors import StoreError
from pipeline.store.shared import SharedStore
from tests.conftest import ROOT
from tests.helpers import seaweed
from tests.store.test_shared import (
    as_user,
    key,
    make_bucket,
    objects,
    some,
)

pytestmark = pytest.mark.slow
# Twenty of each were run by hand. A server that was killed takes 15 s until it is whole again.
ROUNDS = 3
OF_THE_SERVER = 1
ALL = 240  # entries that a worker is to store
CHUNK = 4  # entries a put

# Stores what is missing, and says what is stored and when it begins and ends to join.
WORKER = f"""
import sys, time
from datetime import timedelta
from pipeline.core.errors import StoreError
from pipeline.store import committer, shared
from tests.store.test_shared import key, some
committer.SMALL_ONES, shared.JOINED_AFTER, committer.TURN = 6, 8, timedelta(seconds=-60)
join = committer.Committer._rewrite
def reported(self, *arguments):
    print("joins", flush=True)
    gone = join(self, *arguments)
    print("joined", flush=True)
    return gone
committer.Committer._rewrite = reported
try:
    with shared.SharedStore(sys.argv[1], None) as store:
        held = store.held([key(i) for i in range({ALL})])
        missing = [i for i in range({ALL}) if key(i) not in held]
        print("missing", len(missing), flush=True)
        for start in range(0, len(missing), {CHUNK}):
            chunk = missing[start : start + {CHUNK}]
            store.put(some(*chunk, width=100))
            print("put", *chunk, flush=True)
except StoreError as error:
    print("error", error, flush=True)
    sys.exit(5)
"""


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[seaweed.Server]:
    made = seaweed.Server(tmp_path / "server")
    made.start()
    make_bucket(made.address)
    as_user(monkeypatch, made.address)
    yield made
    made.kill()


def worker(address: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, address],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def stored(told: list[str]) -> set[int]:
    return {int(i) for line in told if line.startswith("put ") for i in line.split()[1:]}


def finish(address: str) -> int:
    """How many entries a worker found missing that ran to its end."""
    out, err = (running := worker(address)).communicate(timeout=120)
    assert running.returncode == 0, out + err
    (missing,) = re.findall(r"missing (\d+)", out)
    return int(missing)


def when_whole(address: str, numbers: set[int]) -> set[bytes]:
    """What is found of these once the server, which answers early, has its volumes again."""
    until = time.monotonic() + 60
    while True:
        try:
            with SharedStore(address, None) as store:
                return set(store.get([key(i) for i in numbers]))
        except StoreError:
            assert time.monotonic() < until
            time.sleep(0.2)


def check_whole(address: str) -> None:
    """Everything is there, once for readers, and no shard is unreadable."""
    wanted = some(*range(ALL), width=100)
    with SharedStore(address, None) as store:
        found = store.get(list(wanted))
        assert store.damaged == 0
    assert all((found[one] == vector).all() for one, vector in wanted.items())


@pytest.mark.parametrize("when", ["put", "joins"], ids=["worker", "committer"])
def test_killed_at_any_moment_nothing_is_lost(server: seaweed.Server, when: str) -> None:
    """A worker is killed as it stores, or as it joins."""
    draw, in_the_midst = random.Random(when), 0  # noqa: S311
    for turn in range(ROUNDS):
        address = f"s3://lab/{when}-{turn}"
        running, told = worker(address), []
        assert running.stdout
        chosen = draw.randrange(2, 30 if when == "put" else 4)
        for line in running.stdout:
            told.append(line.strip())
            if sum(line.startswith(when) and line != "joined\n" for line in told) >= chosen:
                time.sleep(draw.random() * 0.02)
                running.send_signal(signal.SIGKILL)
                break
        told += [line.strip() for line in running.stdout]
        assert running.wait() == -signal.SIGKILL
        in_the_midst += told.count("joins") > told.count("joined")
        done = stored(told)
        with SharedStore(address, None) as store:
            held = store.held([key(i) for i in range(ALL)])
            assert len(store.get([key(i) for i in done])) == len(done)
            assert len(held - {key(i) for i in done}) <= CHUNK
        # What is missing was not reported: at most the chunk in flight was stored without a line.
        assert finish(address) == ALL - len(held)
        check_whole(address)
    print(f"{when}: {in_the_midst} of {ROUNDS} killed while it joined")
    assert when == "put" or in_the_midst


def test_the_server_is_killed_and_what_was_stored_is_kept(server: seaweed.Server) -> None:
    draw, rode_out = random.Random(1), 0  # noqa: S311
    for turn in range(OF_THE_SERVER):
        address = f"s3://lab/server-{turn}"
        running, told = worker(address), []
        assert running.stdout
        chosen = draw.randrange(2, 40)
        for line in running.stdout:
            told.append(line.strip())
            if len(told) == chosen:
                time.sleep(draw.random() * 0.02)
                server.kill()
                server.start()
        code = running.wait(timeout=120)
        rode_out += code == 0
        if code:
            assert code == 5, told
            assert told[-1].startswith("error the feature store failed: s3://lab/")
        done = stored(told)
        assert len(when_whole(address, done)) == len(done)
        assert finish(address) <= ALL - len(done)
        check_whole(address)
    print(f"server: {rode_out} of {OF_THE_SERVER} workers went on by themselves")


def test_a_full_bucket_keeps_what_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = seaweed.Server(tmp_path / "small")
    small.start("-volume.max=1", "-master.volumeSizeLimitMB=1")
    try:
        make_bucket(small.address)
        as_user(monkeypatch, small.address)
        done = 0
        with SharedStore("s3://lab/full", None) as store:
            said = ""
            while not said:
                assert done < 1000
                try:
                    store.put(some(done, width=50_000))
                    done += 1
                except StoreError as error:
                    said = str(error)
            assert re.fullmatch(
                r"the feature store failed: .* cannot be written.*are kept", said
            ), said
            assert done
            assert len(store.get([key(i) for i in range(done)])) == done
        with SharedStore("s3://lab/full", None) as store:
            assert len(store.held([key(i) for i in range(done + 1)])) == done
        assert objects("s3://lab/full")
    finally:
        small.kill()

"""A head across five sites with Flower: how good is it, and what does it cost?

    python -m benchmarks flower ../shared/data/hymenoptera [--draws DRAWS]

It needs `.venv-flower` (`make flower`). Examples are put at random into train (60 %), val (20 %)
and test (20 %), and those of train and val are dealt to five sites with `federated.deal`: of each
class the sites get shares from a Dirichlet distribution, the smaller its concentration, the less
even. All heads are judged on the same test examples: the pooled one and each site's own by L-BFGS,
and those of FedAvg and FedProx, with the settings that the app comes with. The pooled one and a
site's own learn from training examples alone, as those of Flower do. Heads are made of the messages
that sites and server send each other, in one process; that real processes come to the same head is
in the second table, whose bytes are those that went through a SuperNode's connection.
"""

import csv
import json
import socket
import statistics
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file
from scipy import stats

from benchmarks.harness import ENVIRONMENT, ROOT, table
from benchmarks.sets import Data, divided, pictures, titles
from federated.deal import dealt
from federated.examples import Examples, write
from federated.loopback import HOST, Federation
from pipeline.heads.fit import fit_heads
from pipeline.heads.head import Head
from pipeline.heads.hyperparameters import every_combination
from pipeline.heads.trained import Schedule
from pipeline.tables.features import Split

PYTHON = ROOT / ".venv-flower" / "bin" / "python"
SITES = 5
UNEVEN = (100.0, 0.3, 0.1)
ROUNDS = (3, 10, 30)
PROXIMAL = 0.3
USUAL = 10  # rounds
Labels = npt.NDArray[np.int64]


def measure(scratch: Path, hymenoptera: Path, draws: int = 5, process_rounds: int = 3) -> str:
    """Make the heads, run the processes; return the page."""
    sets = {
        "surfaces": pictures(scratch / "surfaces"),
        "hymenoptera": pictures(scratch / "hymenoptera", hymenoptera.resolve()),
        "titles": titles(),
    }
    rows = []
    for name, data in sets.items():
        for uneven in UNEVEN:
            folder = scratch / f"{name} {uneven:g}"
            rows.append([name, uneven, *accuracies(folder, data, uneven, draws)])
            print(*rows[-1], flush=True)
    columns = "data | concentration {:g} | pooled | FedAvg, 3 rounds | 10 rounds | 30 rounds"
    columns += f" | FedProx {PROXIMAL}, 10 rounds | FedAvg, 10 rounds, less pooled"
    columns += " | a site alone, mean | the best site alone"
    of_processes = []
    for label, settings, killed in (
        ("FedAvg", {}, False),
        ("FedAvg, a site killed", {}, True),
        ("FedAvg with SecAgg+", {"secure": True, "min-sites": 3}, False),
        ("FedAvg with SecAgg+, a site killed", {"secure": True, "min-sites": 3}, True),
    ):
        folder = scratch / label
        more = settings | {"rounds": process_rounds}
        of_processes.append([label, *processes(folder, sets["surfaces"], more, killed)])
        print(*of_processes[-1], flush=True)
    columns_of_processes = (
        "run | rounds {:d} | sites at the end {:d} | test accuracy {:.3f}"
        " | largest difference to one process, of the largest weight {:.0e} | seconds {:.0f}"
        " | seconds a round, median {:.1f} | longest round {:.1f}"
        " | MB from a site {:.2f} | MB to a site {:.2f} | left out"
    )
    return PAGE.format(
        draws=draws,
        accuracies=table(columns, rows),
        processes=table(columns_of_processes, of_processes),
    )


PAGE = """# A head across sites with Flower

Means over {draws} draws of splits and sites, with the half-width of their 95 % interval
(Student's t). `concentration`: of the Dirichlet distribution by which a class is shared out to the
five sites; 100 is nearly even. `less pooled`: the mean difference of the same draws. A site alone
knows only its own classes, and is wrong about the others.

{accuracies}

## Processes

A SuperLink and five SuperNodes on this machine's two cores, surfaces, concentration 0.3, draw 0.
One site is killed (SIGKILL, all its processes) when two of the three rounds are over, and does not
come back; an exchange waits 120 s for it at most. MB: what went through a site's connection in
the whole run, the mean of the sites that stayed to the end: weights, sums, keys, the app, questions
for work every few seconds, and signs of life. The weights of a head of surfaces are 0.08 MB.
Flower 1.42 starts a process at the site for each message, and asks for messages each 3 s: that is
nearly all of a round's time here.

{processes}
"""


@dataclass(frozen=True)
class Dealt:
    """A draw: the folders of the sites, and the examples of all."""

    sites: dict[str, Path]
    parts: list[Examples]
    train: Split
    val: Split
    test: Split


def draw(folder: Path, data: Data, uneven: float, seed: int) -> Dealt:
    train, val, test = divided(data, seed)
    made_by = {"backbone": "frozen", "fingerprint": "same", "precision": "float32", "power": "1.0"}
    made_by["dimension"] = str(train.features.shape[1])
    whole = Examples(
        train.features, train.labels.astype(np.int64), val.features, val.labels.astype(np.int64),
        data.classes, made_by,
    )  # fmt: skip
    sites = {}
    parts = dealt(whole, SITES, uneven, seed)
    for number, part in enumerate(parts, 1):
        sites[f"site-{number}"] = folder / f"site-{number}"
        (folder / f"site-{number}" / "data").mkdir(parents=True, exist_ok=True)
        write(part, folder / f"site-{number}")
    return Dealt(sites, parts, train, val, test)


def accuracies(folder: Path, data: Data, uneven: float, draws: int) -> list[str]:
    """The cells of a row."""
    found: dict[str, list[float]] = {}
    asked, drawn = [], []
    for seed in range(draws):
        own = folder / str(seed)
        one = draw(own, data, uneven, seed)
        drawn.append(one)
        decay = {"weight-decay": decay_of(data)}
        for rounds in ROUNDS:
            asked.append(run_of(one, decay | {"rounds": rounds, "out": own / f"avg {rounds}"}))
        prox = {"rounds": USUAL, "proximal-mu": PROXIMAL, "out": own / "prox"}
        asked.append(run_of(one, decay | prox))
    in_process(folder, asked)
    for seed, one in enumerate(drawn):
        pooled = right(lbfgs(data, one.train, one.val, len(data.classes)), one.test)
        values = {"pooled": pooled}
        for name in (*(f"avg {rounds}" for rounds in ROUNDS), "prox"):
            values[name] = right(head_in(folder / str(seed) / name), one.test)
        values["less"] = values[f"avg {USUAL}"] - pooled
        alone = [right_alone(data, part, one.test) for part in one.parts]
        values |= {"alone": statistics.mean(alone), "best": max(alone)}
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    names = ("pooled", *(f"avg {rounds}" for rounds in ROUNDS), "prox", "less", "alone", "best")
    return [interval(found[name], "{:+.3f}" if name == "less" else "{:.3f}") for name in names]


def interval(values: list[float], form: str) -> str:
    """Mean, and the half-width of its interval."""
    half = 0.0
    if len(values) > 1:
        half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    return f"{form.format(statistics.mean(values))} ± {half:.3f}"


def run_of(one: Dealt, settings: dict[str, Any]) -> dict[str, Any]:
    return {"sites": one.sites, "settings": settings}


def in_process(folder: Path, runs: list[dict[str, Any]]) -> None:
    """Have Flower's packages run them, in a process of their own."""
    file = folder / "runs.json"
    file.write_text(json.dumps(runs, default=str))
    command = [PYTHON, "-m", "federated.in_process", file]
    shown = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "federated: error" not in shown.stdout, shown.stdout


def decay_of(data: Data) -> float:
    decay = data.training.weight_decay
    assert isinstance(decay, float)
    return decay


def lbfgs(data: Data, train: Split, val: Split, classes: int) -> Head:
    """The head that `train` trains, without training it again with the validation examples."""
    schedule = Schedule(1, 1, 0, np.ones(classes, np.float32))
    (best,) = fit_heads(train, val, every_combination(data.training), schedule, "cpu")
    assert best.head is not None
    return best.head


def head_in(folder: Path) -> Head:
    return Head(**load_file(folder / "head.safetensors"))


def right(head: Head, test: Split) -> float:
    """The share of test examples that it gets right."""
    return float((head.logits(test.features).argmax(axis=1) == test.labels).mean())


def right_alone(data: Data, part: Examples, test: Split) -> float:
    """The same of the head of a site that has nobody."""
    names = np.arange(len(part.train)).astype(str)
    rows = Split(names, names, np.zeros(len(names), np.int32), part.train_labels, part.train)
    none = Split(*(value[:0] for value in vars(rows).values()))
    head = lbfgs(data, rows, none, len(part.classes))
    known = np.array([data.classes.index(name) for name in part.classes])
    return float((known[head.logits(test.features).argmax(axis=1)] == test.labels).mean())


def processes(folder: Path, data: Data, more: dict[str, Any], killed: bool) -> list[Any]:
    """The cells of a run by processes of Flower's."""
    one = draw(folder, data, 0.3, 0)
    common = {"weight-decay": decay_of(data)} | more
    in_process(folder, [run_of(one, common | {"out": folder / "in process"})])
    settings = common | {
        "sites": SITES, "wait": 300.0, "round-timeout": 120.0 if killed else 300.0,
        "out": folder / "head",
    }  # fmt: skip
    meters = {name: Meter() for name in one.sites}
    through = {name: meter.port for name, meter in meters.items()}
    began = time.monotonic()
    with Federation(folder / "home", one.sites, through=through, python=PYTHON) as federation:
        for meter in meters.values():
            meter.to(federation.port)
        running = federation.run(settings)
        assert running.stdout
        said = []
        for line in running.stdout:
            said.append(line)
            if killed and "federated: after round 1" in line:
                federation.kill("site-2")
        assert running.wait() == 0, "".join(said)
    seconds = time.monotonic() - began
    rounds = list(csv.DictReader((folder / "head" / "rounds.csv").open()))
    ours, theirs = head_in(folder / "head"), head_in(folder / "in process")
    away = max(
        float(np.abs(getattr(ours, name) - getattr(theirs, name)).max())
        / float(np.abs(getattr(theirs, name)).max())
        for name in ("weight", "bias")
    )
    took = [float(row["seconds"]) for row in rounds]
    stayed = [meter for name, meter in meters.items() if not (killed and name == "site-2")]
    left = [row["left_out"] for row in rounds if row["left_out"]]
    return [
        sum(row["counted"] == "true" for row in rounds) - 1,
        len(rounds[-1]["sites"].split()),
        right(ours, one.test),
        None if killed else away,
        seconds,
        statistics.median(took),
        max(took),
        statistics.mean(meter.sent for meter in stayed) / 1e6,
        statistics.mean(meter.got for meter in stayed) / 1e6,
        "; ".join(left) or "–",
    ]


class Meter:
    """A port that passes on what comes, both ways, and counts it."""

    def __init__(self) -> None:
        self.sent = self.got = 0
        self.target = 0
        self.door = socket.create_server((HOST, 0))
        self.port = int(self.door.getsockname()[1])
        threading.Thread(target=self._open, daemon=True).start()

    def to(self, port: int) -> None:
        self.target = port

    def _open(self) -> None:
        while True:
            inside, _ = self.door.accept()
            while not self.target:
                time.sleep(0.1)
            try:
                outside = socket.create_connection((HOST, self.target))
            except ConnectionRefusedError:  # the run is over
                inside.close()
                continue
            for source, drain, name in ((inside, outside, "sent"), (outside, inside, "got")):
                threading.Thread(target=self._pass, args=(source, drain, name), daemon=True).start()

    def _pass(self, source: socket.socket, drain: socket.socket, name: str) -> None:
        try:
            while some := source.recv(65536):
                setattr(self, name, getattr(self, name) + len(some))
                drain.sendall(some)
            drain.shutdown(socket.SHUT_WR)
        except OSError:  # the other end is gone
            source.close()
            drain.close()

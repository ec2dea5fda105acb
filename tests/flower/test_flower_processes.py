"""Flower's own processes on loopback, and its strategies and SecAgg+ in one process.

They run in `.venv-flower`, which `make flower` makes.
"""

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from federated.deal import dealt
from federated.examples import write
from federated.loopback import DONE, Federation
from pipeline.heads.head import Head, load_head
from tests.conftest import ROOT
from tests.flower.dealt_digits import digits

PYTHON = ROOT / ".venv-flower" / "bin" / "python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="no .venv-flower: make flower"),
]
# Put where Python looks first, it writes down each look-up of a host, and connections elsewhere.
WATCH = """
import os, socket, sys
with open(os.environ["WATCHED"] + " by", "a") as file:
    file.write(" ".join(sys.orig_argv) + "\\n")
def watch(event, arguments):
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else "127.0.0.1"
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if str(host) not in ("127.0.0.1", "localhost", "None", "::1"):
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{sys.argv[0]} {event} {host}\\n")
sys.addaudithook(watch)
"""


# What the server gets of the sites in a run whose numbers are masked, told as JSON.
EAVESDROP = """
import json, sys
from pathlib import Path
import numpy as np
from flwr.app import Context, RecordDict
from flwr.common import bytes_to_ndarray
from federated.in_process import InProcess, usual
from federated.server_app import federate
from federated.settings import Settings

heard = {"masked": [], "open": 0, "counts": []}
class Heard(InProcess):
    def pull_messages(self, message_ids):
        found = super().pull_messages(message_ids)
        for message in found:
            content = message.content
            for record in content.array_records.values():
                heard["open"] += len(record)
            for record in content.metric_records.values():
                heard["counts"] += list(record.values())
            for record in content.config_records.values():
                for name, value in record.items():
                    if isinstance(value, list) and value and isinstance(value[0], bytes) \\
                            and value[0][:6] == b"\\x93NUMPY":
                        arrays = [bytes_to_ndarray(one) for one in value]
                        largest = max(arrays, key=lambda one: one.size).astype(float).ravel()
                        heard["masked"].append([largest.size, largest.mean(), largest.std()])
        return found

sites = {name: Path(folder) for name, folder in json.loads(sys.argv[1]).items()}
context = Context(run_id=1, node_id=0, node_config={}, state=RecordDict(), run_config={})
asked = usual() | {"sites": 3, "min-sites": 3, "rounds": 1, "secure": True, "out": sys.argv[2]}
federate(Heard(sites, True), context, Settings.of(asked))
print("heard", json.dumps(heard))
"""


def sites_of(folder: Path, count: int) -> dict[str, Path]:
    found = {}
    for number, part in enumerate(dealt(digits(), count, 3.0, 1), 1):
        site = folder / f"site-{number}"
        (site / "data").mkdir(parents=True)
        write(part, site)
        found[site.name] = site
    return found


def in_process(folder: Path, *runs: dict[str, Any]) -> list[str]:
    file = folder / "runs.json"
    file.write_text(json.dumps(runs, default=str))
    command = [PYTHON, "-m", "federated.in_process", file]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    lines = shown.stdout.splitlines()
    return [line.removeprefix("federated: ") for line in lines if line.startswith("federated:")]


def accuracy(head: Head) -> float:
    whole = digits()
    return float((head.logits(whole.val).argmax(axis=1) == whole.val_labels).mean())


def test_processes_on_loopback_end_with_one_head_though_a_site_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = sites_of(tmp_path, 3)
    (tmp_path / "watch").mkdir()
    (tmp_path / "watch" / "sitecustomize.py").write_text(WATCH)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "watch"))
    monkeypatch.setenv("WATCHED", str(tmp_path / "watched"))
    out = tmp_path / "head"
    settings = {"sites": 3, "rounds": 2, "round-timeout": 30.0, "wait": 60.0, "out": out}
    said = []
    with Federation(tmp_path / "home", sites, python=PYTHON) as federation:
        running = federation.run(settings)
        assert running.stdout
        for line in running.stdout:
            if line.startswith("federated:"):
                said.append(line)
            if "after round 1" in line:
                federation.kill("site-2")
        assert running.wait() == 0
    assert said[-1].startswith(f"{DONE} 2 rounds"), said
    head, about = load_head(out / "head.safetensors", out / "head.json")
    assert about["classes"] == [str(digit) for digit in range(10)]
    assert accuracy(head) > 0.7
    watching = (tmp_path / "watched by").read_text()
    assert "flower-superlink" in watching
    assert "flower-supernode" in watching
    assert not (tmp_path / "watched").exists(), (tmp_path / "watched").read_text()

    # The same sites in one process, of which none was killed: the same first round.
    in_process(tmp_path, {"sites": sites, "settings": settings | {"out": tmp_path / "again"}})
    rows, again = (
        list(csv.DictReader((folder / "rounds.csv").open())) for folder in (out, tmp_path / "again")
    )
    assert rows[1]["sites"] == "site-1 site-2 site-3"
    told = [(table[1]["loss"], table[1]["accuracy"]) for table in (rows, again)]
    assert told[0] == told[1]
    assert float(told[0][1]) > 0.7


def test_what_is_masked_comes_to_the_same_average(tmp_path: Path) -> None:
    sites = sites_of(tmp_path, 5)
    common = {"rounds": 3, "min-sites": 3, "round-timeout": 2.0}
    said = in_process(
        tmp_path,
        {"sites": sites, "settings": common | {"out": tmp_path / "open"}},
        {"sites": sites, "settings": common | {"out": tmp_path / "open again"}},
        {
            "sites": sites,
            "settings": common | {"out": tmp_path / "masked", "secure": True},
            "secure_sites": True,
        },
        # It leaves once its key is shared: the others take its mask off.
        {
            "sites": sites,
            "settings": common | {"out": tmp_path / "left", "secure": True},
            "gone": {"site-2": 7},
        },
        # It leaves before: Flower's protocol gives the round up, and it is tried again.
        {
            "sites": sites,
            "settings": common | {"out": tmp_path / "early", "secure": True},
            "gone": {"site-2": 6},
        },
        # Two of four leave: the sum of the others is not unmasked, or the next try, with a site
        # that is back, would tell that site's numbers.
        {
            "sites": dict(list(sites.items())[:4]),
            "settings": common | {"out": tmp_path / "two", "secure": True, "wait": 1.0},
            "gone": {"site-2": 7, "site-3": 7},
        },
        {"sites": sites, "settings": common | {"out": tmp_path / "none"}, "secure_sites": True},
    )
    plain, again, masked, left, early = (
        load_file(tmp_path / name / "head.safetensors")
        for name in ("open", "open again", "masked", "left", "early")
    )
    for name, array in plain.items():
        np.testing.assert_array_equal(array, again[name])
        np.testing.assert_allclose(array, masked[name], atol=1e-4 * np.abs(array).max())
        assert array.shape == left[name].shape == early[name].shape
    assert accuracy(Head(**left)) > 0.8
    assert accuracy(Head(**early)) > 0.8
    assert "site-2 is left out of round 1: it did not answer in time" in said
    assert said.count("round 1 does not count: 0 of at least 3 sites") == 2
    assert not any("does not count: 2 of" in line for line in said)
    refusal = "this site sends masked numbers alone: run with secure=true"
    assert f"site-5 is left out of round 0: {refusal}" in said
    assert said[-1] == "error: round 0 did not count 3 times; see why above"
    assert not (tmp_path / "none").exists()


def test_the_server_gets_no_number_of_a_site_in_the_open(tmp_path: Path) -> None:
    sites = {name: str(folder) for name, folder in sites_of(tmp_path, 3).items()}
    command = [PYTHON, "-c", EAVESDROP, json.dumps(sites), tmp_path / "head"]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    line = next(one for one in shown.stdout.splitlines() if one.startswith("heard "))
    heard = json.loads(line.removeprefix("heard "))
    assert heard["open"] == 0
    assert set(heard["counts"]) == {1}  # and not the number of rows
    assert len(heard["masked"]) == 3 * 3  # sums, a round, and the one without training
    for size, mean, spread in heard["masked"]:
        assert size >= 64
        # Uniform over all of 32 bits, as masks are.
        assert mean == pytest.approx(2**31, rel=0.3)
        assert spread == pytest.approx(2**32 / 12**0.5, rel=0.3)


def test_a_site_that_fails_costs_the_others_nothing(tmp_path: Path) -> None:
    sites = sites_of(tmp_path, 4)
    (sites["site-4"] / "data" / "federated.safetensors").write_bytes(b"cut")
    common = {"rounds": 3, "round-timeout": 1.0, "wait": 2.0}
    said = in_process(
        tmp_path,
        {
            "sites": sites,
            "settings": common | {"out": tmp_path / "nan"},
            "spoilt": {"site-1": 3},
            "gone": {"site-3": 4},
        },
        {
            "sites": sites,
            "settings": common | {"out": tmp_path / "few", "min-sites": 3},
            "gone": {"site-3": 4},
        },
        {"sites": sites, "settings": common | {"out": tmp_path / "none", "min-sites": 4}},
        {"sites": sites, "settings": common | {"out": tmp_path / "fast", "learning-rate": 1e9}},
        {"sites": sites, "settings": common | {"out": tmp_path / "prox", "proximal-mu": 0.3}},
    )
    refused = [line for line in said if line.startswith("site-4 is refused: ")]
    assert len(refused) == 5
    assert "is damaged" in refused[0]
    assert "site-1 is left out of round 1: it sent numbers that are not finite" in said
    assert "site-3 is left out of round 3: it did not answer in time" in said
    rows = list(csv.DictReader((tmp_path / "nan" / "rounds.csv").open()))
    assert [row["sites"].count("site") for row in rows] == [3, 2, 3, 2]
    for name, array in load_file(tmp_path / "nan" / "head.safetensors").items():
        assert np.isfinite(array).all(), name
    # What came of the rounds that counted is kept.
    assert f"the head of 2 rounds is in {tmp_path / 'few'}" in said
    assert "error: 2 of at least 3 sites are there after 2 s" in said
    assert any("3 of at least 4 sites take part after 2 s" in line for line in said)
    too_fast = "training gave numbers that are not finite; lower learning-rate"
    assert f"site-2 is left out of round 1: {too_fast}" in said
    told = json.loads((tmp_path / "prox" / "head.json").read_text())["federated"]
    assert (told["strategy"], told["proximal_mu"], told["rounds"]) == ("FedProx", 0.3, 3)

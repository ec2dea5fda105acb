"""A task is a folder of pipeline/tasks/ and a line: a toy goes from ingest to an answer."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import evaluation, pages, tasks
from pipeline.quality import doubtful
from pipeline.serving import answering, replies
from pipeline.tables import targets
from tests.conftest import ROOT

TOY = Path(__file__).parent / "ordinal"
# All stages in one process, then what `headstart.load`, `predict` and `serve` do.
RUN = """
import json
from pathlib import Path
from fastapi.testclient import TestClient
import headstart
from pipeline import augment, bundle, checks, evaluate, extract, ingest, report, train
from pipeline.serving.classifier import Classifier
from pipeline.serving.server import Limits, application
from pipeline.serving.tables import columns_of, values_of

for stage in (ingest.ingest, augment.augment, extract.extract, train.train, evaluate.evaluate,
              checks.checks, bundle.bundle, report.report):
    stage()
data = Path("one.npy").read_bytes()
classifier = Classifier(Path("bundle"), explains=True)
with TestClient(application(classifier, Limits()), base_url="http://127.0.0.1") as server:
    about, reply = server.get("/about"), server.post("/predict?neighbours=1", content=data)
model = headstart.load("bundle")
print(json.dumps({
    "about": about.json(), "reply": reply.json(), "model": repr(model),
    "label": model.predict([data])[0].label,
    "row": dict(zip(columns_of(classifier), values_of(classifier, classifier.answer(data)))),
}))
"""


@pytest.mark.parametrize("name", tasks.TASKS)
def test_each_task_answers_all_that_is_asked(name):
    asked = {
        "targets": (targets.Targets, targets.of_task),
        "measuring": (evaluation.Measuring, evaluation.measuring),
        "issues": (doubtful.Issues, doubtful.of_task),
        "answer": (answering.Answering, answering.of_task),
        "reply": (replies.Replying, replies.of_task),
        "page": (pages.Page, pages.of_task),
    }
    for protocol, of_task in asked.values():
        names = {*protocol.__annotations__, *vars(protocol)}
        brought = of_task(name)
        assert {one for one in names if not (one.startswith("_") or hasattr(brought, one))} == set()
    assert tasks.TASKS[name].name == name
    assert (ROOT / "pipeline" / "tasks" / name / "page.html").is_file()
    files = {file.stem for file in (TOY).glob("*.py")} - {"__init__"}
    assert files == set(asked)  # the toy has all of them


def test_a_task_is_a_folder_and_a_line(tmp_path, exported):
    for name in ("pipeline", "headstart", "flows"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(TOY, tmp_path / "pipeline" / "tasks" / "ordinal")
    door, line = tmp_path / "pipeline" / "tasks" / "__init__.py", '    "regression",\n'
    assert door.read_text().count(line) == 1
    door.write_text(door.read_text().replace(line, line + '    "ordinal",\n'))
    random = np.random.default_rng(0)
    vectors = random.normal(size=(90, 4)).astype(np.float32)
    ranks = np.digitize(vectors.sum(axis=1), [-1, 1])
    table = {"vector": pa.array(vectors.tolist()), "label": ["abc"[rank] for rank in ranks]}
    pq.write_table(pa.table(table), tmp_path / "graded.parquet")
    np.save(tmp_path / "one.npy", np.full(4, 2, np.float32))
    (tmp_path / "params.yaml").write_text(
        "ingest: {kind: vector, source: parquet, path: graded.parquet, task: ordinal}\n"
        "augment: {views: 0}\nextract: {backbone: identity}\nevaluate: {bootstrap: 20}\n"
    )
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path),
        "HEADSTART_STORE": str(exported.parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ingest: 90 of 90 rows accepted: 3 grades," in done.stdout
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["about"]["nouns"] == ["grade", "grades"]
    assert (found["reply"]["best"], found["reply"]["rank"]) == ("c", 3)
    assert (found["row"]["class"], found["label"]) == ("c", "c")
    assert found["model"] == "<headstart.Model: 3 grades on identity>"
    metrics = json.loads((tmp_path / "reports" / "metrics.json").read_text())["test"]
    assert metrics["exact"] > 0.7
    assert metrics["rank_error"] < 0.4
    page = (tmp_path / "reports" / "report.html").read_text()
    assert "3 grades, 90 vectors" in page
    assert "In their order: a &lt; b &lt; c" in page

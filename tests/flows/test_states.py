"""What a task run shows is what happened, read back from Prefect's API."""

import json
import os
import re
import shutil
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest
import yaml
import zc.lockfile
from prefect import flow
from prefect.settings import PREFECT_API_URL, temporary_settings
from toys import PROJECT, Toy, alive, free_port, wait_for

from flows import uptodate
from flows.dvc.pool import Pool, warm_up
from flows.steps import Run, submit
from pipeline.core.errors import StageError


def test_a_target_and_what_it_needs_are_completed_then_cached_unless_forced(toy: Toy) -> None:
    toy.stages(a={"seconds": 0.3}, b={"needs": ["a"]}, c={"needs": ["b"]}, other={})
    first, second, forced = toy.flow("b"), toy.flow("b"), toy.flow("--force", "b")
    assert first.states() == forced.states() == {"a": "Completed", "b": "Completed"}
    assert second.states() == {"a": "Cached", "b": "Cached"}
    assert second.tasks["a"]["state"]["type"] == "COMPLETED"
    assert first.tasks["a"]["state"]["message"].startswith("ran in ")
    assert second.tasks["a"]["state"]["message"] == "nothing to do"
    assert (first.state["name"], second.state["name"]) == ("Completed", "Completed")
    for run, words in ((first, "2 ran"), (second, "2 cached")):
        assert run.output.splitlines()[-2:] == [f"Completed: {words}", f"Dashboard: {run.page}"]


def test_flow_and_repro_leave_each_other_nothing_to_do(toy: Toy) -> None:
    """Nor does a stage below one that ran to the same result, or what DVC's run cache has."""
    toy.stages(a={"value": "old"}, b={"needs": ["a"]})
    toy.run("dvc", "repro")
    assert toy.flow().states() == {"a": "Cached", "b": "Cached"}
    toy.tell("a", value="new")
    assert toy.flow().states() == {"a": "Completed", "b": "Completed"}
    assert "Running" not in toy.run("dvc", "repro")
    toy.tell("a", value="new", seconds=0.01)
    assert toy.flow().states() == {"a": "Completed", "b": "Cached"}
    toy.tell("a", value="old")
    run = toy.flow()
    assert run.states() == {"a": "Cached", "b": "Cached"}
    assert "run cache" in run.tasks["b"]["state"]["message"]
    assert (toy.root / "b.out").read_text() == "bold"


def test_a_failed_stage_tells_its_last_lines_and_stops_only_what_is_below(toy: Toy) -> None:
    toy.stages(
        a={"lines": ["all is well"], "fail": "a: error: no luck today"},
        b={"needs": ["a"]},
        c={"needs": ["b"]},
        d={},
    )
    run = toy.finish(toy.start())
    assert run.states() == {"a": "Failed", "b": "NotReady", "c": "NotReady", "d": "Completed"}
    assert run.tasks["a"]["state"]["message"].endswith("all is well\na: error: no luck today")
    assert run.tasks["a"]["run_count"] == 1  # not tried again
    assert run.state["name"] == "Failed"
    assert run.state["message"].endswith("a: a: error: no luck today")
    assert run.code == 1
    last = [f"Failed: {run.state['message']}", f"Dashboard: {run.page}"]
    assert run.output.splitlines()[-2:] == last


@pytest.mark.slow
def test_a_line_is_seen_while_its_stage_is_still_at_work(toy: Toy) -> None:
    toy.stages(a={"lines": ["half the way"], "until": ["go"]})
    flow = toy.start()
    toy.hear(flow, "half the way")
    run_id = toy.latest()
    wait_for(lambda: "a" in toy.tasks(run_id))
    wait_for(lambda: "half the way" in toy.logs(toy.tasks(run_id)["a"]["id"]))
    assert toy.tasks(run_id)["a"]["state"]["name"] == "Running"
    (toy.root / "go").touch()
    assert toy.finish(flow).states() == {"a": "Completed"}


def test_an_answer_that_nobody_waits_for_any_more_is_given_to_nobody(toy: Toy) -> None:
    toy.stages(a={"lines": ["half the way"], "until": ["never"]})

    asked: list[int] = []  # processes

    def stumble(line: str) -> None:
        if "half the way" in line:
            asked.append(os.getsid(toy.pid("a")))
            raise ValueError(line)

    with Pool(toy.root) as pool:
        with pytest.raises(ValueError, match="half the way"):
            pool.ask("reproduce", stumble, stage="a", force=False)
        wait_for(lambda: not alive(toy.pid("a")))
        # It lives on for a moment, and has the outputs locked until then.
        wait_for(lambda: not alive(*asked))
        (stage,) = pool.ask("plan", targets=[], force=False)["stages"]
        assert (stage["name"], stage["changed"]) == ("a", True)


def test_what_is_asked_for_in_vain_is_told_with_its_place(toy: Toy) -> None:
    toy.stages(a={})
    with Pool(toy.root) as pool:

        def complaint(*targets: str) -> str:
            with pytest.raises(StageError) as raised:
                pool.ask("plan", targets=list(targets), force=False)
            return str(raised.value)

        assert "'nonsuch'" in complaint("nonsuch")
        graph = (toy.root / "dvc.yaml").read_text()
        (toy.root / "dvc.yaml").write_text(graph.replace("a.json", "${a.file}"))
        assert "dvc.yaml" in complaint()
        assert "a.file" in complaint()
        (toy.root / "params.yaml").write_text("a: [")
        assert "params.yaml" in complaint()
    warm_up(toy.root)
    with (
        temporary_settings(restore_defaults={PREFECT_API_URL}),
        pytest.raises(StageError, match=r"params\.yaml"),
    ):
        uptodate.answered(toy.root, None, [], print, lambda: None)
    with Pool(toy.root):
        pass  # which ends that process
    refused = toy.finish(toy.start("nonsuch"))
    assert (refused.state["type"], refused.tasks, refused.code) == ("FAILED", {}, 1)
    assert re.search(r"^Failed: .*params\.yaml", refused.output, re.M)
    assert "Traceback" not in refused.output


@pytest.mark.slow
def test_stages_side_by_side_overlap_and_gpu_stages_do_not(toy: Toy) -> None:
    toy.stages(
        # a and b, and a and g, end only after both have begun.
        a={"until": ["b.pid", "g.pid"]}, b={"until": ["a.pid"]},
        g={"until": ["a.pid"], "seconds": 1, "tags": ["gpu"]}, h={"seconds": 1, "tags": ["gpu"]},
        last={"needs": ["a", "b", "g", "h"]},
    )  # fmt: skip
    run = toy.flow()
    assert set(run.states().values()) == {"Completed"}
    first, second = sorted((run.tasks[name] for name in "gh"), key=lambda task: task["start_time"])
    assert first["end_time"] <= second["start_time"]


# Writes what a stage would write, in no time.
STAND_IN = """
import pathlib, sys
for out in map(pathlib.Path, sys.argv[1:]):
    out.parent.mkdir(parents=True, exist_ok=True)
    if not out.suffix:  # a folder
        out.mkdir(exist_ok=True)
        out /= "file.txt"
    out.write_text('{"test": {"accuracy": 1}}')
"""


@pytest.mark.slow
def test_a_stage_added_to_the_projects_own_graph_is_in_the_next_run(toy: Toy) -> None:
    graph = yaml.safe_load((PROJECT / "dvc.yaml").read_text())
    for stage in (entry.get("do", entry) for entry in graph["stages"].values()):
        outs = [out for kind in ("outs", "metrics", "plots") for out in stage.get(kind, [])]
        names = [next(iter(out)) if isinstance(out, dict) else out for out in outs]
        stage["cmd"] = " ".join(["python stand_in.py", *names])
    (toy.root / "stand_in.py").write_text(STAND_IN)
    (toy.root / "data").mkdir(exist_ok=True)
    for folder in ("pipeline", "plugins", "corrections", "map", "data/weights"):
        (toy.root / folder).symlink_to(PROJECT / folder)
    # Without .dvcignore the bytecode that another test compiles meanwhile would change ingest.
    for file in (".dvcignore", "params.yaml", "data/raw/surfaces.csv"):
        (toy.root / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / file, toy.root / file)
    (toy.root / "dvc.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
    first = toy.flow()
    stages = [name for name, entry in graph["stages"].items() if "foreach" not in entry]
    assert first.states() == dict.fromkeys(stages, "Completed")

    graph["stages"]["added"] = {
        "cmd": "python stand_in.py added.txt",
        "deps": ["reports/metrics.json", "data/plan.parquet"],
        "outs": ["added.txt"],
    }
    (toy.root / "dvc.yaml").write_text(yaml.safe_dump(graph, sort_keys=False))
    run = toy.flow()
    assert run.states() == {**dict.fromkeys(stages, "Cached"), "added": "Completed"}
    above = {one["id"] for one in run.tasks["added"]["task_inputs"]["wait_for"]}
    assert above == {run.tasks[name]["id"] for name in ("augment", "evaluate")}


@pytest.mark.slow
def test_a_stage_for_each_item_of_a_list_is_in_the_run_while_there_are_items(toy: Toy) -> None:
    toy.stages(a={}, extra={"needs": ["a"]})
    declared = yaml.safe_load((toy.root / "dvc.yaml").read_text())
    extra = declared["stages"].pop("extra")
    declared["stages"]["extra"] = {"foreach": "${extra.run}", "do": extra}
    (toy.root / "dvc.yaml").write_text(yaml.safe_dump(declared))
    (toy.root / "params.yaml").write_text("extra: {run: []}")
    assert toy.flow().states() == {"a": "Completed"}
    (toy.root / "params.yaml").write_text("extra: {run: [asked]}")
    assert toy.flow().states() == {"a": "Cached", "extra@asked": "Completed"}
    assert toy.flow("extra@asked").states() == {"a": "Cached", "extra@asked": "Cached"}


@pytest.mark.slow
def test_a_stage_whose_output_another_reads_is_tried_again(toy: Toy) -> None:
    toy.stages(a={})
    # DVC's own note of a reader (this test's process) of an output: who writes it has to wait.
    note = toy.root / ".dvc" / "tmp" / "rwlock"
    reader = {"pid": os.getpid(), "cmd": "dvc push"}
    note.write_text(json.dumps({"read": {str(toy.root / "a.out"): [reader]}}))
    flow = toy.begin()
    seen = flow.hear("Retry 1/")
    free = note.with_suffix(".free")
    free.write_text("{}")
    free.replace(note)  # whole at every moment
    run = flow.finish()
    assert "is busy" in seen
    assert run.states() == {"a": "Completed"}
    assert run.tasks["a"]["run_count"] > 1


@pytest.mark.slow
def test_a_lock_held_by_another_is_waited_for_at_the_start_too(toy: Toy) -> None:
    toy.stages(a={})
    lock = zc.lockfile.LockFile(str(toy.root / ".dvc" / "tmp" / "rwlock.lock"))
    flow = toy.begin()
    seen = flow.hear("trying again")
    lock.close()
    assert "Unable to acquire lock" in seen
    assert flow.finish().states() == {"a": "Completed"}


class Store(BaseHTTPRequestHandler):
    """A DVC remote that keeps what it is sent."""

    kept: ClassVar[dict[str, bytes]] = {}

    def do_POST(self) -> None:
        content = b""
        while size := int(self.rfile.readline(), base=16):  # it comes in chunks
            content += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        self.kept[self.path] = content
        self.send_response(201)
        self.end_headers()

    def do_HEAD(self) -> None:
        self.send_response(200 if self.path in self.kept else 404)
        self.end_headers()


@pytest.mark.slow
def test_a_remote_that_does_not_answer_is_tried_again(toy: Toy) -> None:
    toy.stages(a={})
    port = free_port()
    toy.run("dvc", "remote", "add", "--default", "away", f"http://127.0.0.1:{port}")
    flow = toy.begin("--push")
    seen = flow.hear("Retry 1/")
    with HTTPServer(("127.0.0.1", port), Store) as store:
        Thread(target=store.serve_forever, daemon=True).start()
        run = flow.finish()
        store.shutdown()
    assert "'push'" in seen
    assert run.states() == {"a": "Completed", "push": "Completed"}
    assert len(Store.kept) == 1


@pytest.mark.slow
def test_push_and_pull_carry_results_to_another_working_copy(toy: Toy, tmp_path: Path) -> None:
    toy.stages(a={}, b={"needs": ["a"]})
    toy.run("dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    assert toy.flow("--push").states()["push"] == "Completed"
    shutil.rmtree(toy.root / ".dvc" / "cache")
    (toy.root / "a.out").unlink()
    (toy.root / "b.out").unlink()
    assert toy.flow("--pull").states() == {"pull": "Completed", "a": "Cached", "b": "Cached"}


def test_prefect_does_not_look_into_what_other_steps_write(server: str, tmp_path: Path) -> None:
    class Written(dict[str, str]):
        def items(self) -> Any:
            raise RuntimeError("dictionary changed size during iteration")

    pool: Any = None  # not asked
    plan: dict[str, Any] = {"a": {"changed": False, "upstream": [], "tags": []}}
    run = Run(tmp_path, pool, force=False, plan=plan, outcomes=Written())

    @flow
    def steps() -> None:
        submit(run, "a", "reproduce", []).wait()

    steps()
    assert run.outcomes["a"] == "unchanged"


def test_a_stage_leaves_the_first_process_to_one_with_more_stages_below(tmp_path: Path) -> None:
    above = {"extract": [], "checks": ["extract"], "train": ["extract"], "evaluate": ["train"]}
    above["report"] = ["evaluate", "checks"]
    plan = {name: {"changed": True, "upstream": ups} for name, ups in above.items()}
    pool: Any = None  # not asked
    run = Run(tmp_path, pool, force=False, plan=plan, outcomes={"extract": "ran"})
    assert [name for name in ("checks", "train") if run.stands_aside(name)] == ["checks"]
    run.outcomes["extract"], plan["train"]["changed"] = "unchanged", False
    assert not run.stands_aside("checks")
    run.outcomes["extract"], run.outcomes["train"] = "ran", "ran"
    assert not run.stands_aside("evaluate")

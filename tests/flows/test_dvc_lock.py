"""A dvc.lock is as DVC writes it, though less is read, and is made again if a kill has cut it."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dvc.dvcfile
import dvc.output
import pytest
from dvc.repo import Repo
from dvc.scm import Git
from dvc.utils.serialize import _yaml
from toys import Toy

from flows.dvc.once import look_once, parse_once

SHARED = ["a", "b: c", "- d"]  # DVC takes it from params.yaml for each stage that declares it
ENTRIES: list[dict[str, Any]] = [
    {"cmd": "a", "params": [1e-7, 0.1, 1e20, -0.0, True, None, "yes", "1e5", "", "two\nlines\n"]},
    {"cmd": "b", "params": {"shared": SHARED, "none": [], "empty": {}, "long": "a b " * 50}},
    {"cmd": "c", "params": {"shared": SHARED, "hexadecimal": "0x1", "large": 10**20}},
]


@pytest.fixture(scope="module")
def ran(
    tmp_path_factory: pytest.TempPathFactory, server: str, password: str, dvc_template: Path
) -> Iterator[tuple[Toy, bytes]]:
    """A pipeline that ran, and its dvc.lock; each test leaves it as it was."""
    root = tmp_path_factory.mktemp("lock") / "toy"
    with Toy(root, server, dvc_template, password) as toy:
        toy.stages(a={}, b={"needs": ["a"]})
        assert toy.flow().states() == {"a": "Completed", "b": "Completed"}
        yield toy, (toy.root / "dvc.lock").read_bytes()


@pytest.mark.parametrize("left", [0.0, 0.05, 0.5, 0.8])
def test_a_lock_file_that_was_cut_is_made_again_from_the_run_cache(
    ran: tuple[Toy, bytes], left: float
) -> None:
    toy, whole = ran
    file = toy.root / "dvc.lock"
    file.write_bytes(whole[: int(len(whole) * left)])
    (toy.root / "b.out").write_text("half")
    run = toy.flow()
    assert run.state["type"] == "COMPLETED", run.output
    assert set(run.states().values()) == {"Cached"}
    assert file.read_bytes() == whole
    assert (toy.root / "b.out").read_text() == "ba"


@pytest.mark.parametrize(
    ("indent", "comment", "parsings"), [(2, "", 0), (2, " # kept", 2), (4, "", 1)]
)
def test_a_lock_file_that_is_parsed_once_has_the_bytes_that_dvc_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, indent: int, comment: str, parsings: int
) -> None:
    parsed: list[Path] = []
    parse = _yaml.parse_yaml_for_update

    def counted(text: str, path: str) -> Any:
        parsed.append(Path(path).parent)
        return parse(text, path)

    monkeypatch.setattr(_yaml, "parse_yaml_for_update", counted)
    written: dict[str, list[str]] = {}
    for name, once in (("dvc", contextlib.nullcontext()), ("once", parse_once())):
        file = tmp_path / name / "dvc.lock"
        file.parent.mkdir()
        file.write_text(f"schema: '2.0'\nstages:\n{' ' * indent}old: {{cmd: x}}{comment}\n")
        texts = written[name] = []
        with once:
            for turn in range(13):
                if turn == 10:  # somebody else writes it
                    file.write_text(file.read_text().replace("cmd: x", "cmd: y"))
                with dvc.dvcfile.modify_yaml(str(file)) as data:
                    data["stages"].update({f"stage_{turn % 4}": ENTRIES[turn % 3]})
                texts.append(file.read_text())
    assert written["once"] == written["dvc"]
    assert f"cmd: y}}{comment}" in written["once"][-1]
    assert [folder.name for folder in parsed] == ["dvc"] * 13 + ["once"] * parsings


STAGES = """stages:
  a: {cmd: cat in/* > a.out, deps: [in], outs: [a.out]}
  b: {cmd: cp a.out b.out; date >> in/ran, deps: [in, a.out], outs: [b.out]}
"""


def test_a_stage_sees_each_change_though_digests_are_built_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[str] = []
    build = dvc.output.build

    def counted(odb: Any, path: str, *arguments: Any, **options: Any) -> Any:
        built.append(path)
        return build(odb, path, *arguments, **options)

    monkeypatch.setattr(dvc.output, "build", counted)
    counts = {}
    for name, once in (("dvc", contextlib.nullcontext()), ("once", look_once())):
        built.clear()
        root = tmp_path / name
        (root / "in").mkdir(parents=True)
        (root / "dvc.yaml").write_text(STAGES.replace("; date >> in/ran", ""))
        monkeypatch.chdir(root)
        Git.init(str(root)).close()
        Repo.init().close()
        with once:
            for text in ("one", "two", "one"):  # of one size; the third is in the run cache
                (root / "in" / "file").write_text(text)
                assert len(Repo().reproduce()) == 2
                assert (root / "b.out").read_text() == text
                assert not Repo().reproduce()
            (root / "dvc.yaml").write_text(STAGES)  # a stage that changes its input
            assert [stage.name for stage in Repo().reproduce()] == ["b"]
            assert [stage.name for stage in Repo().reproduce()] == ["a", "b"]
            tracked, git = [], Repo().scm
            for _ in range(2):
                tracked.append([git.is_tracked(f"{root}/{of}") for of in ("in", "in/f", "inn")])
                git.add("in/file")
            assert tracked == [[False] * 3, [True, False, False]]
        counts[name] = len(built)
    assert 3 * counts["once"] < counts["dvc"]

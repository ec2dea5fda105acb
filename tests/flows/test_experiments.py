"""`dvc exp run` on top: an experiment shares the feature store, wherever it is made."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import begin_store
from tests.test_repro import Repository

AS_SOMEBODY = ("git", "-c", "user.name=t", "-c", "user.email=t@t")


@pytest.mark.slow
def test_an_experiment_in_a_folder_of_its_own_shares_the_features(
    draw_shapes: Callable[..., None],
    tmp_path: Path,
    exported: Path,
    dvc_template: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HEADSTART_STORE", str(begin_store(tmp_path, exported)))
    repository = Repository(tmp_path / "repository", dvc_template)
    draw_shapes(range(24), repository.folder)
    repository.set(**{"ingest.source": "folder", "ingest.path": "data/raw/shapes"})
    repository.set(**{"augment.views": 1, "augment.hflip": 0.0})

    def extracted(*command: str) -> tuple[int, int]:
        told = re.search(r"(\d+) reused, (\d+) computed", repository.run(*command, "extract"))
        assert told
        return int(told[1]), int(told[2])

    reused, computed = extracted("dvc", "repro")
    assert (reused, computed > 24) == (0, True)
    repository.run("git", "add", "-A")
    repository.run(*AS_SOMEBODY, "commit", "-qm", "as it is")

    views = computed - 24  # of training pictures, all turned by the experiment
    turned = ("--name", "turned", "-S", "augment.hflip=1.0")
    assert extracted("dvc", "exp", "run", "--temp", *turned) == (24, views)
    assert repository.repro("extract") == []  # this folder is as it was

    shown = json.loads(repository.run("dvc", "exp", "show", "--json"))
    (of_head,) = (rev["experiments"] for rev in shown if rev["rev"] != "workspace")
    assert [one["name"] for one in of_head] == ["turned"]
    repository.set(**{"augment.hflip": 1.0})
    # Not from DVC's run cache, which the experiment filled too.
    assert extracted("dvc", "repro", "--no-run-cache") == (24 + views, 0)

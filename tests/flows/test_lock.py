"""A dvc.lock that was cut by a kill, as DVC writes it in place."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from toys import Toy


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

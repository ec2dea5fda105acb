"""A dvc.lock that was cut by a kill, as DVC writes it in place."""

import pytest
from toys import Toy


@pytest.mark.parametrize("left", [0.0, 0.05, 0.5, 0.8])
def test_a_lock_file_that_was_cut_is_made_again_from_the_run_cache(toy: Toy, left: float) -> None:
    toy.stages(a={}, b={"needs": ["a"]})
    assert toy.flow().states() == {"a": "Completed", "b": "Completed"}
    file = toy.root / "dvc.lock"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * left)])
    (toy.root / "b.out").write_text("half")
    run = toy.flow()
    assert run.state["type"] == "COMPLETED", run.output
    assert set(run.states().values()) == {"Cached"}
    assert file.read_bytes() == whole
    assert (toy.root / "b.out").read_text() == "ba"

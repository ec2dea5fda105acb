"""What all benchmarks stand on: their command line, their page, and what they say of costs."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import harness
from benchmarks.harness import ROOT, Cost, in_turns, ratios, run, spread, table


def test_a_table_has_its_figures_in_the_form_that_its_columns_ask_for() -> None:
    rows = [("first", 1234.5, None), ("second", 7, "none")]
    assert table("| seconds {:,.1f} | peak {:.0f} MB", rows).splitlines() == [
        "|  | seconds | peak |",
        "| --- | --- | --- |",
        "| first | 1,234.5 | – |",
        "| second | 7.0 | none |",
    ]


def test_a_page_tells_how_it_was_made_and_keeps_what_people_wrote(tmp_path: Path) -> None:
    def measure(scratch: Path, folder: Path, rounds: int = 3) -> str:
        assert list(scratch.iterdir()) == []
        return f"# Title\n\n{folder.name}, {rounds} rounds\n"

    module = ModuleType("benchmarks.toy")
    module.__file__ = str(tmp_path / "toy.py")
    module.measure = measure  # type: ignore[attr-defined]
    page = tmp_path / "toy.md"
    page.write_text(f"# Title\n\nof before\n\n{harness.BY_HAND}\nFor people.\n")
    harness.main(module, ["pictures", "--rounds", "2"])
    title, _, made, _, text, *rest = page.read_text().splitlines()
    assert (title, text) == ("# Title", "pictures, 2 rounds")
    assert made.startswith("Made by `python -m benchmarks toy pictures --rounds 2` at commit ")
    assert f"Python {sys.version.split()[0]}" in made
    assert rest == ["", harness.BY_HAND.strip(), "", "For people."]


def test_the_cost_of_a_command_is_its_own() -> None:
    held = bytearray(300_000_000)  # counts for a process started right out of this one
    script = "import sys; x = bytearray(100_000_000); print('out'); print('err', file=sys.stderr)"
    took = run(sys.executable, "-c", script)
    assert len(held) == 300_000_000
    assert 95 < took.peak < 200
    assert took.cpu > 0
    assert took.gave.splitlines() == ["out", "err"]
    with pytest.raises(SystemExit, match="failed"):
        run(sys.executable, "-c", "raise SystemExit(3)")


def test_works_take_turns_and_a_command_tells_its_own_cost() -> None:
    order: list[str] = []

    def command() -> Cost:
        order.append("b")
        return Cost(1.5, 1.0, 10.0, "")

    costs = in_turns(2, {"a": lambda: order.append("a"), "b": command})
    assert order == ["a", "b", "a", "b"]
    assert [cost.wall for cost in costs["b"]] == [1.5, 1.5]
    assert spread([3.0, 1.0, 2.0]) == "2.00 (1.00–3.00)"
    assert spread(ratios([2.0, 9.0], [1.0, 3.0]), "{:.1f}") == "2.5 (2.0–3.0)"


def test_every_benchmark_has_a_page_beside_it_and_can_be_asked_for() -> None:
    parts = ("__main__.py", "harness.py", "adapt_domains.py")  # of others
    files = [f for f in (ROOT / "benchmarks").glob("*.py") if f.name not in parts]
    drivers = (ROOT / "tests" / "faults").glob("*.py")
    files += [file for file in drivers if not file.name.startswith("test_")]
    assert files
    for file in files:
        assert file.with_suffix(".md").exists(), file
        assert "\ndef measure(" in file.read_text(), file

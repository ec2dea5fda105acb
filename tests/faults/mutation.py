"""How many small mistakes in the modules that carry the promises do the tests notice?

mutmut changes one thing at a time in what makes the splits, the plan, the manifest and the store's
key (a number, a comparison, an argument, a text), and runs the tests of that module: a mutant that
no test fails for survives. It works on a copy, in an environment of its own that sees the
project's packages. Constants outside of functions are not changed. Hypothesis draws the same
examples each time, and a test has no deadline but mutmut's (30 s and 15 times what it took).

cosmic-ray in its stead changes operators, numbers and loops but no argument and no text, of which
kinds most survivors of the page are, and mutates the files of the tree itself. On `splits.py` it
took 158 processor seconds for 54 mutants (3 survived) where mutmut takes 17 for 38 (2 survive), as
it starts pytest again for each; so mutmut stays, and this only chooses what it does and reports.

    python -m benchmarks tests.faults.mutation [--again 1] [--of splits,augment,ingest,key]

What was found is kept in mutation.json beside the page; those not named keep what the last run
found. With `--again` only those that survived are tried once more, against tests written since;
the module must be as it was. About an hour on one core; pip has to reach a package registry.
"""

import json
import os
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import copy_tree, run, table

MUTMUT = "mutmut==3.8.1"


class Target(NamedTuple):
    """What is mutated, and the tests that should notice."""

    promise: str
    files: tuple[str, ...]
    tests: tuple[str, ...]
    mutants: tuple[str, ...] = ()  # patterns of their names; all of the files if there is none


TARGETS = {
    "splits": Target(
        "split",
        ("tables/draw", "tables/labels"),
        ("tests/sources/test_splits.py",),
        ("pipeline.tables.draw.x_draw__*", "pipeline.tables.labels.x_missing__*"),
    ),
    "augment": Target(
        "plan",
        ("augment", "kinds/image/plan", "kinds/image/contact_sheet"),
        ("tests/test_augment.py",),
    ),
    "ingest": Target(
        "manifest",
        ("ingest", "sources/checked", "sources/splits"),
        ("tests/test_ingest.py",),
        ("pipeline.ingest.*", "pipeline.sources.checked.*", "pipeline.sources.splits.x_split__*",
         "pipeline.sources.splits.x_fate_of_splits__*"),
    ),
    "key": Target(
        "store key",
        ("runners/keys", "kinds/image/__init__", "runners/wanted", "backbones/exports",
         "backbones/catalogue"),
        ("tests/store/test_keys.py", "tests/store/test_store.py", "-k", "key"),
        ("pipeline.runners.keys.x_view_key__*", "pipeline.kinds.image.*pack_view__*",
         "pipeline.runners.wanted.x_every_view__*", "pipeline.backbones.exports.x_file_of__*",
         "pipeline.backbones.catalogue.x__fingerprint__*"),
    ),
}  # fmt: skip

# They start a process in another folder, where mutmut does not find its notes.
NOT_RUN = (
    "tests/test_ingest.py::test_no_damaged_picture_is_lost",
    "tests/store/test_keys.py::"
    "test_an_export_of_code_with_another_version_of_onnx_is_not_taken_for_one_of_this",
)

STOPPED = ("timeout", "segfault")  # ends of a mutant that never comes to an end, or eats all memory

# Why a mutant survives: a pattern of `function: the line as it was changed`, and a sentence.
WHY: dict[str, str] = {
    r"from_bytes\(.*, \)": "the same: big-endian is Python's default",
    r"<= (reached|settings)": "a draw falls on the bound itself once in 2^64",
    r"to_parquet\(.*(, \)|index=None)": "the same columns; pandas' note on the index differs",
    r"mkdir\(": "the folder's parent is the project, which is there",
    r"itertuples\(index=(None|False, \))": "None is false, and rows with names hold the same",
    r"itertuples\(index=True\)": "the columns are read by their names",
    r"default=|max\(\(len\(rows\)": "never reached: without views there are no rows to take it of",
    r'"WHITE"|"BLACK"|"UTF-8"': "the same: such names are read in any case",
    r"font ?= ?None|truetype\(|textlength|fitted\(words, pen": "which font or size; not asserted",
    r"corner\[1\] \+ TILE|caption =|below =": "where the caption stands, to a pixel; not asserted",
    r"fill=None|font=font\)$": "Pillow's own default is as dark",
    r"sheet.save": "another compression of the same pixels",
    r"ignore_index=|concat\(.*, \)|sort_values\(.path., \)": "the index is made again, or not kept",
    r"on=None|merge\(manifest": "the same: digest is the one column in both",
    r"strict=|zip\(.*, \)": "the two are of one length by how they are made",
    r">i32s": "the same bytes, as long as VIEW_CODE is below 2^31",
    r"_store(: Store \| None)? = \"\"": "the same: it is only asked whether it is true",
    r"workers|_chunks\(|ThreadPoolExecutor|islice": "how much is done at a time: memory and speed",
    r"Progress\(": "the words of the progress line beside those asserted",
    r"encoding=None|open\(.w., errors": "the same where the locale is UTF-8",
    r"newline=None|backslashreplace., \)": "the same on Linux: the csv module writes line ends",
    r"XX, XX": "the same: at most one label is joined",
    r"while words and .*>= TILE": "no caption is exactly that wide",
}


def prepare(folder: Path, target: Target) -> None:
    """A copy of the project as it is, with mutmut's settings for `target`."""
    copy_tree(folder, "docs")
    settings = {
        "source_paths": ["pipeline"],
        "only_mutate": [f"pipeline/{name}.py" for name in target.files],
        "also_copy": [
            "benchmarks",
            "data",
            "flows",
            "headstart",
            "plugins",
            "params.yaml",
            "dvc.yaml",
        ],
        "pytest_add_cli_args": [
            *("-p", "no:cacheprovider", "--hypothesis-profile=ci"),
            *(f"--deselect={name}" for name in NOT_RUN),
        ],
        "pytest_add_cli_args_test_selection": list(target.tests),
        "timeout_constant": ["30"],
    }
    lines = [f"{key}=\n" + textwrap.indent("\n".join(v), "    ") for key, v in settings.items()]
    text = "\n".join(["[mutmut]", *lines]).replace("timeout_constant=\n    ", "timeout_constant=")
    (folder / "setup.cfg").write_text(text + "\n")


def environment(folder: Path) -> Path:
    """An environment that holds mutmut and sees the project's packages; its `mutmut`."""
    run(sys.executable, "-m", "venv", folder)
    run(folder / "bin/python", "-m", "pip", "install", "--quiet", MUTMUT)
    (site,) = folder.glob("lib/python3*/site-packages")
    # A line of a .pth file is a folder to look in; what the .pth files in that say is not read,
    # so the project itself is the copy and not this one.
    (own,) = Path(sys.prefix).glob("lib/python3*/site-packages")
    (site / "project.pth").write_text(f"{own}\n")
    return folder / "bin/mutmut"


def mutated(mutmut: Path, target: Target, folder: Path, names: list[str]) -> dict[str, Any]:
    """How many mutants came to which end, and those not killed: name, function, line, end.

    `names` are those to try; all of the target if there is none.
    """
    prepare(folder, target)
    # The package that is mutated must be the copy's.
    asked = {"PATH": f"{mutmut.parent}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": ""}

    def called(*command: str) -> str:
        return run(mutmut, *command, folder=folder, **asked).gave

    called("run", "--max-children", "1", *(names or target.mutants))
    ends = dict(re.findall(r"^\s+(\S+): (.+)$", called("results", "--all", "true"), re.M))
    ends = {name: end for name, end in ends.items() if end != "not checked"}
    survivors = []
    for name in (name for name, end in ends.items() if end != "killed"):
        difference = called("show", name)
        changed = [line[1:].strip() for line in difference.splitlines()[3:] if line[:1] == "+"]
        function = name.rpartition("__mutmut_")[0].removeprefix("pipeline.")
        function = re.sub(r"x(_|ǁ)", "", function).replace("ǁ", ".")
        survivors.append([name, function, " ".join(changed), ends[name]])
    return {"ends": Counter(ends.values()), "survivors": survivors}


def why(function: str, line: str) -> str:
    """The sentence on a survivor."""
    for pattern, sentence in WHY.items():
        if re.search(pattern, f"{function}: {line}"):
            return sentence
    return "**not looked at yet**"


def scores(results: dict[str, dict[str, Any]]) -> Iterator[tuple[object, ...]]:
    """A row for each promise."""
    for name, target in TARGETS.items():
        if name in results:
            ends = Counter(results[name]["ends"])
            stopped = sum(ends[end] for end in STOPPED)
            noticed, of = ends["killed"] + stopped, ends.total()
            modules = ", ".join(f"`{file}.py`" for file in target.files)
            yield (target.promise, modules, of, ends["killed"], stopped, of - noticed, noticed / of)


def survivors(results: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A heading and a table for each promise that some survive of."""
    for name, target in TARGETS.items():
        rows = [
            (function, f"`{line}`".replace("|", "\\|"), why(function, line))
            for _, function, line, end in results.get(name, {}).get("survivors", [])
            if end not in STOPPED
        ]
        if rows:
            columns = "in | the line as it was changed | why no test fails"
            yield f"\n## Survivors: {target.promise}\n\n{table(columns, rows)}\n"


def measure(scratch: Path, page: Path, again: bool = False, of: str = "") -> str:
    kept = page.with_suffix(".json")
    results = json.loads(kept.read_text()) if kept.exists() else {}
    mutmut = environment(scratch / "environment")
    for asked in of.split(",") if of else TARGETS:
        names = [one[0] for one in results[asked]["survivors"]] if again else []
        found = mutated(mutmut, TARGETS[asked], scratch / asked, names)
        if again:  # those killed before count as they did
            found["ends"] += Counter(killed=results[asked]["ends"]["killed"])
        results[asked] = found
        print(asked, dict(found["ends"]), flush=True)
        kept.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    columns = "promise | modules | mutants | killed | hung or died | survived | score {:.1%}"
    return f"""# Small mistakes that the tests notice

{table(columns, scores(results))}

The score is what was noticed of all mutants, those counted that change nothing that
anybody could see.
{"".join(survivors(results))}"""

"""How many small mistakes in the modules that carry the promises do the tests notice?

mutmut changes one thing at a time in what makes the splits, the plan, the manifest and the store's
key (a number, a comparison, an argument, a text), and runs the tests of that module: a mutant that
no test fails for survives. It works on a copy, in an environment of its own that sees the
project's packages. Constants outside of functions are not changed. Hypothesis draws the same
examples each time, and a test has no deadline but mutmut's (30 s and 15 times what it took).

    python benchmarks/mutation.py [again] [splits|augment|ingest|key ...]

writes benchmarks/mutation.md, where those not named keep what the last run found, and
benchmarks/mutation.json. With `again` only those that survived are tried once more, against tests
written since; the module must be as it was. About an hour on one core; pip has to reach a package
registry.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PROJECT = Path(__file__).resolve().parent.parent
MUTMUT = "mutmut==3.8.1"
PAGE = PROJECT / "benchmarks/mutation.md"
RESULTS = PROJECT / "benchmarks/mutation.json"


class Target(NamedTuple):
    """What is mutated, and the tests that should notice."""

    promise: str
    files: tuple[str, ...]
    tests: tuple[str, ...]
    mutants: tuple[str, ...] = ()  # patterns of their names; all of the files if there is none


TARGETS = {
    "splits": Target("split", ("splits",), ("tests/test_splits.py",)),
    "augment": Target("plan", ("augment",), ("tests/test_augment.py",)),
    "ingest": Target("manifest", ("ingest",), ("tests/test_ingest.py",)),
    "key": Target(
        "store key",
        ("store", "extract", "exports", "backbones"),
        ("tests/test_keys.py", "tests/test_store.py", "-k", "key"),
        ("pipeline.store.local.x_view_key__*", "pipeline.extract.x_every_view__*",
         "pipeline.backbones.exports.x_file_of__*", "pipeline.backbones.catalogue.x__fingerprint__*"),
    ),
}  # fmt: skip

# It starts a stage in another folder, where mutmut does not find its notes.
NOT_RUN = "tests/test_ingest.py::test_no_damaged_picture_is_lost"

STOPPED = ("timeout", "segfault")  # ends of a mutant that never comes to an end, or eats all memory

# Why a mutant survives: a pattern of `function: the line as it was changed`, and a sentence.
WHY: dict[str, str] = {
    r"from_bytes\(.*, \)": "the same: big-endian is Python's default",
    r"<= (reached|settings)": "a draw falls on the bound itself once in 2^64",
    r"to_parquet\(.*(, \)|index=None)": "the same columns; pandas' note on the index differs",
    r"mkdir\(": "the folder's parent is the project, which is there",
    r"itertuples\(index=None\)": "the same: None is false",
    r"itertuples\(index=True\)": "the columns are read by their names",
    r"default=|max\(\(len\(rows\)": "never reached: without views there are no rows to take it of",
    r'"WHITE"|"BLACK"|"UTF-8"': "the same: such names are read in any case",
    r"font ?= ?None|truetype\(|textlength|_fitted\(words, pen": "which font or size; not asserted",
    r"corner\[1\] \+ TILE|caption =|below =": "where the caption stands, to a pixel; not asserted",
    r"fill=None|font=font\)$": "Pillow's own default is as dark",
    r"sheet.save": "another compression of the same pixels",
    r"ignore_index=|concat\(.*, \)|sort_values\(.path., \)": "the index is made anew, or not kept",
    r"on=None|merge\(manifest": "the same: digest is the one column in both",
    r"strict=|zip\(.*, \)": "the two are of one length by how they are made",
    r">i32s": "the same bytes, as long as VIEW_CODE is below 2^31",
    r"_store(: FeatureStore \| None)? = \"\"": "the same: it is only asked whether it is true",
    r"workers|_chunks\(|ThreadPoolExecutor|islice": "how much is done at a time: memory and speed",
    r"FeatureStore\(store.default_folder\(\), None": "the limit of the store; only that it is read",
    r"Progress\(": "the words of the progress line beside those asserted",
    r"encoding=None|open\(.w., errors": "the same where the locale is UTF-8",
    r"newline=None|backslashreplace., \)": "the same on Linux: the csv module writes line ends",
    r"XX, XX": "the same: at most one label is joined",
    r"while words and .*>= TILE": "no caption is exactly that wide",
}


def prepare(folder: Path, target: Target) -> None:
    """A copy of the project as it is, with mutmut's settings for `target`."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--",
         "pipeline", "flows", "tests", "benchmarks", "data/raw", "*.yaml", "pyproject.toml"],
        cwd=PROJECT, check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    for name in filter(lambda name: (PROJECT / name).is_file(), names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, folder / name)
    settings = {
        "source_paths": ["pipeline"],
        "only_mutate": [f"pipeline/{name}.py" for name in target.files],
        "also_copy": ["benchmarks", "data", "flows", "params.yaml", "dvc.yaml"],
        "pytest_add_cli_args": [
            *("-p", "no:cacheprovider", "--hypothesis-profile=ci", f"--deselect={NOT_RUN}"),
        ],
        "pytest_add_cli_args_test_selection": list(target.tests),
        "timeout_constant": ["30"],
    }
    lines = [f"{key}=\n" + textwrap.indent("\n".join(v), "    ") for key, v in settings.items()]
    text = "\n".join(["[mutmut]", *lines]).replace("timeout_constant=\n    ", "timeout_constant=")
    (folder / "setup.cfg").write_text(text + "\n")


def environment(folder: Path) -> Path:
    """An environment that holds mutmut and sees the project's packages; its `mutmut`."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, MUTMUT], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    # A line of a .pth file is a folder to look in; what the .pth files in that say is not read,
    # so the project itself is the copy and not this one.
    (own,) = Path(sys.prefix).glob("lib/python3*/site-packages")
    (site / "project.pth").write_text(f"{own}\n")
    return folder / "bin/mutmut"


def run(mutmut: Path, target: Target, folder: Path, names: list[str]) -> dict[str, object]:
    """How many mutants came to which end, and those not killed: name, function, line, end.

    `names` are those to try; all of the target if there is none.
    """
    prepare(folder, target)
    path = f"{mutmut.parent}{os.pathsep}{os.environ['PATH']}"
    asked = {"cwd": folder, "env": os.environ | {"PATH": path}, "text": True}
    command = [mutmut, "run", "--max-children", "1", *(names or target.mutants)]
    with (folder / "log").open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, **asked)
    if done.returncode:
        sys.exit((folder / "log").read_text()[-3000:])
    shown = subprocess.run(
        [mutmut, "results", "--all", "true"], capture_output=True, check=True, **asked
    ).stdout
    ends = dict(re.findall(r"^\s+(\S+): (.+)$", shown, re.M))
    ends = {name: end for name, end in ends.items() if end != "not checked"}
    survivors = []
    for name in (name for name, end in ends.items() if end != "killed"):
        difference = subprocess.run(
            [mutmut, "show", name], capture_output=True, check=True, **asked
        ).stdout
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


def page(results: dict[str, dict]) -> Iterator[str]:
    yield "# Small mistakes that the tests notice"
    yield ""
    yield "Written by `benchmarks/mutation.py`, which says what is done."
    yield ""
    yield "| promise | modules | mutants | killed | hung or died | survived | score |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for name, target in TARGETS.items():
        if name not in results:
            continue
        ends = Counter(results[name]["ends"])
        stopped = sum(ends[end] for end in STOPPED)
        noticed = ends["killed"] + stopped
        modules = ", ".join(f"`{file}.py`" for file in target.files)
        yield (
            f"| {target.promise} | {modules} | {ends.total()} | {ends['killed']} |"
            f" {stopped} | {ends.total() - noticed} | {noticed / ends.total():.1%} |"
        )
    yield ""
    yield "The score is what was noticed of all mutants, those counted that change nothing that"
    yield "anybody could see."
    for name, target in TARGETS.items():
        survivors = [
            one for one in results.get(name, {}).get("survivors", []) if one[3] not in STOPPED
        ]
        if not survivors:
            continue
        yield ""
        yield f"## Survivors: {target.promise}"
        yield ""
        yield "| in | the line as it was changed | why no test fails |"
        yield "| --- | --- | --- |"
        for _, function, line, _ in survivors:
            shown = line.replace("|", "\\|")
            yield f"| {function} | `{shown}` | {why(function, line)} |"


def main() -> None:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    again = "again" in sys.argv
    with tempfile.TemporaryDirectory() as name:
        mutmut = environment(Path(name) / "environment")
        for asked in [word for word in sys.argv[1:] if word != "again"] or TARGETS:
            names = [one[0] for one in results[asked]["survivors"]] if again else []
            found = run(mutmut, TARGETS[asked], Path(name) / asked, names)
            if again:  # those killed before count as they did
                found["ends"] += Counter(killed=results[asked]["ends"]["killed"])
            results[asked] = found
            print(asked, dict(results[asked]["ends"]), flush=True)
            RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text("\n".join(page(results)) + "\n")


if __name__ == "__main__":
    main()

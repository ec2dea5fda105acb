"""Peak memory of every stage, with 1,000 and with 20,000 pictures.

Each picture is a 500×375 JPEG; those beyond the first thousand repeat the pixels of one of them
under other bytes, so that each is decoded and computed.
"""

from pathlib import Path

from benchmarks.harness import Project, draw, multiply, table

STAGES = ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle", "report")


def peaks(folder: Path, pictures: Path) -> list[float]:
    """Megabytes that each stage held at most, with a cold store."""
    exported = folder.parent / "backbones"  # the same for all
    project = Project(folder, pictures, exported, augment={"views": 1})
    return [cost.peak for cost in project.stages(*STAGES).values()]


def measure(scratch: Path, few: int = 1_000, many: int = 20_000) -> str:
    pictures = scratch / "pictures"
    draw(pictures, range(few))
    peaks(scratch / "warm", pictures)  # exports the backbone, which takes more than using it
    with_few = peaks(scratch / "few", pictures)
    multiply(pictures, many // few)
    with_many = peaks(scratch / "many", pictures)
    rows = [(stage, a, b, b / a) for stage, a, b in zip(STAGES, with_few, with_many, strict=True)]
    columns = f"stage | {few:,} pictures {{:.0f}} | {many:,} pictures {{:.0f}} | ratio {{:.2f}}"
    return f"""# Peak memory with {few:,} and with {many:,} pictures, one augmented view each

Megabytes of the stage's process.

{table(columns, rows)}
"""

"""Where the stages leave their files, from the project's root; `dvc.yaml` names the same."""

from pathlib import Path

PARAMS = Path("params.yaml")

MANIFEST = Path("data/manifest.parquet")
REFUSED = Path("data/refused.csv")
PICTURES = Path("data/pictures")  # pictures that ingest itself makes (surfaces, torchvision)

PLAN = Path("data/plan.parquet")
CONTACT_SHEET = Path("reports/contact_sheet.png")

FEATURES = Path("data/features")

HEAD_WEIGHTS = Path("models/head.safetensors")
HEAD = Path("models/head.json")
TRAINING = Path("reports/training.csv")
SWEEP = Path("reports/sweep.csv")

METRICS = Path("reports/metrics.json")
PREDICTIONS = Path("reports/predictions.csv")
CLASSES = Path("reports/classes.csv")
PLOTS = Path("reports/plots")

CHECKS = Path("reports/checks")
CHECKS_COUNTS = Path("reports/checks.json")

FEW = Path("reports/few.csv")
FEW_PLOT = Path("reports/few.png")

RANK = Path("reports/rank.csv")
RANK_SPEED = Path("reports/rank_speed.csv")

THAWED = Path("data/thawed")
THAW = Path("reports/thaw.json")
THAW_CURVE = Path("reports/thaw.csv")

BEST = Path("best")

SCRATCH = Path("reports/scratch.json")
SCRATCH_CURVE = Path("reports/scratch.csv")

BUNDLE = Path("bundle")

REPORT = Path("reports/report.html")

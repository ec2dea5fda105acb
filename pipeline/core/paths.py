"""The paths of a project's files, relative to its root; those of outputs are as in `dvc.yaml`."""

from pathlib import Path

PARAMS = Path("params.yaml")
LOCK = Path("headstart.lock")

CORRECTIONS = Path("corrections")  # files that people write
MAP = Path("map")
LANDMARKS = MAP / "landmarks.parquet"  # of `headstart map`

MANIFEST = Path("data/manifest.parquet")
TARGET = Path("data/target.parquet")  # examples of another domain, without labels
REFUSED = Path("data/refused.csv")
MEASURES = Path("data/measures.parquet")  # numbers about each example, for `checks`
CONFIRMED = Path("data/confirmed.csv")  # labels that people confirmed as right
PICTURES = Path("data/pictures")  # examples made by ingest or a plugin, such as patches

PLAN = Path("data/plan.parquet")
CONTACT_SHEET = Path("reports/contact_sheet.png")

WEIGHTS = Path("data/weights")  # the user's own networks and weights

FEATURES = Path("data/features")
FLOOR = Path("data/floor")

HEAD_WEIGHTS = Path("models/head.safetensors")
HEAD = Path("models/head.json")
FLOOR_HEADS = Path("models/floor.safetensors")
OUT_OF_FOLD = Path("reports/out_of_fold.parquet")
TRAINING = Path("reports/training.csv")
SWEEP = Path("reports/sweep.csv")

METRICS = Path("reports/metrics.json")
PREDICTIONS = Path("reports/predictions.csv")
CLASSES = Path("reports/classes.csv")
PLOTS = Path("reports/plots")
REPEATS = Path("reports/repeats.csv")
SLICES = Path("reports/slices.csv")
SETS = Path("reports/sets.csv")

CHECKS = Path("reports/checks")
CHECKS_MAP = CHECKS / "map.parquet"
CHECKS_COUNTS = Path("reports/checks.json")

LEARNING_CURVE = Path("reports/learning_curve.csv")
LEARNING_CURVE_PLOT = Path("reports/learning_curve.png")

RANK = Path("reports/rank.csv")
RANK_SPEED = Path("reports/rank_speed.csv")

FINETUNED = Path("data/finetuned")
FINETUNE = Path("reports/finetune.json")
FINETUNE_CURVE = Path("reports/finetune.csv")

BEST = Path("best")

ADAPT = Path("reports/adapt.json")
ADAPT_TABLE = Path("reports/adapt.csv")
ADAPTED = Path("adapted")

FROM_SCRATCH = Path("reports/from_scratch.json")
FROM_SCRATCH_CURVE = Path("reports/from_scratch.csv")


BUNDLE = Path("bundle")

# Not written by a stage, but by `headstart site` and `headstart federate`.
SITE = Path("site")
JOINED = Path("joined")

REPORT = Path("reports/report.html")
SHEETS = Path("reports/report")  # thumbnails beside the report on many examples

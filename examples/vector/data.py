"""Writes data/raw/digits.parquet: scikit-learn's 1,797 handwritten digits, 64 numbers each.

They stand for whatever another model made: factors of a recommender's items, or embeddings.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits

digits = load_digits()
table = {
    "key": [f"digit {number}" for number in range(len(digits.data))],
    "vector": pa.array(digits.data.tolist(), pa.list_(pa.float32())),
    "label": [str(target) for target in digits.target],
}
Path("data/raw").mkdir(parents=True, exist_ok=True)
pq.write_table(pa.table(table), "data/raw/digits.parquet")

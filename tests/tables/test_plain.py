"""Lists that are read from a Parquet file as they lie there are those that PyArrow reads."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.tables import plain

USUAL = {"compression": "none", "use_dictionary": False}


@pytest.mark.parametrize(
    ("options", "is_plain"),
    [
        (USUAL, True),
        (USUAL | {"write_statistics": False}, True),
        (USUAL | {"data_page_size": 100}, False),
        (USUAL | {"data_page_version": "2.0"}, False),
        (USUAL | {"row_group_size": 10}, False),
        (USUAL | {"compression": "zstd"}, False),
        (USUAL | {"use_dictionary": True}, False),
        (USUAL | {"use_dictionary": False, "use_byte_stream_split": ["one"]}, False),
    ],
)
@pytest.mark.parametrize("rows", [1, 40, 400])
def test_lists_are_those_of_pyarrow(
    tmp_path: Path, options: dict[str, Any], is_plain: bool, rows: int
) -> None:
    numbers = {"one": 7, "other": 800}
    arrays = {
        name: np.random.default_rng(width).normal(size=(rows, width)).astype(np.float32)
        for name, width in numbers.items()
    }
    table = pa.table(
        {
            name: pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array.shape[1])
            for name, array in arrays.items()
        }
    )
    file = tmp_path / "shard.parquet"
    pq.write_table(table, file, **options)
    read = plain.lists(file, pq.ParquetFile(file), list(arrays))
    if read is None:
        assert not is_plain or rows == 400
    else:
        for found, array in zip(read, arrays.values(), strict=True):
            np.testing.assert_array_equal(found, array)


def test_nulls_are_left_to_pyarrow(tmp_path: Path) -> None:
    lists = pa.array([[1.0, None], [3.0, 4.0]], pa.list_(pa.float32(), 2))
    file = tmp_path / "shard.parquet"
    pq.write_table(pa.table({"one": lists}), file, **USUAL)
    assert plain.lists(file, pq.ParquetFile(file), ["one"]) is None

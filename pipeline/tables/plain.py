"""Columns of float32 lists in a Parquet file, read as they lie there.

For each number, PyArrow decodes where its list begins, which takes longer than all other reading.
In a shard that this package wrote, the numbers of a column are one piece of the file.
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

Floats = npt.NDArray[np.float32]

# A page's header in Thrift's compact protocol: its type, 0 for data, and its size after the header.
PAGE = b"\x15\x00\x15"


def lists(shard: Path, file: pq.ParquetFile, names: list[str]) -> list[Floats] | None:
    """Return columns [n, d] of lists without nulls; None if PyArrow has to read one of them.

    Args:
        shard: the path of the file.
        file: the same file, opened.
        names: of the columns; each has lists of one length.
    """
    if file.num_row_groups != 1:
        return None
    group, schema = file.metadata.row_group(0), file.schema
    places = {schema.column(at).path: at for at in range(group.num_columns)}
    found = []
    with shard.open("rb", buffering=0) as stream:
        for name in names:
            width = file.schema_arrow.field(name).type.list_size
            at = places.get(f"{name}.list.element")
            if at is None:
                return None
            chunk, level = group.column(at), schema.column(at).max_definition_level
            stream.seek(chunk.data_page_offset)
            values = _values(stream.read(chunk.total_compressed_size), chunk, level)
            if values is None or len(values) != group.num_rows * width:
                return None
            found.append(values.reshape(-1, width))
    return found


def _values(content: bytes, chunk: pq.ColumnChunkMetaData, level: int) -> Floats | None:
    """Return the numbers of a column's part [m] if it is one page, and all numbers are present.

    A page is a header, how far each number continues its list, how much of its place is present (of
    all numbers `level`), and the numbers.
    """
    form = chunk.physical_type, chunk.compression, {*chunk.encodings}, chunk.has_dictionary_page
    if form != ("FLOAT", "UNCOMPRESSED", {"RLE", "PLAIN"}, False) or content[:3] != PAGE:
        return None
    size = _number(content[3:]) // 2
    page = content[-size:]
    start = 4 + int.from_bytes(page[:4], "little")
    end = start + 4 + int.from_bytes(page[start : start + 4], "little")
    present = page[start + 4 : end]
    if end + 4 * chunk.num_values != size or len(page) != size or present[-1:] != bytes([level]):
        return None
    if _number(present) != 2 * chunk.num_values:  # in one run
        return None
    return np.frombuffer(page, np.float32, offset=end)


def _number(content: bytes) -> int:
    """Return the number of variable length with which `content` begins."""
    found = 0
    for place, byte in enumerate(content[:10]):
        found |= (byte & 127) << 7 * place
        if byte < 128:
            break
    return found

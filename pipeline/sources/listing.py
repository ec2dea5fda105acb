"""`headstart list`: write the objects of a bucket into the listing that `ingest` reads.

The listing is replaced as a whole, and only after the server has listed all objects.
"""

from pathlib import Path
from typing import Any

from .. import kinds
from ..core import buckets, params
from ..core.errors import DataError, ParamsError
from ..core.paths import PARAMS
from ..examples import objects
from ..examples.objects import LISTING, ROOT
from .bucket import WRITES_IT

TOLD_EACH = 100_000  # objects between progress lines


def run(address: str | None) -> None:
    """List the objects below an address into the folder `ingest.path`.

    Args:
        address: `s3://BUCKET/PREFIX`; None for the address of the existing listing.

    Raises:
        ParamsError: `ingest.source` is not `s3`.
        DataError: there is no address and no listing, or the bucket cannot be listed, or has no
            objects at the address.
    """
    settings = params.load(kinds.schema).ingest
    if settings.source != "s3":
        raise ParamsError(
            f"ingest.source is {settings.source} in {PARAMS}; set it to s3, and ingest.path to the"
            " folder for the listing, such as data/raw/bucket"
        )
    folder = Path(settings.path)
    if folder.is_file():
        raise DataError(f"ingest.path {folder} is a file; source: s3 needs a folder for {LISTING}")
    file = folder / LISTING
    before = objects.opened(file) if file.exists() else None
    if address is None and before is None:
        raise DataError(f"{file} does not exist yet, so give the address: {WRITES_IT}")
    address = before.address if address is None and before else buckets.tidied(address or "")
    listed = _listed(address)
    if not len(listed):
        raise DataError(f"{address} has no objects; {file} stays as it was")
    print(f"list: {len(listed):,} objects below {address}{_differences(before, address, listed)}")
    if before and before.address == address and before.table.equals(listed):
        return
    folder.mkdir(parents=True, exist_ok=True)
    _write(listed, address, file)


def _listed(address: str) -> Any:
    """Return the table of the objects below an address, sorted by key, as in the listing."""
    import pyarrow as pa

    schema = pa.schema([("key", pa.large_string()), ("etag", pa.string()), ("size", pa.int64())])
    batches, waiting, count = [], list[buckets.Object](), 0

    def store() -> None:
        columns = list(zip(*waiting, strict=True)) or [()] * len(schema)
        arrays = [pa.array(c, f.type) for c, f in zip(columns, schema, strict=True)]
        batches.append(pa.record_batch(arrays, schema=schema))
        waiting.clear()

    for page in buckets.listed(address):
        waiting += page
        count += len(page)
        if len(waiting) >= TOLD_EACH:  # Arrow holds them in a fraction of the memory
            store()
            print(f"list: {count:,} objects so far", flush=True)
    store()
    table = pa.Table.from_batches(batches, schema=schema)
    return table.sort_by("key").combine_chunks()


def _differences(before: objects.Objects | None, address: str, listed: Any) -> str:
    """Count new, changed and removed objects since the last listing of the same address."""
    if before is None or before.address != address:
        return ""
    import pyarrow.compute as pc

    old = before.table.append_column("old", before.table["etag"]).select(["key", "old"])
    both = listed.join(old, keys="key", join_type="inner")
    kept = both.num_rows
    changed = pc.sum(pc.not_equal(both["etag"], both["old"])).as_py() or 0
    new, gone = len(listed) - kept, len(before) - kept
    return f": {new:,} new, {changed:,} changed, {gone:,} gone"


def _write(listed: Any, address: str, file: Path) -> None:
    import pyarrow.parquet as pq

    whole = listed.replace_schema_metadata({ROOT: address.encode()})
    # Beside the folder, because DVC tracks everything in it.
    unfinished = file.parent.with_name(f".{file.parent.name}.unfinished")
    try:
        pq.write_table(whole, unfinished, compression="zstd")
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)

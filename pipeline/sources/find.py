"""Lists the files of a source, each with its label and split."""

import shutil
from pathlib import Path

from ..core import plugins
from ..core.errors import DataError
from ..core.params import IngestParams
from ..core.paths import PICTURES
from ..examples.files import leads_out
from ..examples.objects import LISTING
from ..examples.rows import ENDINGS, MATRIX
from ..kinds import Kind
from .bucket import bucket, no_listing
from .folder import folder
from .found import Found, Listing, is_hidden, walk
from .plugin import plugin
from .table import TABLE, Wanted, table
from .targets import targeted

TABLES = [f"{TABLE}{ending}" for ending in ENDINGS]


def listing(params: IngestParams, kind: Kind) -> Listing:
    """Return all files of the source in `params`, sorted by path; `data/pictures/` is recreated.

    Raises:
        DataError: the source does not exist, or its layout is not understood.
        ParamsError: a plugin's function does not exist, raises, or does not return rows.
    """
    path = Path(params.path)
    own = plugins.is_plugin(params.source)
    if (own or params.source in ("folder", "csv", "parquet", "s3")) and leads_out(path):
        raise DataError(
            f"ingest.path {path} leads out of the project; put your examples into data/raw, or"
            " link their folder there"
        )
    if params.source == "s3" and not path.exists():
        raise no_listing(path)
    if not path.exists():
        raise DataError(
            f"ingest.path {path} does not exist; set it to the folder of your examples"
            " (for torchvision, an empty folder)"
        )
    whole, made_here = path.resolve(), PICTURES.resolve()
    if made_here.is_relative_to(whole) or whole.is_relative_to(made_here):
        raise DataError(
            f"ingest.path {path} overlaps with {PICTURES}, where ingest writes;"
            " put your examples in a folder of data/raw"
        )
    if PICTURES.exists():
        shutil.rmtree(PICTURES)
    PICTURES.mkdir(parents=True)
    found = targeted(_listing(params, path, kind), params)
    if not any(PICTURES.iterdir()):  # DVC warns about an empty folder at each run
        (PICTURES / "README").write_text("The source has its examples itself; none is made here.\n")
    return found


def tables(params: IngestParams) -> list[Path]:
    """Return the tables that may list the source and the matrix of vectors; none need exist."""
    path = Path(params.path)
    return [path] if path.is_file() else [path / name for name in (LISTING, *TABLES, MATRIX)]


def stop_if_others_came(params: IngestParams, found: Listing) -> None:
    """Raise `DataError` if a folder has files that were not there when it was listed.

    DVC records the folder's state after the stage, and would record a new file as ingested.
    """
    if params.source != "folder":
        return
    root = Path(params.path)
    # Texts, because hashes of paths are slow.
    before = {str(row.path) for rows in (found.found, found.refused) for row in rows}
    came = [path for path in walk(root)[0] if str(path) not in before]
    seen = [path for path in came if not any(map(is_hidden, path.parts[len(root.parts) :]))]
    if seen:
        raise DataError(
            f"{len(seen)} {'files were' if len(seen) > 1 else 'file was'} added while ingest was"
            f" reading {root}, such as {seen[0]};"
            " run ingest again when nothing writes there any more"
        )


def _listing(params: IngestParams, path: Path, kind: Kind) -> Listing:
    if params.source == "surfaces":
        from . import surfaces

        rows = surfaces.cut(path, PICTURES)
        return Listing([Found(example, label, split) for example, label, split in rows], [])
    if params.source == "folder":
        return folder(path)
    if params.source in ("csv", "parquet"):
        return table(path, params.source, kind, Wanted.by(params))
    if params.source == "s3":
        return bucket(path, Wanted.by(params))
    if plugins.is_plugin(params.source):
        return plugin(params.source, path)
    from .torchvision_sets import torchvision_dataset

    return torchvision_dataset(params.source.removeprefix("torchvision:"), path)

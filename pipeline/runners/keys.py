"""The keys of views in the store."""

from collections.abc import Iterable

from ..kinds import Kind, View
from ..store.keys import view_key


def view_keys(
    wanted: Iterable[tuple[str, View, str]], kind: Kind, backbone_made_by: str
) -> list[bytes]:
    """The keys of the feature vectors of many views, each told by its example's digest.

    An example as it is has one key whether or not the libraries that augment are installed.

    Args:
        wanted: of each view the example's digest, the view and the example's format, as
            `Kind.form` or the manifest has it.
        kind: of the examples.
        backbone_made_by: the engine's.
    """
    made_by: dict[tuple[bool, str], str] = {}
    keys = []
    for digest, view, form in wanted:
        by = bool(view != kind.original), form
        if by not in made_by:
            libraries = [backbone_made_by, kind.views_made_by(by[0]), kind.read_by(form)]
            made_by[by] = " ".join(filter(None, libraries))
        packed = kind.pack_view(view)
        keys.append(view_key(digest, packed, kind.view_code, made_by[by]))
    return keys

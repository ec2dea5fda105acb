"""The keys of views in the store."""

from collections.abc import Iterable

from ..kinds import Kind, View
from ..store.keys import view_key


def view_keys(wanted: Iterable[tuple[str, View]], kind: Kind, backbone_made_by: str) -> list[bytes]:
    """The keys of the feature vectors of many views, each told by its example's digest.

    An example as it is has one key whether or not the libraries that augment are installed.
    """
    made_by: dict[bool, str] = {}
    keys = []
    for digest, view in wanted:
        augmented = bool(view != kind.original)
        if augmented not in made_by:
            made_by[augmented] = f"{backbone_made_by} {kind.views_made_by(augmented)}"
        packed = kind.pack_view(view)
        keys.append(view_key(digest, packed, kind.view_code, made_by[augmented]))
    return keys

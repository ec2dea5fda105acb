"""Groups of examples, by name and by number."""

import pandas as pd

from pipeline.tables.manifest import group_keys, groups


def test_a_row_without_a_group_is_one_of_its_own():
    table = pd.DataFrame({"digest": ["d1", "d2", "d3", "d4"], "group": ["b", "", "b", ""]})
    assert group_keys(table).tolist() == ["b", "d2", "b", "d4"]
    assert groups(table).tolist() == [0, 1, 0, 2]
    older = table.drop(columns="group")
    assert group_keys(older).tolist() == ["d1", "d2", "d3", "d4"]
    assert groups(older).tolist() == [0, 1, 2, 3]

"""The features table: written the same whatever the order, joined without a missing row."""

import hashlib
import itertools

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core.errors import DataError
from pipeline.tables.features import Split, read_splits, view_0, write_shards
from pipeline.tables.manifest import read_manifest


def digest(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def manifest(train=6, val=3, test=3):
    splits = ["train"] * train + ["val"] * val + ["test"] * test
    return pd.DataFrame(
        {
            "digest": [digest(number) for number in range(len(splits))],
            "path": [f"pictures/{number:03}.png" for number in range(len(splits))],
            "label": ["ants" if number % 2 else "bees" for number in range(len(splits))],
            "split": splits,
        }
    )


def rows(table, views=2):
    return [
        (picture.digest, view)
        for picture in table.itertuples()
        for view in range(views + 1 if picture.split == "train" else 1)
    ]


def feature_of(digest, view):
    seed = int(digest[:7], 16) + view
    return np.random.default_rng(seed).standard_normal(5).astype(np.float32)


def write(folder, keys):
    digests, views = [key[0] for key in keys], [key[1] for key in keys]
    write_shards(folder, [(digests, views, np.stack([feature_of(*key) for key in keys]))])


def test_split_rows_carry_their_own_feature_label_and_path(tmp_path):
    table = manifest()
    write(tmp_path / "features", rows(table))
    splits = read_splits(tmp_path / "features", table, ["ants", "bees"], ["train", "val", "test"])
    assert [len(splits[name].labels) for name in ("train", "val", "test")] == [18, 3, 3]
    for split in splits.values():
        assert split.features.dtype == np.float32
        assert split.labels.dtype == np.int64
        for row, (code, view) in enumerate(zip(split.digests, split.views, strict=True)):
            picture = table.set_index("digest").loc[code]
            np.testing.assert_array_equal(split.features[row], feature_of(code, view))
            assert split.paths[row] == picture["path"]
            assert ["ants", "bees"][split.labels[row]] == picture["label"]


def test_rows_are_sorted_by_digest_and_view(tmp_path):
    table = manifest()
    write(tmp_path / "features", rows(table)[::-1])
    train = read_splits(tmp_path / "features", table, ["ants", "bees"], ["train"])["train"]
    keys = list(zip(train.digests, train.views, strict=True))
    assert keys == sorted(keys)


def test_a_shard_holds_the_digests_that_begin_with_its_name(tmp_path):
    table = manifest(train=60)
    write(tmp_path, rows(table))
    for shard in tmp_path.iterdir():
        found = pq.read_table(shard)
        digests = found["digest"].to_pylist()
        assert shard.suffix == ".parquet"
        assert {code[:2] for code in digests} == {shard.stem}
        assert found.schema.field("feature").type == pa.list_(pa.float32(), 5)


def test_bytes_do_not_depend_on_the_order_of_the_rows(tmp_path):
    keys = rows(manifest())
    write(tmp_path / "a", keys)
    write(tmp_path / "b", keys[::-1])
    first = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    second = {file.name: file.read_bytes() for file in (tmp_path / "b").iterdir()}
    assert first == second


def test_bytes_do_not_depend_on_how_the_shards_are_divided_among_parts(tmp_path):
    keys = sorted(rows(manifest()))
    write(tmp_path / "whole", keys)
    parts = [list(part) for _, part in itertools.groupby(keys, key=lambda key: key[0][:2])]
    assert len(parts) > 1
    write_shards(
        tmp_path / "parts",
        (
            (
                [key[0] for key in part],
                [key[1] for key in part],
                np.stack([feature_of(*key) for key in part]),
            )
            for part in parts
        ),
    )
    whole = {file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()}
    assert {file.name: file.read_bytes() for file in (tmp_path / "parts").iterdir()} == whole


def test_only_shards_that_change_are_replaced_and_surplus_files_go(tmp_path):
    table = manifest(train=40)
    write(tmp_path, rows(table))
    (tmp_path / "leftover.partial").write_text("of a run that was killed")
    before = {file.name: file.stat().st_ino for file in tmp_path.glob("*.parquet")}
    gone = table["digest"].iloc[0]
    write(tmp_path, [key for key in rows(table) if key[0] != gone])
    after = {file.name: file.stat().st_ino for file in tmp_path.iterdir()}
    assert set(before) - set(after) <= {f"{gone[:2]}.parquet"}
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= {f"{gone[:2]}.parquet"}


def test_a_link_into_a_cache_is_replaced_and_not_written_through(tmp_path):
    table = manifest()
    write(tmp_path / "features", rows(table))
    shard = next((tmp_path / "features").iterdir())
    cached = tmp_path / "cached"
    cached.write_bytes(b"what the cache holds")
    shard.unlink()
    shard.symlink_to(cached)
    write(tmp_path / "features", rows(table))
    assert cached.read_bytes() == b"what the cache holds"
    assert not shard.is_symlink()


def test_a_row_given_twice_is_refused(tmp_path):
    keys = rows(manifest())
    with pytest.raises(DataError, match="given twice"):
        write(tmp_path, [*keys, keys[3]])


@pytest.mark.parametrize("view", [0, 1])
def test_a_missing_view_is_named(tmp_path, view):
    table = manifest()
    lost = (table["digest"].iloc[2], view)
    write(tmp_path, [key for key in rows(table) if key != lost])
    with pytest.raises(DataError, match=rf"view {view} of pictures/002.png is missing"):
        read_splits(tmp_path, table, ["ants", "bees"], ["train"])


def test_a_missing_test_picture_is_named(tmp_path):
    table = manifest()
    write(tmp_path, [key for key in rows(table) if key[0] != table["digest"].iloc[-1]])
    with pytest.raises(DataError, match=r"pictures/011.png is missing"):
        read_splits(tmp_path, table, ["ants", "bees"], ["test"])


def test_a_picture_that_the_manifest_does_not_name_is_an_error(tmp_path):
    table = manifest()
    write(tmp_path, [*rows(table), (digest(99), 0)])
    with pytest.raises(DataError, match=digest(99)):
        read_splits(tmp_path, table, ["ants", "bees"], ["val"])


def test_an_augmented_view_of_a_test_picture_is_an_error(tmp_path):
    table = manifest()
    write(tmp_path, [*rows(table), (table["digest"].iloc[-1], 1)])
    with pytest.raises(DataError, match=r"view 1 of pictures/011.png, a test example"):
        read_splits(tmp_path, table, ["ants", "bees"], ["test"])


def test_a_row_that_stands_twice_is_an_error(tmp_path):
    table = manifest()
    write(tmp_path, rows(table))
    shard = next(tmp_path.iterdir())
    pq.write_table(pa.concat_tables([pq.read_table(shard)] * 2), shard)
    with pytest.raises(DataError, match="more than once"):
        read_splits(tmp_path, table, ["ants", "bees"], ["train", "val", "test"])


@pytest.mark.parametrize("damage", [b"", b"no parquet", None])
def test_a_damaged_shard_is_named(tmp_path, damage):
    table = manifest()
    write(tmp_path, rows(table))
    shard = next(tmp_path.iterdir())
    if damage is None:
        pq.write_table(pq.read_table(shard).drop_columns("feature"), shard)
    else:
        shard.write_bytes(damage)
    with pytest.raises(DataError, match=f"{shard.name} is damaged"):
        read_splits(tmp_path, table, ["ants", "bees"], ["train"])


def test_features_of_two_lengths_are_an_error(tmp_path):
    table = manifest()
    write(tmp_path, rows(table))
    shard = next(tmp_path.iterdir())
    keys = pq.read_table(shard, columns=["digest", "view"])
    longer = np.zeros((len(keys), 7), np.float32)
    part = (keys["digest"].to_pylist(), keys["view"].to_numpy(), longer)
    write_shards(tmp_path / "b", [part])
    (tmp_path / "b" / shard.name).replace(shard)
    (tmp_path / "b").rmdir()
    with pytest.raises(DataError, match="5 and 7 numbers"):
        read_splits(tmp_path, table, ["ants", "bees"], ["train", "val", "test"])


def test_a_feature_that_is_no_number_names_its_picture(tmp_path):
    table = manifest()
    keys = rows(table)
    features = np.stack([feature_of(*key) for key in keys])
    features[4, 2] = np.nan
    write_shards(tmp_path, [([key[0] for key in keys], [key[1] for key in keys], features)])
    with pytest.raises(DataError, match=r"pictures/001.png, view 1, are not finite"):
        read_splits(tmp_path, table, ["ants", "bees"], ["train"])


def test_a_label_that_is_no_class_is_an_error(tmp_path):
    table = manifest()
    write(tmp_path, rows(table))
    with pytest.raises(DataError, match="'bees' is not among the classes ants, wasps"):
        read_splits(tmp_path, table, ["ants", "wasps"], ["val"])


def test_no_features_and_no_manifest_say_which_stage_to_run(tmp_path):
    with pytest.raises(DataError, match="run the extract stage"):
        read_splits(tmp_path, manifest(), ["ants", "bees"], ["train"])
    with pytest.raises(DataError, match="run the ingest stage"):
        read_manifest(tmp_path / "manifest.parquet")


def test_a_split_without_pictures_has_no_rows(tmp_path):
    table = manifest(val=0)
    write(tmp_path, rows(table))
    val = read_splits(tmp_path, table, ["ants", "bees"], ["train", "val"])["val"]
    assert val.features.shape == (0, 5)
    assert val.labels.shape == (0,)


def test_the_power_keeps_signs_and_flattens(tmp_path):
    rows = np.array([[4.0, -9.0], [0.0, 0.25]], dtype=np.float32)
    digests = ["aa" + "0" * 62, "bb" + "0" * 62]
    write_shards(tmp_path, [(digests, [0, 0], rows)])
    table = pd.DataFrame(
        {"digest": digests, "path": ["a", "b"], "label": ["ants", "bees"], "split": "val"}
    )
    val = read_splits(tmp_path, table, ["ants", "bees"], ["val"], power=0.5)["val"]
    np.testing.assert_array_equal(val.features, [[2.0, -3.0], [0.0, 0.5]])
    assert val.features.dtype == np.float32


def test_splits_are_taken_apart_and_put_together_with_all_their_columns():
    names = np.array(["b", "a", "c", "a"])
    whole = Split(
        digests=names,
        paths=np.char.add(names, ".png"),
        views=np.array([0, 1, 0, 0], np.int32),
        labels=np.array([1, 0, 2, 0]),
        features=np.arange(8, dtype=np.float32).reshape(4, 2),
    )
    some = whole.take(np.array([True, False, False, True]))
    assert some.paths.tolist() == ["b.png", "a.png"]
    assert some.labels.tolist() == [1, 0]
    assert whole.take(np.array([2, 0])).digests.tolist() == ["c", "b"]
    assert whole.take(slice(0)).features.shape == (0, 2)

    again = Split.concat([whole.take(slice(0)), whole.take(slice(3)), whole.take(slice(3, None))])
    for name, column in vars(whole).items():
        np.testing.assert_array_equal(getattr(again, name), column)
        assert getattr(again, name).dtype == column.dtype
    first = view_0({"train": whole.take(slice(2)), "val": whole.take(slice(2, None))})
    assert first.digests.tolist() == ["a", "b", "c"]
    np.testing.assert_array_equal(first.features, [[6, 7], [0, 1], [4, 5]])

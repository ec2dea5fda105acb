import re
import runpy
from pathlib import Path

import pytest
import yaml

from pipeline import kinds
from pipeline.core import params
from pipeline.core.errors import ParamsError
from pipeline.core.params import Params
from tests.conftest import PLAIN, ROOT

MISTAKES = [
    ("views: 4", "views: -1", "augment.views is -1; should be greater than or equal to 0"),
    (
        "weight_decay: 0.003",
        "weight_decay: [auto, 0.1]",
        "should be a number, a list of numbers, or just auto",
    ),
    (
        "rotate: 15",
        "rotat: 15",
        "augment.rotat is not a parameter; augment takes views, seed, rotate",
    ),
    (
        "optimizer: [lda, lbfgs]",
        "optimizer: adamx",
        "train.optimizer is 'adamx'; should be 'sgd', ",
    ),
    ("seed: 0", "seed: zero", "ingest.seed is 'zero'; should be a valid integer"),
    ("train: 0.6", "train: 0.7", "the three shares must add up to 1, not 1.1"),
    ("source: surfaces", "source: kaggle", "ingest.source is 'kaggle'; should be "),
    ("precision: float32", "precision: float64", "extract.precision is 'float64'; should be "),
    ("views: 4", "views: 4.5", "augment.views is 4.5; should be a valid integer"),
    ("views: 4", "views: yes", "augment.views is True; should be a valid integer"),
    (
        "learning_rate: 0.001",
        "learning_rate: 1e-3",
        "train.learning_rate is '1e-3'; YAML reads '1e-3' as text: write a number without quotes,"
        " such as 0.001 or 1.0e-3",
    ),
    ("learning_rate: 0.001", "learning_rate: [0.1, 1e-3]", "YAML reads '1e-3' as text"),
    ("power: 0.5", "power: 5e-1", "train.power is '5e-1'; YAML reads '5e-1' as text"),
    ("learning_rate: 0.001", "learning_rate: fast", "is 'fast'; should be a valid number"),
    (
        "kind: image",
        "kind: text",
        "augment.rotate, augment.scale, augment.hflip and augment.vflip are not parameters; if"
        " ingest.kind is text, augment takes views, seed",
    ),
    ("evaluate:", "evaluat:", "evaluat is not a parameter; the file takes ingest, augment"),
    ("kind: image", "kind: smell", "ingest.kind is 'smell'; it should be image"),
    ("learning_curve:", "few:", "was written for an older version: rename few to learning_curve"),
    ("least_examples", "least_pictures", "rename checks.least_pictures to checks.least_examples"),
    (
        "  rotate: 15",
        "  views: 8\n  rotate: 15",
        "params.yaml: views occurs twice, in line 22 and in line 23; delete one of them",
    ),
    (
        "train: 0.6",
        "train: 0.6, train: 0.5",
        "train occurs twice, in line 13 and in line 13; delete",
    ),
    ("  top_k", "  coverage: 0.9\n  top_k", "rename evaluate.coverage to train.coverage"),
]


@pytest.mark.parametrize(("before", "after", "words"), MISTAKES)
def test_a_mistake_is_one_line_naming_key_value_and_what_is_allowed(tmp_path, before, after, words):
    good = (ROOT / "params.yaml").read_text()
    assert before in good
    file = tmp_path / "params.yaml"
    file.write_text(good.replace(before, after, 1))
    with pytest.raises(ParamsError) as caught:
        params.load(kinds.schema, file)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_the_file_leaves_out_has_its_default(tmp_path):
    file = tmp_path / "params.yaml"
    whole = params.load(kinds.schema, ROOT / "params.yaml")
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    del document["augment"]["vflip"], document["checks"], document["ingest"]["kind"]
    file.write_text(yaml.safe_dump(document))
    assert params.load(kinds.schema, file) == whole
    file.write_text("{}")
    # The file asks for things that a project of before there were they does not have.
    for section in ("extract", "train"):
        of = {name.split(".")[1]: value for name, value in PLAIN.items() if section in name}
        older = getattr(whole, section).model_copy(update=of)
        whole = whole.model_copy(update={section: older})
    assert params.load(kinds.schema, file) == whole


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"engine": "openvino", "device": "cuda"}, "openvino runs on the CPU; for device cuda"),
        ({"engine": "onnxruntime", "device": "cuda"}, "onnxruntime runs on the CPU; for device"),
        (
            {"engine": "onnxruntime", "precision": "bfloat16"},
            "bfloat16 needs engine auto, openvino",
        ),
        ({"seed": list(range(5_001))}, "the sweep has 10,002 heads"),
        ({"width": [8, 16], "optimizer": ["adamw", "ridge"]}, "width is [8, 16], but ridge trains"),
        (
            {"weight_decay": "auto", "optimizer": ["lbfgs", "adamw"]},
            "weight_decay auto works with lbfgs and ridge, but optimizer is adamw",
        ),
    ],
)
def test_parameters_that_do_not_go_together_are_a_line(tmp_path, changes, words):
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    section = "extract" if "engine" in changes else "train"
    document[section] |= changes
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(ParamsError) as caught:
        params.load(kinds.schema, file)
    assert str(caught.value).startswith(f"{file}: {section}: ")
    assert words in str(caught.value)
    assert len(str(caught.value).removeprefix(str(file))) < 160


def test_every_list_in_a_sweep_is_checked_value_by_value(tmp_path):
    file = tmp_path / "params.yaml"
    good = (ROOT / "params.yaml").read_text()
    file.write_text(good.replace("dropout: 0.0", "dropout: [0.0, 0.5]", 1))
    assert params.load(kinds.schema, file).train.dropout == [0.0, 0.5]
    file.write_text(good.replace("dropout: 0.0", "dropout: [0.0, 1.5]", 1))
    with pytest.raises(ParamsError, match="less than 1"):
        params.load(kinds.schema, file)


def test_a_file_that_is_no_yaml_or_not_there_is_a_clear_word(tmp_path):
    file = tmp_path / "params.yaml"
    with pytest.raises(ParamsError, match="run from the project's root"):
        params.load(kinds.schema, file)
    file.write_text("ingest: [")
    with pytest.raises(ParamsError, match="not readable YAML"):
        params.load(kinds.schema, file)
    file.write_text("just words")
    with pytest.raises(ParamsError, match="must hold the sections ingest, augment"):
        params.load(kinds.schema, file)


def test_no_default_changes():
    """A stage's output depends on it, and nothing that `dvc.yaml` declares shows it."""
    sections = {name: field.default for name, field in Params.model_fields.items()}
    now = {name: of.model_dump() for name, of in sections.items() if name != "augment"}
    own = [kind for kind in kinds.KINDS if kind != "plugin"]
    now["ingest"] = kinds.schema("image").ingest().model_dump()
    now["augment"] = {kind: kinds.schema(kind)().model_dump() for kind in own}
    assert now == yaml.safe_load(Path(__file__).with_name("defaults.yaml").read_text())


def test_the_page_of_parameters_has_each_with_its_default():
    docs = ROOT / "docs"
    page = (docs / "parameters.md").read_text()
    # The repository's params.yaml is one of images; another kind has its own section `augment`.
    of_images = re.sub(r"^## .*ingest\.kind: (?!image).*\n(?:(?!## ).*\n)*", "", page, flags=re.M)
    rows = re.findall(r"^\| `(\w+\.\w+)` \| `(.*?)` \|", of_images, re.M)
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    default = {
        f"{section}.{knob}": value
        for section in document
        for knob, value in document[section].items()
    }
    default |= PLAIN
    assert {name: yaml.safe_load(shown) for name, shown in rows} == default
    assert len(rows) == len(default)
    # `make docs` would change nothing.
    assert page == runpy.run_path(str(docs / "make_parameters.py"))["page"]() + "\n"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ingest.task": "ranking"}, r"ingest\.task is 'ranking'"),
        (
            {"ingest.targets": ["age"], "ingest.source": "csv"},
            "does not apply to ingest.task classification",
        ),
        ({"ingest.targets": ["a|b"], "ingest.task": "multilabel"}, r"should not contain \|"),
        (
            {"ingest.targets": ["a", "a"], "ingest.task": "regression", "ingest.source": "csv"},
            "targets contains the same column twice",
        ),
        ({"ingest.targets": ["a"], "ingest.task": "regression"}, "targets are columns of a table"),
        ({"ingest.label": "topic"}, "label names a column of a table, but source is surfaces"),
        ({"ingest.encoding": "latin-1"}, "encoding is the encoding of a CSV table, but source is"),
        ({"ingest.encoding": "latin1337"}, "is 'latin1337'; should be an encoding that Python"),
        (
            {"ingest.label": "a", "ingest.targets": "b", "ingest.source": "csv"},
            "label is a, but targets names columns too; leave one of them out",
        ),
        (
            {"train.loss": "huber"},
            r"train\.loss is huber, which does not apply to ingest\.task class",
        ),
        (
            {"ingest.task": "regression", "train.optimizer": ["ridge", "nearest_mean"]},
            r"which does not apply to ingest\.task regression; set it to",
        ),
        (
            {"ingest.task": "regression", "train.optimizer": "ridge", "train.loss": "huber"},
            "ridge minimises only the squared loss",
        ),
        (
            {"ingest.task": "regression", "train.label_smoothing": 0.1},
            "label_smoothing is 0.1, which does not",
        ),
        (
            {"ingest.task": "regression", "train.class_weights": "balanced"},
            "class_weights is balanced, which does not",
        ),
        ({"train.coverage": 1.0}, r"train\.coverage is 1\.0"),
    ],
)
def test_what_does_not_suit_the_task(changes, words, tmp_path):
    document = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name, value in changes.items():
        section, _, knob = name.partition(".")
        document[section][knob] = value
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(document))
    with pytest.raises(ParamsError, match=words) as raised:
        params.load(kinds.schema, file)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("{runner: ray}", "cluster: runner ray needs cluster.address, the HOST:PORT of the Ray"),
        ("{runner: ray, address: auto}", "cluster.address is 'auto'; should be HOST:PORT of"),
        ("{runner: dask}", "cluster.runner is 'dask'; should be 'local' or 'ray'"),
        ("{addres: 'a:1'}", "cluster.addres is not a parameter; cluster takes runner, address"),
    ],
)
def test_a_cluster_is_joined_by_its_address_alone(tmp_path, section, words):
    file = tmp_path / "params.yaml"
    file.write_text(f"cluster: {section}\n")
    for read in (lambda: params.load(kinds.schema, file), lambda: params.cluster_section(file)):
        with pytest.raises(ParamsError) as caught:
            read()
        assert words in str(caught.value)


def test_where_the_file_says_nothing_of_a_cluster_threads_compute(tmp_path):
    assert params.cluster_section(ROOT / "params.yaml").runner == "local"
    file = tmp_path / "params.yaml"
    file.write_text("cluster: {runner: local, address: 'head.lab:6379'}\n")
    assert params.cluster_section(file).address == "head.lab:6379"

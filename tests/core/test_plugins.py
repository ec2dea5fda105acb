"""Code of one's own: found, declared, and each of its mistakes a line. The page's examples run."""

import re
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipeline import kinds
from pipeline.backbones import catalogue, engines
from pipeline.core import command, params, plugins
from pipeline.core.backbone import Backbone
from pipeline.core.errors import DataError, MissingSetError, ParamsError
from pipeline.core.paths import REFUSED
from pipeline.ingest import ingest
from pipeline.tables.manifest import read_manifest
from tests.conftest import ROOT

EXAMPLE = re.compile(
    r"^<!-- not run: tests/core/test_plugins.py runs it as plugins/(?P<name>\w+\.py) -->\n"
    r"```python\n(?P<code>.*?)^```$",
    re.M | re.S,
)
IMAGE = kinds.named("image")


def write(**files):
    """Files of `plugins/`, by the names of their modules."""
    for name, text in files.items():
        file = Path("plugins") / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def pin(*lines):
    Path("plugins").mkdir(exist_ok=True)
    Path("plugins/requirements.txt").write_text("\n".join(lines))


def why_not(name):
    with pytest.raises(ParamsError) as caught:
        plugins.load(name, f"ingest.source {name}")
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"ingest.source {name}: ")


def test_a_file_of_the_folder_is_imported_and_imports_its_siblings(project):
    write(a="from . import b\nfrom .deep.c import three\nsum = b.two + three\n", b="two = 2\n")
    write(deep____init__="", deep__c="three = 3\n")
    before = list(sys.path)
    assert plugins.load("python:a.sum", "x") == 5
    assert plugins.load("python:deep.c.three", "x") == 3
    assert sys.path == before
    write(b="two = 22\n")  # a process that lives on sees it
    assert plugins.load("python:a.sum", "x") == 25
    Path("deeper").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir("deeper")
        assert plugins.load("python:a.sum", "x") == 25


def test_a_module_of_an_installed_package_is_pinned(project):
    name, version = "python:yaml.safe_load", plugins.version("pyyaml")
    assert why_not(name) == (
        "yaml belongs to an installed package whose version is not pinned: write the line"
        f" PyYAML=={version} into plugins/requirements.txt"
    )
    pin("# the reader", "pyyaml==0.1  # old")
    assert why_not(name) == (
        f"plugins/requirements.txt pins PyYAML==0.1, but {version} is installed: run `pip"
        f" install PyYAML==0.1`, or write PyYAML=={version} there"
    )
    pin(f"PyYaml == {version}")
    assert plugins.load(name, "x")("[1]") == [1]
    pin("pyyaml>=6")
    assert why_not(name).endswith(
        "plugins/requirements.txt, line 1: 'pyyaml>=6' should be name==version"
    )


MISTAKES = [
    (
        "python:none.rows",
        "plugins/none.py does not exist, and no package that has a module 'none' is",
    ),
    ("python:os.getcwd", "plugins/os.py does not exist, and no package that has a module 'os' is"),
    ("python:here.none", "plugins/here.py has no 'none'"),
    ("python:deep.none.rows", "plugins/deep/none.py does not exist"),
    ("python:broken.rows", "plugins/broken.py, line 2: IndentationError: "),
]


@pytest.mark.parametrize(("name", "words"), MISTAKES)
def test_what_is_not_there_is_a_line(project, name, words):
    write(here="", deep__a="")
    if "broken" in name:
        write(broken="def rows(path):\nreturn []\n")
    assert why_not(name).startswith(words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n1 / 0\n", "plugins/a.py, line 2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(3)\n", "plugins/a.py, line 2: SystemExit: 3"),
        ("from . import b\n", "plugins/b.py, line 1: KeyError: 'x'"),
        ("import b\n", "files of plugins/ import each other as `from . import b`"),
        ("import no_such_thing\n", "ModuleNotFoundError: No module named 'no_such_thing'"),
    ],
)
def test_what_a_module_raises_is_a_line_that_says_where(project, text, words):
    write(a=text + "f = 1\n", b="{}['x']\n" if "b" in words else "")
    assert words in why_not("python:a.f")


@pytest.mark.parametrize(
    "line",
    [
        "from pipeline.kinds.image import decode",
        "import pipeline.sources.table",
        "from pipeline.kinds import KINDS, image",
        "from pipeline import store",
        "from headstart.pipeline.heads import fit",  # its name in the wheel
        "def late():\n    from pipeline.kinds.image.decode import pixels",
    ],
)
def test_a_room_that_no_stage_declares_for_plugins_is_refused(project, line):
    first = "from pipeline.examples.files import read\nfrom pipeline import kinds\n"
    write(a=f"{first}from pipeline.core.files import read as by_its_older_name\nf = 1\n")
    assert plugins.load("python:a.f", "x") == 1
    write(b=line + "\n")
    with pytest.raises(ParamsError, match=r"^plugins/b\.py, line \d: it imports pipeline\.\w+"):
        plugins.load("python:a.f", "x")


def test_a_set_of_packages_that_a_plugin_needs_is_named(project, monkeypatch):
    monkeypatch.setattr(plugins.packages, "_found", lambda module: module != "torch")
    monkeypatch.setitem(sys.modules, "torch", None)
    write(a="import torch\n")
    with pytest.raises(MissingSetError, match=r"^backbone x needs PyTorch .*install torch"):
        plugins.load("python:a.f", "backbone x")


def test_an_error_of_ours_passes_as_it_is_and_any_other_ends_in_a_line(
    project, capsys, monkeypatch
):
    with pytest.raises(DataError, match=r"^it is night$"), plugins.blamed("x"):
        raise DataError("it is night")
    write(a="def f():\n    raise RuntimeError('no\\nway')\n")
    monkeypatch.setattr(sys, "argv", ["stage"])

    def stage():
        plugins.load("python:a.f", "x")()  # as the pipeline calls the methods of a kind

    with pytest.raises(SystemExit) as ended:
        command.run(stage)
    assert ended.value.code == 2
    assert capsys.readouterr().err == "stage: error: plugins/a.py, line 2: RuntimeError: no way\n"


def test_the_digest_is_of_all_files_but_notes_and_caches(project):
    write(a="f = 1\n")
    first = plugins.digest()
    Path("plugins/__pycache__").mkdir()
    Path("plugins/__pycache__/a.pyc").write_text("compiled")
    Path("plugins/README.md").write_text("notes")
    assert plugins.digest() == first
    pin("a==1")
    assert plugins.digest() != first


def test_the_parameters_are_checked_before_any_work(project):
    (project.folder / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())

    def complaint():
        with pytest.raises(ParamsError) as caught:
            params.check_file(kinds.schema)
        return str(caught.value)

    missing = (
        "plugins does not exist, but dvc.yaml declares it: run `mkdir plugins && touch plugins/"
    )
    assert complaint().startswith(missing)
    pin()
    assert complaint().startswith(
        "data/weights does not exist, but dvc.yaml declares it: run `mkdir "
    )
    Path("data/weights").mkdir()
    params.check_file(kinds.schema)
    project.set(**{"ingest.source": "python:a.f"})
    assert complaint().startswith("ingest.source python:a.f: plugins/a.py does not exist, and")
    write(a="1 / 0  # not imported to see that it is there")
    params.check_file(kinds.schema)
    project.set(**{"rank.backbones": ["efficientnet_lite0", "python:none.f"]})
    params.check_file(kinds.schema)
    project.set(**{"rank.run": ["asked"]})
    assert complaint().startswith("backbone python:none.f: plugins/none.py does not exist")
    project.set(**{"rank.run": [], "extract.backbone": "python:a.f"})
    params.check_file(kinds.schema)
    project.set(**{"from_scratch.run": ["asked"]})
    assert complaint().startswith("from_scratch needs random weights, but backbone python:a.f")
    project.set(**{"extract.weights": "random"})
    assert "backbone python:a.f comes with its own weights; set weights to pre" in complaint()
    project.set(**{"ingest.source": "python:a"})
    assert "torchvision:NAME or python:MODULE.FUNCTION" in complaint()


def test_the_examples_of_the_page_run(project, draw_picture):
    page = (ROOT / "docs" / "plugins.md").read_text()
    examples = {found["name"]: found["code"] for found in EXAMPLE.finditer(page)}
    assert len(examples) == page.count("```python")
    Path("plugins").mkdir()
    for name, code in examples.items():
        (Path("plugins") / name).write_text(code)
    save_file(small(), "plugins/small.safetensors")

    folder = Path("data/raw/shapes")
    folder.mkdir()
    for number in range(60):
        square = bool(number % 2)
        draw_picture(number, square=square).save(
            folder / f"{('disc', 'square')[square]}_{number}.png"
        )
    (folder / "disc_60.png").write_text("not a picture")
    project.set(**{"ingest.source": "python:by_name.rows", "ingest.path": str(folder)})
    ingest()
    assert read_manifest(Path("data/manifest.parquet"))["label"].value_counts().to_dict() == {
        "disc": 30,
        "square": 30,
    }
    assert REFUSED.read_text().count("\n") == 2

    project.set(**{"extract.backbone": "python:thumbnail.network", "extract.device": "cpu"})
    engine = engines.open_engine(params.load(kinds.schema).extract, IMAGE)
    picture = (folder / "disc_0.png").read_bytes()
    features = engine.run(engine.make_views([(picture, [IMAGE.original])]))
    assert features.shape == (1, 192)
    assert features.std() > 0
    assert catalogue.load(Backbone.parse("python:small.network")).dimension == 16


def small():
    """Weights for the page's network."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 5)), nn.Sequential(nn.Conv2d(8, 16, 3)))
    return layers.state_dict()

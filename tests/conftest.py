"""What most tests stand on: an empty project folder, and pictures made for the purpose.

Tests may run side by side (`pytest -n 2`). What is dear to make is made by one worker for all, in
the folder `shared`, where no test changes anything.
"""

import contextlib
import fcntl
import gc
import importlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

# Threads that wait for a core spin: beside another worker a test took up to ten times as long.
# NumPy and PyTorch read it as they are imported, and so do the processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as pipeline/ sets it
# Set, each process that a test starts would compile all of our code again: 3 s for a `headstart`.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

import numpy as np
import pytest
import yaml
from hypothesis import settings
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from pipeline.core import yaml_in_c

sys.dont_write_bytecode = False
# Libraries make millions of objects that live on: to look for garbage among them is slow.
gc.set_threshold(100_000, 50, 100)
settings.register_profile("patient", deadline=None)  # beside other work, a test may take long
settings.load_profile("patient")
ROOT = Path(__file__).parent.parent
CHROMIUM = shutil.which("chromium")  # .ci/run installs it
SMALL = {"extract.backbone": "timm:test_resnet", "extract.weights": "random"}
ON_S3 = ("tests/sources/test_bucket.py", "tests/store/test_shared.py")
SERVERLESS = tuple(f"tests/flows/test_{of}.py" for of in ("cluster", "experiments", "forked"))
# They take long: begun last, one is left alone.
FIRST = ("tests/flows", "tests/test_repro.py", "tests/runners/test_on_ray.py",
         "tests/test_tutorials.py", "tests/test_examples.py")  # fmt: skip


def together(test: str) -> str:
    """Tests of which this is the same run on one worker: of a file, of one server of Prefect or S3.

    So the fixtures of a module are made once, and one server of Prefect or S3 is enough. Smoke runs
    of benchmarks and tutorials share nothing, and examples little: whichever worker is free takes
    the next.
    """
    file, _, name = test.partition("::")
    if name.startswith("test_a_benchmark_runs"):
        return test
    if file in ("tests/test_examples.py", "tests/test_tutorials.py"):
        return f"{file}::{name.rpartition('[')[2]}"
    if file in ON_S3:
        return "S3"
    return "tests/flows" if file.startswith("tests/flows/") and file not in SERVERLESS else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """In place of `--dist loadgroup`, which pytest-xdist 3.8 does not do with pytest 9.2."""
    from xdist.scheduler import LoadScopeScheduling

    class Together(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return together(nodeid)

    config.option.loadscopereorder = False  # or what has most tests came first
    return Together(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: not together(item.nodeid).startswith(FIRST))


# Most tests have fewer examples than prediction sets take, and networks without inner blocks.
PLAIN = {"extract.blocks": "last", "train.layers": "last", "train.coverage": None}
PLAIN |= {"train.optimizer": "lbfgs", "train.row_weights": "none"}


class Parameters:
    """A folder with a `params.yaml`."""

    folder: Path

    def set(self, **knobs: Any) -> None:
        """Change parameters or sections: `set(**{"train.power": 1.0, "augment": {"views": 2}})`."""
        file = self.folder / "params.yaml"
        document = yaml_in_c.load(file.read_bytes())
        for name, value in knobs.items():
            section, _, knob = name.partition(".")
            document[section] = document[section] | {knob: value} if knob else value
        file.write_text(yaml.dump(document, Dumper=yaml.CSafeDumper, sort_keys=False))


class Project(Parameters):
    """A folder to run stages in, with the repository's own `params.yaml`, made `PLAIN`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        text = (ROOT / "params.yaml").read_text()
        for name, value in PLAIN.items():  # comments stay
            key, written = name.partition(".")[2], "null" if value is None else value
            text = re.sub(rf"(?m)^(  {key}: ).*?(?= *(#|$))", rf"\g<1>{written}", text, count=1)
        (folder / "params.yaml").write_text(text)
        (folder / "reports").mkdir()
        (folder / "data" / "raw").mkdir(parents=True)


@pytest.fixture(scope="session", autouse=True)
def ctrl_c_is_heard() -> None:
    """A shell has what it starts in the background ignore Ctrl-C, and so do the children of that.

    Tests that send it to a process they started would wait in vain.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all workers have in common."""
    own = tmp_path_factory.getbasetemp()
    folder = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    (folder / "shared").mkdir(exist_ok=True)
    return folder / "shared"


@contextlib.contextmanager
def one_at_a_time(file: Path) -> Iterator[None]:
    """One of all workers at a time is let in."""
    with file.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """The folder as `make` fills it: the first worker makes it, the others wait for it."""
    with one_at_a_time(folder):
        if not folder.exists():
            unfinished = folder.with_suffix(".unfinished")
            shutil.rmtree(unfinished, ignore_errors=True)  # of one that failed
            unfinished.mkdir()
            make(unfinished)
            unfinished.rename(folder)
    return folder


@pytest.fixture(scope="session")
def exported(shared: Path) -> Path:
    """Where backbones exported to ONNX are kept for all tests: an export takes seconds.

    Tests may add to it. One that harms an export does so in a store of its own.
    """
    folder = shared / "store" / "backbones"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def export_once(exported: Path, name: str, weights: str) -> Path:
    """The backbone's export among those for all tests: not made by each worker in one moment."""
    from pipeline.backbones import exports
    from pipeline.core.backbone import Backbone

    with one_at_a_time(exported), pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_STORE", str(exported.parent))
        return exports.exported(Backbone.parse(name, weights))


@pytest.fixture(scope="session")
def lite0(exported: Path) -> Path:
    """The default backbone, exported."""
    return export_once(exported, "efficientnet_lite0", "pretrained")


@pytest.fixture(scope="session")
def small_backbone(exported: Path) -> Path:
    """The export of `SMALL`, a network of half a million weights that looks at 160 × 160 pixels."""
    return export_once(exported, SMALL["extract.backbone"], SMALL["extract.weights"])


def begin_store(folder: Path, exported: Path) -> Path:
    """A new feature store in a cache in `folder`, in which backbones are exported already."""
    store = folder / "cache" / "features"
    store.mkdir(parents=True)
    (store / "backbones").symlink_to(exported)
    return store


@contextlib.contextmanager
def project_in(folder: Path, exported: Path) -> Iterator[Project]:
    """A project in the folder, in which the block runs, with a store of its own there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HEADSTART_STORE", str(begin_store(folder, exported)))
        yield Project(folder)


def enter_copy(folder: Path, place: Path, patch: pytest.MonkeyPatch) -> Project:
    """Work from now on in a copy of what was made with `project_in`, its store too."""
    shutil.copytree(folder, place, symlinks=True)
    patch.chdir(place)
    patch.setenv("HEADSTART_STORE", str(place / "cache" / "features"))
    project = Project.__new__(Project)
    project.folder = place
    return project


@pytest.fixture(scope="session")
def dvc_template(shared: Path) -> Path:
    """A fresh repository of git and DVC, to be copied: `dvc init` takes seconds."""

    def make(folder: Path) -> None:
        dvc = str(Path(sys.executable).with_name("dvc"))
        config = (dvc, "config", "core.analytics", "false")
        for command in (("git", "init", "-q"), (dvc, "init", "-q"), config):
            subprocess.run(command, cwd=folder, check=True)

    return made_once(shared / "template", make)


@pytest.fixture
def project(tmp_path: Path, exported: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HEADSTART_STORE", str(begin_store(tmp_path, exported)))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for stages run as processes
    return Project(folder)


@pytest.fixture(scope="session")
def bundled(shared: Path, lite0: Path, draw_picture: Callable[..., Image.Image]) -> Path:
    """A project in which all stages ran on drawn pictures, up to `bundle/`; not to be changed."""

    def make(folder: Path) -> None:
        with project_in(folder, lite0.parent) as project:
            knobs = {"ingest.source": "folder", "ingest.path": "data/raw/shapes"}
            project.set(**knobs, **{"augment.views": 0, "evaluate.bootstrap": 10})
            for i in range(60):
                path = Path("data/raw/shapes") / ("disc", "square")[i % 2] / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                draw_picture(i, 80 + 7 * i, 60 + 5 * i, square=bool(i % 2)).save(path)
            for stage in ("ingest", "augment", "extract", "train", "evaluate", "checks", "bundle"):
                module = importlib.import_module(f"pipeline.{stage}")
                getattr(module, stage)()

    return made_once(shared / "bundled", make)


@pytest.fixture(scope="session")
def by_hand(shared: Path, exported: Path) -> Callable[[str], Path]:
    """The bundle of vectors that `helpers/bundles.py` writes for a task; not to be changed."""
    from tests.helpers.bundles import write_by_hand

    def make(folder: Path, task: str) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("HEADSTART_STORE", str(exported.parent))
            write_by_hand(folder, task)

    return lambda task: made_once(shared / task, partial(make, task=task)) / "bundle"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server of S3: its start takes seconds."""
    from tests.helpers import seaweed

    with seaweed.running(tmp_path_factory.mktemp("seaweed") / "server") as address:
        yield address


def chromium() -> Iterator[Browser]:
    """Debian's Chromium, headless, which asks nobody for anything by itself.

    While it is there, no other event loop can run.
    """
    if not CHROMIUM:
        pytest.skip("needs Debian's package chromium")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield found
        found.close()


@pytest.fixture
def browser() -> Iterator[Browser]:
    yield from chromium()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(disk)]
    can_mount = os.geteuid() == 0 and shutil.which("mount") is not None
    if not can_mount or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture(scope="session")
def draw_shapes(draw_picture: Callable[..., Image.Image]) -> Callable[..., None]:
    """Draws pictures of discs and squares where a project has them ingested."""

    def draw(numbers: range, project: Path = Path()) -> None:
        for i in numbers:
            path = project / "data/raw/shapes" / ("disc", "square")[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            draw_picture(i, square=bool(i % 2)).save(path)

    return draw


@pytest.fixture(scope="session")
def draw_picture() -> Callable[..., Image.Image]:
    """Makes a small picture that differs with its seed: a disc or a square on stripes."""

    def draw(seed: int, width: int = 80, height: int = 60, square: bool = False) -> Image.Image:
        random = np.random.default_rng(seed)
        rows, columns = np.mgrid[:height, :width]
        back, front = random.integers(0, 256, (2, 3))
        stripes = ((rows + columns * random.integers(1, 4)) // 7 % 2)[..., None]
        picture = np.where(stripes == 0, back, back // 2)
        middle = random.uniform(0.3, 0.7, 2) * (height, width)
        down, right = abs(rows - middle[0]), abs(columns - middle[1])
        distance = np.maximum(down, right) if square else np.hypot(down, right)
        picture[distance < min(width, height) / 4] = front
        return Image.fromarray(picture.astype(np.uint8))

    return draw

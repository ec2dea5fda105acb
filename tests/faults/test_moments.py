"""Two runs at once on one working copy, and a clock that jumps: the outputs are what they were."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import begin_store
from tests.helpers.repository import Repository

# Every look at the time of day sees another decade; the monotonic clock is left alone.
JUMPING_CLOCK = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sys/time.h>
#include <time.h>

static long leap(void) {
    static unsigned looks;
    static const long decades[] = {0, 10, -10, 3, -30, 1};
    return decades[__atomic_fetch_add(&looks, 1, __ATOMIC_RELAXED) % 6] * 315360000L;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec += leap();
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result) *result = now.tv_sec;
    return now.tv_sec;
}
"""


@pytest.fixture
def repository(
    tmp_path: Path,
    exported: Path,
    dvc_template: Path,
    draw_picture: Callable[..., Image.Image],
    monkeypatch: pytest.MonkeyPatch,
) -> Repository:
    """A repository in which nothing has run yet."""
    monkeypatch.setenv("HEADSTART_STORE", str(begin_store(tmp_path, exported)))
    repository = Repository(tmp_path / "repository", dvc_template)
    for i in range(40):
        path = repository.folder / "data/raw/shapes" / ("disc", "square")[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        draw_picture(i, square=bool(i % 2)).save(path)
    knobs = {"ingest.source": "folder", "ingest.path": "data/raw/shapes", "augment.views": 1}
    repository.set(**knobs, **{"evaluate.bootstrap": 50})
    return repository


def undisturbed(repository: Repository, store: Path) -> dict[str, bytes]:
    """The outputs of a run from scratch."""
    shutil.rmtree(store)
    for name in ("bundle", "data/features", "data/pictures", "models", "reports"):
        shutil.rmtree(repository.folder / name)
    repository.run("dvc", "repro", "--force", "--no-run-cache")
    return repository.outputs()


@pytest.mark.slow
def test_two_repros_at_once_leave_what_one_leaves(repository: Repository, tmp_path: Path) -> None:
    for _ in range(2):
        both = [
            subprocess.Popen(
                ["dvc", "repro"], cwd=repository.folder, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
            for _ in range(2)
        ]  # fmt: skip
        for process in both:
            said, _ = process.communicate()
            # DVC lets one of them in; it may also let neither in, each having stopped the other.
            if process.returncode:
                assert re.search("lock|busy", said), said
                assert "Traceback" not in said
        repository.set(**{"ingest.seed": 1})
    repository.repro()
    assert repository.repro() == []
    found = repository.outputs()
    assert found == undisturbed(repository, tmp_path / "cache" / "features")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cc"), reason="another clock needs a C compiler")
def test_a_clock_that_jumps_changes_no_byte(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, library = tmp_path / "clock.c", tmp_path / "clock.so"
    source.write_text(JUMPING_CLOCK)
    made = ["cc", "-shared", "-fPIC", "-O1", str(source), "-o", str(library), "-ldl"]
    subprocess.run(made, check=True)
    with monkeypatch.context() as jumping:
        jumping.setenv("LD_PRELOAD", str(library))
        looks = "import time; print(len({round(time.time() / 3e8) for _ in range(12)}))"
        assert int(repository.run("python", "-c", looks)) > 3
        repository.repro()
        repository.set(**{"augment.rotate": 30})
        shown = repository.run("dvc", "repro")
        assert int(re.search(r"(\d+) reused", shown)[1]) > 30  # what was stored is found again
        assert repository.repro() == []
        found = repository.outputs()
    assert repository.repro() == []
    assert found == undisturbed(repository, tmp_path / "cache" / "features")

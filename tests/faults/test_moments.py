"""Two runs at once on one working copy, and a clock that jumps: the outputs are what they were."""

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import PLAIN, SMALL, begin_store
from tests.helpers.repository import Repository

IN_THE_END = {"augment.rotate": 30}
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


def begin(
    folder: Path,
    exported: Path,
    template: Path,
    draw_shapes: Callable[..., None],
    patch: pytest.MonkeyPatch,
) -> Repository:
    """A repository in which nothing has run yet, with a store of its own."""
    patch.setenv("HEADSTART_STORE", str(begin_store(folder, exported)))
    repository = Repository(folder / "repository", template)
    draw_shapes(range(40), repository.folder)
    knobs = {"ingest.source": "folder", "ingest.path": "data/raw/shapes", "augment.views": 1}
    repository.set(**PLAIN, **SMALL, **knobs, **{"evaluate.bootstrap": 50})
    return repository


@pytest.fixture
def repository(
    tmp_path: Path,
    small_backbone: Path,
    dvc_template: Path,
    draw_shapes: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Repository:
    return begin(tmp_path, small_backbone.parent, dvc_template, draw_shapes, monkeypatch)


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
    small_backbone: Path,
    dvc_template: Path,
    draw_shapes: Callable[..., None],
) -> dict[str, bytes]:
    """The outputs of one run from scratch, in another folder, with the parameters of the end."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        alone = begin(folder, small_backbone.parent, dvc_template, draw_shapes, patch)
        alone.set(**IN_THE_END)
        alone.repro()
    return alone.outputs()


@pytest.mark.slow
def test_two_repros_at_once_leave_what_one_leaves(
    repository: Repository, undisturbed: dict[str, bytes]
) -> None:
    repository.set(**IN_THE_END)
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
    repository.repro()
    assert repository.repro() == []
    assert repository.outputs() == undisturbed


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cc"), reason="another clock needs a C compiler")
def test_a_clock_that_jumps_changes_no_byte(
    repository: Repository,
    undisturbed: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
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
        repository.set(**IN_THE_END)
        shown = repository.run("dvc", "repro")  # starts the stages that were forked so far
        assert int(re.search(r"(\d+) reused", shown)[1]) > 30  # what was stored is found again
        assert repository.repro() == []
    assert repository.repro() == []
    assert repository.outputs() == undisturbed

"""The memory and the disk that a stage may use."""

import pytest

from pipeline.core import memory
from pipeline.core.errors import DataError, DiskError

# A line of mountinfo: the root of the mount, its point, its type and its options.
MOUNT = "30 20 0:26 {root} {point} rw,relatime shared:9 - {kind} cgroup rw{options}\n"
NO_LIMIT = {memory.LIMIT_1: str(2**63 - 4096), memory.LIMIT_2: "max"}


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """A machine of 64 GB, and what this process reads of its control groups."""
    monkeypatch.setattr(memory, "PROC", tmp_path / "proc")
    monkeypatch.setattr("os.sysconf", {"SC_PHYS_PAGES": 16_000_000, "SC_PAGE_SIZE": 4000}.get)
    (tmp_path / "proc").mkdir()
    return tmp_path / "proc"


def tree(proc, name, limits, root="/", own="/a/b"):
    """Make the groups /, /a and /a/b of one version; return the folder where they are mounted."""
    point = proc.parent / name
    for group in ("", "a", "a/b"):
        (point / group).mkdir(parents=True, exist_ok=True)
        if text := limits.get(group):
            (point / group / name).write_text(f"{text}\n")
    first = name == memory.LIMIT_1
    of = {"kind": "cgroup", "options": ",memory"} if first else {"kind": "cgroup2", "options": ""}
    for file, line in (
        ("cgroup", f"{'5:cpu,memory' if first else '0:'}:{own}\n"),
        ("mountinfo", MOUNT.format(root=root, point=point, **of)),
    ):
        with (proc / file).open("a") as stream:
            stream.write(line)
    return point


@pytest.mark.parametrize("name", [memory.LIMIT_1, memory.LIMIT_2])
@pytest.mark.parametrize("group", ["", "a", "a/b"])
def test_the_least_limit_on_the_way_up_counts(proc, name, group):
    limits = {"": NO_LIMIT[name], "a": "9000000000", "a/b": NO_LIMIT[name]}
    point = tree(proc, name, limits | {group: "6000000000"})
    assert memory.limit() == (6_000_000_000, point / group / name)
    memory.require(6_000_000_000, "train", "take less")
    with pytest.raises(DataError) as stopped:
        memory.require(7_000_000_000, "train", "take less")
    assert str(stopped.value) == (
        f"train needs about 7.0 GB of memory, but {point / group / name} limits it to 6.0 GB;"
        " raise that limit, or take less"
    )


def test_both_versions_count_and_so_does_the_machine(proc):
    assert memory.limit() == (64_000_000_000, None)  # no control groups, as on macOS
    first = tree(proc, memory.LIMIT_1, {"a": "8000000000"})
    assert memory.limit() == (8_000_000_000, first / "a" / memory.LIMIT_1)
    second = tree(proc, memory.LIMIT_2, {"a/b": "5000000000"})
    assert memory.limit() == (5_000_000_000, second / "a" / "b" / memory.LIMIT_2)
    (second / "a" / "b" / memory.LIMIT_2).write_text("90000000000\n")
    (first / "a" / memory.LIMIT_1).unlink()
    with pytest.raises(DataError, match=r"but this machine has 64\.0 GB; take less$"):
        memory.require(65_000_000_000, "train", "take less")


@pytest.mark.parametrize("own", ["/docker/1", "/docker/1/a/b", "/"])
def test_a_container_sees_its_own_group_as_the_root(proc, own):
    """The mount begins at the container's group; with a name space of its own, the path does."""
    point = tree(proc, memory.LIMIT_1, {"": "7000000000"}, root="/docker/1", own=own)
    assert memory.limit() == (7_000_000_000, point / memory.LIMIT_1)


def test_too_little_disk_is_told_for_a_folder_that_is_yet_to_be_made(tmp_path):
    memory.require_disk(1000, tmp_path / "data" / "features", "extract: data/features")
    with pytest.raises(DiskError, match=r"^extract: data/features needs about .*free; free some"):
        memory.require_disk(2**80, tmp_path / "data" / "features", "extract: data/features")

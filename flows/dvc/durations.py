"""How long each stage took when it last ran, kept in `.headstart/durations.json` (not in git)."""

import json
import threading
from pathlib import Path

KEPT = 20  # results of a stage that are remembered, the newest


class Durations:
    """Seconds by stage and by the digest of the result that they made (see `process.digest`).

    A result that DVC's run cache brings back, or that a run of plain `dvc repro` left as it was,
    thus finds its own time; the time of another result is never shown for it.
    """

    def __init__(self, root: Path) -> None:
        """Read what is known of the working copy `root`."""
        self._path = root / ".headstart" / "durations.json"
        self._lock = threading.Lock()
        try:
            self._seconds: dict[str, dict[str, float]] = json.loads(self._path.read_text())
        except (FileNotFoundError, json.JSONDecodeError):  # lost figures cost nothing
            self._seconds = {}

    def note(self, stage: str, digest: str, seconds: float) -> None:
        """Remember how long `stage` took."""
        with self._lock:
            results = self._seconds.setdefault(stage, {})
            results.pop(digest, None)
            results[digest] = seconds  # rounded once, where it is shown
            for old in list(results)[:-KEPT]:
                del results[old]
            self._path.parent.mkdir(exist_ok=True)
            new = self._path.with_suffix(".new")
            new.write_text(json.dumps(self._seconds, indent=1))
            new.replace(self._path)

    def words(self, stage: str, digest: str) -> str:
        """How long `stage` took to make the result `digest`, for people."""
        seconds = self._seconds.get(stage, {}).get(digest)
        return "it last ran outside of a flow" if seconds is None else f"it took {seconds:.1f} s"

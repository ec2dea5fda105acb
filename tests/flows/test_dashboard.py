"""Prefect's page in a real browser: what people see of a run.

`python tests/flows/test_dashboard.py http://127.0.0.1:4200 FLOW_RUN_ID docs/pictures` takes the
pictures of the docs in the same way.
"""

import json
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import urlsplit

import httpx
import pytest
import yaml
from playwright.sync_api import Page, sync_playwright
from toys import PATIENCE, PROJECT, Patient, Toy

from flows import access

CHROMIUM = shutil.which("chromium")  # .ci/run installs it
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
DECLARED = yaml.safe_load((PROJECT / "dvc.yaml").read_text())["stages"]
STAGES = [name for name, stage in DECLARED.items() if "foreach" not in stage]  # not the optional
MEASURE = """
import json, pathlib
from PIL import Image
pathlib.Path("metrics.json").write_text(json.dumps({"test": {"accuracy": 0.96875}}))
Image.new("RGB", (300, 200), "orange").save("confusion_matrix.png")
pathlib.Path("report.html").write_text("<p>what came of it</p>")
"""


def visit(page: str, run_id: str, into: Path | None = None) -> dict[str, str]:
    """The texts of a flow run's page and of its artifacts' pages; pictures of them go `into`.

    The browser is let in by the address that `make dashboard` prints; nothing is typed.
    """
    user, _, word = (access.bring(f"{page}/api") or "").partition(":")
    enter = access.let_in(f"{page}/api")
    api = httpx.Client(base_url=f"{page}/api", auth=(user, word), transport=Patient())
    of_run = {"flow_run_id": {"any_": [run_id]}}
    artifacts = api.post("artifacts/filter", json={"artifacts": of_run}).json()
    this = {"id": {"any_": [run_id]}}
    tasks = api.post("task_runs/filter", json={"flow_runs": this}).json()
    names = [task["name"] for task in tasks]
    texts: dict[str, str] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1400, "height": 900})
        tab.set_default_timeout(1000 * PATIENCE)
        outside: list[str] = []
        tab.on(
            "request",
            lambda r: None if r.url.startswith((page, "blob:", "data:")) else outside.append(r.url),
        )
        if enter:
            tab.goto(enter)
            tab.wait_for_url("**/dashboard**")
        address, awaited = f"{page}/runs/flow-run/{run_id}", f"{len(names)} Task runs"
        texts["run"] = _read(tab, address, into and into / "run.png", "Task Runs", awaited)
        tab.get_by_text("Task Runs", exact=True).click()
        _wait_for_texts(tab, "Newest to Oldest", *names)
        texts["tasks"] = tab.inner_text("body")
        for artifact in artifacts:
            name = artifact["key"].rpartition("-")[2]
            address = f"{page}/artifacts/artifact/{artifact['id']}"
            rows = json.loads(artifact["data"]) if artifact["type"] == "table" else []
            shown = [row["metric"] for row in rows]
            picture = into and into / f"{name}.png"
            texts[name] = _read(tab, address, picture, "Show raw data", *shown)
            texts[f"{name} links"] = str(tab.evaluate("[...document.links].map(a => a.href)"))
            tab.wait_for_function("[...document.images].every(i => i.complete)")
            texts[f"{name} pictures"] = str(
                tab.evaluate("[...document.images].filter(i => i.naturalWidth > 100).length")
            )
        browser.close()
    texts["outside"] = " ".join(outside)
    return texts


def _wait_for_texts(tab: Page, *awaited: str) -> None:
    seen = "awaited => awaited.every(text => document.body.innerText.includes(text))"
    tab.wait_for_function(seen, arg=list(awaited))


def _read(tab: Page, address: str, picture: Path | None, *awaited: str) -> str:
    tab.goto(address)
    _wait_for_texts(tab, *awaited)
    tab.wait_for_load_state("networkidle")
    if picture:
        tab.wait_for_timeout(1500)  # the graph moves to its place
        tab.screenshot(path=picture)
    return tab.inner_text("body")


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs Debian's package chromium")
def test_the_page_shows_the_stages_the_metrics_and_the_pictures(toy: Toy) -> None:
    toy.stages(**{name: {"needs": STAGES[:number][-1:]} for number, name in enumerate(STAGES)})
    (toy.root / "measure.py").write_text(MEASURE)
    graph = yaml.safe_load((toy.root / "dvc.yaml").read_text())
    evaluate = graph["stages"]["evaluate"]
    evaluate["cmd"] = [evaluate["cmd"], "python measure.py"]
    evaluate |= {"metrics": ["metrics.json"], "plots": ["confusion_matrix.png", "report.html"]}
    (toy.root / "dvc.yaml").write_text(yaml.safe_dump(graph))
    run = toy.flow()
    seen = visit(toy.api.removesuffix("/api"), run.id)
    assert f"{len(STAGES)} Task runs" in seen["run"]
    assert [name for name in STAGES if name not in seen["tasks"]] == []
    assert "test.accuracy" in seen["metrics"]
    assert "0.96875" in seen["metrics"]
    assert str(toy.root / "report.html") in seen["outcome"]
    assert (toy.root / "report.html").as_uri() in seen["outcome links"]
    assert seen["pictures pictures"] == "1"  # the confusion matrix
    assert seen["outside"] == ""  # the page asks nobody but its own server


# What a page that its user happens to open may try: to read, to declare a deployment that runs a
# command, to start it, all that blindly, to listen, and to be let in. Told of is what came of it.
ATTACK = """
async api => {
  const page = api.replace(/\\/api$/, ""), came = {};
  const attempt = async (name, what) => {
    try { came[name] = await what(); } catch (error) { came[name] = "refused"; }
  };
  const post = async (path, body) => {
    const headers = {"Content-Type": "application/json"};
    const reply = await fetch(api + path, {method: "POST", headers, body: JSON.stringify(body)});
    if (!reply.ok) throw reply.status;
    return await reply.json();
  };
  const get = async address => {
    const reply = await fetch(address);
    if (!reply.ok) throw reply.status;
    return await reply.text();
  };
  await attempt("read", async () => (await post("/flow_runs/filter", {})).length);
  await attempt("settings", () => get(api + "/admin/settings"));
  await attempt("page", () => get(page + "/"));
  await attempt("enter", () => get(page + "/enter?code=guessed"));
  await attempt("code", () => post("/../enter", {}));
  await attempt("stored", () => localStorage.getItem("prefect-password") || "refused");
  await attempt("run", async () => {
    const flow = await post("/flows/", {name: "evil"});
    const script = {script: "touch pwned"};
    const pull_steps = [{"prefect.deployments.steps.run_shell_script": script}];
    const made = await post("/deployments/", {name: "evil", flow_id: flow.id, pull_steps});
    return (await post(`/deployments/${made.id}/create_flow_run`, {})).id;
  });
  for (const type of ["text/plain", "application/json"])
    await attempt(`blind ${type}`, async () => {
      const body = new Blob([JSON.stringify({name: "evil"})], {type});
      await fetch(api + "/flows/", {method: "POST", mode: "no-cors", body});
      return "refused";  // what came of it cannot be seen here
    });
  for (const protocols of [[], ["prefect"]])
    await attempt(`socket ${protocols}`, () => new Promise(done => {
      const socket = new WebSocket(api.replace("http", "ws") + "/events/out", protocols);
      socket.onopen = () => {
        socket.send(JSON.stringify({type: "auth", token: "guessed"}));
        socket.send(JSON.stringify({type: "filter", filter: {}}));
        setTimeout(() => done("listens"), 1000);
      };
      socket.onclose = () => done("refused");
    }));
  return came;
}
"""


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs Debian's package chromium")
def test_other_pages_get_nothing_and_the_users_own_works_without_typing(toy: Toy) -> None:
    flow = toy.post("flows/", name="of-the-user")
    toy.post("flow_runs/", flow_id=flow["id"], name="seen-by-its-user")
    page = toy.api.removesuffix("/api")
    enter, port = access.let_in(toy.api), urlsplit(page).port
    rebound = f"http://evil.example:{port}"
    assert enter
    with sync_playwright() as playwright, an_empty_page() as elsewhere:
        flags = ["--host-resolver-rules=MAP evil.example 127.0.0.1"]
        # Chromium's own guard of this machine, which not all browsers have and no local page meets.
        flags += ["--disable-features=LocalNetworkAccessChecks"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        user = browser.new_context()  # in which all pages are opened
        tab = user.new_page()
        tab.set_default_timeout(1000 * PATIENCE)
        tab.goto(enter)
        tab.wait_for_url("**/dashboard**")
        for address in ("runs", "deployments", "runs"):
            tab.goto(f"{page}/{address}")
            tab.wait_for_load_state("networkidle")
            assert tab.locator("input[type=password]").count() == 0
        _wait_for_texts(tab, "seen-by-its-user")
        # Its name led elsewhere as it was loaded, and leads here from then on.
        user.route(f"{rebound}/elsewhere", lambda route: route.fulfill(body="<p>some page</p>"))
        for start, api in (
            (elsewhere, toy.api),
            (elsewhere.replace("127.0.0.1", "localhost"), toy.api),
            (elsewhere, toy.api.replace("127.0.0.1", "localhost")),
            (elsewhere, f"{rebound}/api"),
            (f"{rebound}/elsewhere", f"{rebound}/api"),
        ):
            evil = user.new_page()
            evil.goto(start)
            came = evil.evaluate(ATTACK, api)
            assert len(came) == 11
            assert {name: was for name, was in came.items() if was != "refused"} == {}, start
            evil.close()
        assert tab.goto(enter).status == 403  # type: ignore[union-attr]
        browser.close()
    assert toy.post("flows/filter", flows={"name": {"any_": ["evil"]}}) == []
    assert toy.post("deployments/filter", deployments={"name": {"any_": ["evil"]}}) == []


@contextmanager
def an_empty_page() -> Iterator[str]:
    """The address of a page of another origin: another port of this machine."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<p>some page</p>")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Empty) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


if __name__ == "__main__":
    visit(sys.argv[1], sys.argv[2], Path(sys.argv[3]))

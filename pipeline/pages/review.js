// Corrections on the report's page: each element with data-digest gets a row of buttons. Served by
// `headstart review`, the page saves each correction at once; opened as a file, it exports a CSV.
"use strict";
(() => {
  const served = location.protocol.startsWith("http");
  const columns = ["digest", "field", "old", "new", "who", "why"];
  const rows = new Map();  // by digest and field
  let shown = [...document.querySelectorAll("[data-digest]")];
  const classes = new Set([...document.querySelectorAll("#labels option")].map((one) => one.value));
  const key = (digest, field) => `${digest} ${field}`;

  function made(name, attributes = {}, ...inside) {
    const element = document.createElement(name);
    Object.assign(element, attributes);
    element.append(...inside);
    return element;
  }

  // A cell as pipeline/tables/cells.py and Python's csv write it.
  function cell(text) {
    const formula = /^'*[=+\-@\t\r\n＝＋－＠]/.test(text);
    const number = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text);
    const safe = formula && !number ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }

  function inCsv(who) {
    const lines = [...rows.values()].map((row) => columns.map((c) => cell(c === "who" ? who : row[c])).join(","));
    return [columns.join(","), ...lines.sort()].map((line) => `${line}\n`).join("");
  }

  function words(row, element) {
    if (row.field === "exclude") return "excluded";
    const now = JSON.parse(element.dataset.fields)[row.field] ?? element.dataset.label;
    const name = row.field === "label" ? "" : `${row.field.replace("target:", "")}: `;
    return row.new === now ? `${name}${now || "no label"} is right` : `${name}${now} → ${row.new}`;
  }

  function draw() {
    shown = shown.filter((element) => element.isConnected);
    for (const element of shown) {
      const bar = element.querySelector(".mend");
      const own = [...rows.values()].filter((row) => row.digest === element.dataset.digest);
      element.classList.toggle("mended", own.length > 0);
      bar.querySelector("output").textContent = own.map((row) => words(row, element)).join(", ");
      bar.querySelector(".undo").hidden = !own.length;
    }
    const some = rows.size === 1 ? "1 correction" : `${rows.size} corrections`;
    status.textContent = served ? `${some} in ${place}` : some;
    footer.hidden = !rows.size && !footer.dataset.problem;
  }

  function complain(text) {
    footer.dataset.problem = text;
    problem.textContent = text;
    draw();
  }

  async function put(row) {
    if (!served) {
      row.new === null ? rows.delete(key(row.digest, row.field)) : rows.set(key(row.digest, row.field), row);
      return complain("");
    }
    try {
      const reply = await fetch("corrections", {
        method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(row),
      });
      take(await reply.json(), reply.ok);
    } catch {
      complain("Not saved: the server does not answer. Start `headstart review` again.");
    }
  }

  function take(answer, fine) {
    if (!fine) return complain(`Not saved: ${answer.detail}`);
    place = answer.file;
    rows.clear();
    for (const row of answer.rows) rows.set(key(row.digest, row.field), row);
    complain(answer.warning ?? "");
  }

  function equip(element) {
    const {digest, label} = element.dataset;
    const fields = JSON.parse(element.dataset.fields);
    const field = made("select", {ariaLabel: "what to correct"},
      ...Object.keys(fields).map((name) => made("option", {value: name}, name.replace("target:", ""))));
    field.hidden = Object.keys(fields).length === 1;
    const value = made("input", {placeholder: "new label", ariaLabel: "new label"});
    value.setAttribute("list", "labels");
    if (classes.has(element.dataset.suggested)) value.value = element.dataset.suggested;
    const button = (text, click, name = "") =>
      made("button", {type: "button", className: name, onclick: click}, text);
    const change = () => {
      const text = value.value.trim();
      if (text) put({digest, field: field.value, old: fields[field.value], new: text, why: ""});
      value.value = "";
    };
    value.onkeydown = (event) => { if (event.key === "Enter") change(); };
    element.append(made("div", {className: "mend"},
      field, value, button("Change", change),
      button("Label is right", () => put({digest, field: "label", old: label, new: label, why: ""})),
      button("Exclude", () => put({digest, field: "exclude", old: "", new: "yes", why: ""})),
      button("Undo", async () => {
        for (const row of [...rows.values()]) if (row.digest === digest) await put({...row, new: null});
      }, "undo"),
      made("output")));
  }

  let place = "";
  const status = made("b"), problem = made("span", {className: "problem"});
  const who = made("input", {value: "corrections", ariaLabel: "file name", size: 12});
  const footer = made("div", {className: "footer", hidden: true}, status, problem);
  if (served) {
    footer.append(made("span", {}, "Run `headstart repro` when you are done."));
  } else {
    footer.append(made("label", {}, "corrections/", who, ".csv "), made("button", {
      type: "button",
      onclick: () => {
        const name = who.value.replace(/[^\p{L}\p{N}_.-]/gu, "").replace(/^[.-]+/, "") || "corrections";
        const address = URL.createObjectURL(new Blob([inCsv(name)], {type: "text/csv"}));
        made("a", {href: address, download: `${name}.csv`}).click();
        URL.revokeObjectURL(address);
      },
    }, "Download"));
  }
  window.headstart = {made, equip: (element) => { equip(element); shown.push(element); draw(); }};
  shown.forEach(equip);
  document.body.append(footer);
  draw();
  if (served) {
    fetch("corrections").then(async (reply) => take(await reply.json(), reply.ok),
      () => complain("The server does not answer."));
  }
})();

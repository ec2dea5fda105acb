// The report's map: a scatter of examples on a canvas. Hover shows an example, a click opens it, a
// drag with Shift selects by a lasso, a drag without moves, the wheel zooms.
"use strict";
(() => {
  const source = document.getElementById("points");
  if (!source) return;
  const data = JSON.parse(source.textContent);
  const {made, equip} = headstart;
  const count = data.x.length;
  for (const name of ["label", "answer"]) data[name] = data[name].map((place_) => data.words[place_]);
  data.name = data.name.map((name) => data.start + name);
  const all = [...Array(count).keys()];
  const canvas = document.querySelector(".map canvas");
  const pen = canvas.getContext("2d");
  const tip = document.querySelector(".map .tip");
  const panel = document.querySelector(".map .panel");
  const legend = document.querySelector(".map .legend");
  const by = document.querySelector(".map [name=colour]");
  const split = document.querySelector(".map [name=split]");
  const label = document.querySelector(".map [name=label]");
  const words = document.querySelector(".map [name=search]");
  // Okabe and Ito, in an order that suits light and dark pages; later classes share the last one.
  const colours = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a800"];
  const many = "#8a8a92";

  const counts = new Map();
  for (const name of data.label) counts.set(name, (counts.get(name) ?? 0) + 1);
  const names = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a) || (a < b ? -1 : 1));
  const numeric = names.length > 20 && names.every((name) => name !== "" && isFinite(name));
  data.value = data.label.map(Number);
  const most = new Map(names.slice(0, colours.length).map((name, place) => [name, colours[place]]));
  label.append(...[...names].sort().map((name) => made("option", {value: name}, name || "(none)")));

  let rest = [];  // of the panel, below the open example
  let view = {x: 0, y: 0, zoom: 1}, selected = new Set(), open = -1, hovered = -1, lasso = null;
  let kept = all, ink = [];
  const rgb = new Map();  // of each ink, in the order of a canvas

  // A ramp from blue to orange: the share of examples below a value.
  const ranks = {};
  function ramp(name) {
    ranks[name] ??= (() => {
      const order = all.filter((i) => data[name][i] !== null).sort((a, b) => data[name][a] - data[name][b]);
      const found = Array(count).fill(null);
      order.forEach((i, place) => { found[i] = place / Math.max(order.length - 1, 1); });
      return found;
    })();
    return ranks[name];
  }

  // From blue to orange; most of the change is among the highest.
  function tint(share) {
    if (share === null) return many;
    const mix = (a, b) => Math.round(a + (b - a) * share ** 3);
    return `rgb(${mix(86, 213)} ${mix(140, 94)} ${mix(200, 0)})`;
  }

  function colour(i) {
    if (by.value === "split") return colours[data.split[i]];
    if (by.value === "problem") return data.problem[i] ? colours[5] : many;
    if (by.value === "right") return data.right[i] === null ? many : data.right[i] ? colours[0] : colours[5];
    if (by.value !== "label") return tint(ramp(by.value)[i]);
    return numeric ? tint(ramp("value")[i]) : most.get(data.label[i]) ?? many;
  }

  function explain() {
    ink = all.map(colour);
    for (const one of new Set(ink)) {
      pen.fillStyle = one;  // which then is #rrggbb
      const number = parseInt(pen.fillStyle.slice(1), 16);
      rgb.set(one, (number & 0xff) << 16 | number & 0xff00 | number >> 16);
    }
    const key = (ink, text) => made("span", {}, Object.assign(made("i"), {style: `background:${ink}`}), text);
    const classes = [...most].map(([name, ink]) => key(ink, name || "(none)"));
    if (names.length > most.size) classes.push(key(many, `${names.length - most.size} more`));
    const found = {
      split: data.splits.map((name, place) => key(colours[place], name)),
      problem: [key(colours[5], "hardly usable"), key(many, "nothing found")],
      right: [key(colours[0], "right"), key(colours[5], "wrong"), key(many, "not known")],
      ...(numeric ? {} : {label: classes}),
    }[by.value];
    legend.replaceChildren(...(found ?? [key(tint(0), `low ${by.value}`), key(tint(1), `high ${by.value}`)]));
  }

  const side = () => Math.min(canvas.clientWidth, canvas.clientHeight);
  const place = (i) => {
    const size = side() * 0.94 * view.zoom / 10000;
    return [canvas.clientWidth / 2 + (data.x[i] - middle[0]) * size + view.x,
      canvas.clientHeight / 2 - (data.y[i] - middle[1]) * size + view.y];
  };
  const middle = ["x", "y"].map((axis) => (Math.max(...data[axis]) + Math.min(...data[axis])) / 2);

  let waiting = false;
  function paint() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      const scale = devicePixelRatio || 1, style = getComputedStyle(canvas);
      const [across, down] = [canvas.clientWidth, canvas.clientHeight];
      canvas.width = across * scale;
      canvas.height = down * scale;
      pen.setTransform(scale, 0, 0, scale, 0, 0);
      const small = count > 3000, radius = count > 800 ? 3 : 4.5;
      const size = Math.min(across, down) * 0.94 * view.zoom / 10000;
      const [left, top] = [across / 2 - middle[0] * size + view.x, down / 2 + middle[1] * size + view.y];
      const dot = Math.round(scale), width = canvas.width;
      const image = small && pen.createImageData(width, canvas.height);
      const pixels = small && new Uint32Array(image.data.buffer);
      const draw = (i, faint) => {
        const x = left + data.x[i] * size, y = top - data.y[i] * size;
        if (x < 2 || y < 2 || x > across - 3 || y > down - 3) return;
        if (small) {  // pixels are several times as fast as shapes
          const first = Math.round(y * scale) * width + Math.round(x * scale);
          const value = rgb.get(ink[i]) + (faint ? 0x33000000 : 0xdd000000);
          for (let row = -dot * width; row <= dot * width; row += width) {
            pixels.fill(value, first + row - dot, first + row + dot + 1);
          }
          return;
        }
        pen.globalAlpha = faint ? 0.2 : 0.85;
        pen.fillStyle = ink[i];
        pen.beginPath();
        pen.arc(x, y, radius, 0, 7);
        pen.fill();
      };
      if (selected.size) for (const i of kept) if (!selected.has(i)) draw(i, true);
      for (const i of kept) if (!selected.size || selected.has(i)) draw(i, false);
      if (small) pen.putImageData(image, 0, 0);
      pen.globalAlpha = 1;
      pen.strokeStyle = style.color;
      for (const i of [open, hovered]) {
        if (i < 0) continue;
        pen.lineWidth = 2;
        pen.beginPath();
        pen.arc(...place(i), radius + 3, 0, 7);
        pen.stroke();
      }
      if (lasso) {
        pen.lineWidth = 1;
        pen.beginPath();
        for (const point of lasso) pen.lineTo(...point);
        pen.closePath();
        pen.stroke();
      }
    });
  }

  function filter() {
    const text = words.value.toLowerCase();
    kept = all.filter((i) => (split.value === "" || data.split[i] === Number(split.value))
      && (label.value === "*" || data.label[i] === label.value)
      && (!text || data.name[i].toLowerCase().includes(text)));
    paint();
  }

  const likeness = (i, size) => {
    const content = data.shown[i];
    if (typeof content === "number") {  // on a sheet of 16 in a row, in pages/points.py
      const box = `${64 * (content % 16)},${64 * Math.floor(content / 16)},64,64`;
      const src = `report/${data.digest[i].slice(0, 2)}.svg#svgView(viewBox(${box}))`;
      return made("img", {src, alt: data.name[i], width: size, height: size});
    }
    if (content.startsWith("data:")) return made("img", {src: content, alt: data.name[i], width: size});
    return made("pre", {}, content.trim() || data.name[i]);
  };

  function answer(i) {
    if (!data.answer[i]) return "";
    const how = data.unseen[i] ? "the model" : "a head that had not seen it";
    const fits = data.right[i] === null ? "" : data.right[i] ? " (right)" : " (wrong)";
    return `${how}: ${data.answer[i]}${fits}`;
  }

  const tile = (i) => made("button", {
    type: "button", className: "tile", title: data.name[i], onclick: () => show(i),
  }, likeness(i, 64), made("small", {}, data.label[i]));

  function show(i) {
    open = i;
    const card = made("div", {className: "card"}, made("div", {className: "row"},
      likeness(i, 128), made("div", {}, made("b", {}, data.label[i] || "(no label)"), made("br"),
        answer(i), made("br"), made("small", {}, [data.splits[data.split[i]], data.problem[i],
          data.doubt[i] === null ? "" : `doubt ${data.doubt[i] < 0.01 ? "below 0.01" : data.doubt[i]}`, `novelty ${data.novelty[i]}`]
          .filter(Boolean).join(", ")))),
    made("small", {className: "path"}, data.name[i]));
    if (data.digest.length) {
      const fields = JSON.stringify(data.fields[i] ?? {label: data.label[i]});
      Object.assign(card.dataset, {digest: data.digest[i], label: data.label[i], fields});
    }
    const near = made("div", {className: "tiles"}, ...data.near[i].map(tile));
    panel.replaceChildren(card, made("p", {className: "quiet"}, "Most similar on the map"), near, ...rest);
    if (card.dataset.digest) equip(card);
    paint();
  }

  function select(some, title) {
    selected = new Set(some);
    const shown = some.slice(0, 60);
    const more = some.length > shown.length ? `, the first ${shown.length}` : "";
    const clear = made("button", {type: "button", onclick: () => select([], "")}, "Clear");
    rest = some.length ? [made("p", {}, made("b", {className: "count"},
      `${some.length} ${title}${more} `), clear), made("div", {className: "tiles"}, ...shown.map(tile))] : [];
    open = -1;
    panel.replaceChildren(...rest);
    paint();
  }

  function nearest(event) {
    const box = canvas.getBoundingClientRect();
    let best = -1, least = 12 ** 2;
    for (const i of kept) {
      const [x, y] = place(i);
      const far = (x - event.clientX + box.left) ** 2 + (y - event.clientY + box.top) ** 2;
      if (far <= least) [best, least] = [i, far];
    }
    return best;
  }

  function inside([x, y], polygon) {
    let odd = false;
    polygon.forEach(([ax, ay], k) => {
      const [bx, by_] = polygon[(k + 1) % polygon.length];
      if (ay > y !== by_ > y && x < ((bx - ax) * (y - ay)) / (by_ - ay) + ax) odd = !odd;
    });
    return odd;
  }

  let start = null;
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId);
    start = {at: at(event), view: {...view}, moved: false};
    lasso = event.shiftKey ? [start.at] : null;
  };
  canvas.onpointermove = (event) => {
    if (start) {
      const [x, y] = at(event);
      if (Math.hypot(x - start.at[0], y - start.at[1]) > 4) start.moved = true;
      if (lasso) lasso.push([x, y]);
      else if (start.moved) Object.assign(view, {x: start.view.x + x - start.at[0], y: start.view.y + y - start.at[1]});
      return paint();
    }
    hovered = nearest(event);
    tip.hidden = hovered < 0;
    if (hovered >= 0) {
      tip.replaceChildren(likeness(hovered, 64), made("b", {}, data.label[hovered]), made("br"), made("small", {}, answer(hovered)));
      const [x, y] = place(hovered);
      tip.style.left = `${Math.min(x + 14, canvas.clientWidth - 160)}px`;
      tip.style.top = `${y + 14}px`;
    }
    return paint();
  };
  canvas.onpointerleave = () => { tip.hidden = true; hovered = -1; paint(); };
  canvas.onpointerup = (event) => {
    if (lasso?.length > 2) {
      const polygon = lasso;
      select(kept.filter((i) => inside(place(i), polygon)), "selected");
    } else if (start && !start.moved) {
      const i = nearest(event);
      if (i >= 0) show(i);
    }
    start = lasso = null;
    paint();
  };
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    const [x, y] = at(event), factor = Math.exp(-event.deltaY / 400);
    const zoom = Math.min(Math.max(view.zoom * factor, 0.5), 60), by_ = zoom / view.zoom;
    const centre = [canvas.clientWidth / 2, canvas.clientHeight / 2];
    view = {zoom, x: x - centre[0] - (x - centre[0] - view.x) * by_, y: y - centre[1] - (y - centre[1] - view.y) * by_};
    paint();
  }, {passive: false});
  canvas.onkeydown = (event) => {  // arrows go from example to example
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (!step || !kept.length) return;
    event.preventDefault();
    const order = [...kept].sort((a, b) => data.x[a] - data.x[b]);
    show(order[(order.indexOf(open) + step + order.length) % order.length]);
  };
  by.onchange = () => { explain(); paint(); };
  split.onchange = label.onchange = words.oninput = filter;
  new ResizeObserver(paint).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);

  // A cell of the confusion matrix opens the test examples that it counts.
  const matrix = document.querySelector("[data-matrix]");
  if (matrix) {
    const classes = JSON.parse(matrix.dataset.matrix);
    for (const cell of matrix.querySelectorAll("[id^=cell-]")) {
      const [row, column] = cell.id.split("-").slice(1).map((place_) => classes[Number(place_)]);
      const some = all.filter((i) => data.unseen[i] && data.label[i] === row && data.answer[i] === column);
      if (!some.length) continue;
      const words_ = row === column ? `in test: ${row}, right` : `in test: ${row}, taken for ${column}`;
      cell.classList.add("cell");
      cell.tabIndex = 0;
      cell.setAttribute("role", "button");
      cell.setAttribute("aria-label", `${some.length} ${words_}`);
      const go = () => {
        select(some, words_);
        document.getElementById("map").scrollIntoView();
      };
      cell.addEventListener("click", go);
      cell.addEventListener("keydown", (event) => { if (event.key === "Enter") go(); });
    }
  }
  explain();
  filter();
})();

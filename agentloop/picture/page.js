"use strict";
// The picture of a run. Texts of the run are put into the document with textContent only; nothing here makes markup.
(() => {
  const ROW = 26, GAP_SHARE = 0.06, MARGIN = 6;
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  // A page that was saved to a file has no server to follow.
  const follows = read("settings").live && location.protocol.startsWith("http");
  const colors = { request: "--request", tool: "--tool", question: "--question", compaction: "--compaction", retry: "--retry",
    parked: "--parked", stopped: "--parked", run: "--run" };

  function make(tag, props, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(props || {})) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name in element && name !== "role") element[name] = value;
      else element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }
  const pad = (number) => String(number).padStart(2, "0");
  function took(seconds) {
    if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
    if (seconds < 99.95) return `${seconds.toFixed(1)} s`;
    const whole = Math.round(seconds);
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
    if (whole < 86400) return `${Math.floor(whole / 3600)} h ${pad(Math.floor((whole % 3600) / 60))} min`;
    return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
  }
  const percent = (part, all) => (all > 0 ? `${Math.round((100 * part) / all)} %` : "");
  const words = { run: "run", turn: "turn", request: "model", retry: "retry", tool: "tool", question: "question",
    compaction: "compaction", parked: "parked", stopped: "stopped", message: "message", warning: "warning" };

  // ------------------------------------------------------------------------------- data
  let data, spans, cuts, length, arrived;
  const folded = new Set();
  let visible = [], chosen = -1, view = { from: 0, to: 1 }, isFit = true, hits = null;

  function load(next) {
    data = next;
    arrived = performance.now();
    spans = data.spans;
    spans.forEach((span, id) => { span.id = id; span.inner = []; span.depth = span.p < 0 ? 0 : spans[span.p].depth + 1;
      if (span.p >= 0) spans[span.p].inner.push(id); });
    const idle = data.gaps.reduce((sum, [begin, end]) => sum + end - begin, 0);
    const active = Math.max(data.length - idle, 1e-6);
    cuts = data.gaps.map(([begin, end]) => [begin, end, Math.min(end - begin, active * GAP_SHARE)]);
    length = active + cuts.reduce((sum, cut) => sum + cut[2], 0);
    if (isFit) view = { from: 0, to: length };
    arrange();
  }
  const grown = () => (data.running && follows ? (performance.now() - arrived) / 1000 : 0);
  const endOf = (span) => (span.s === "running" ? span.e + grown() : span.e);
  function place(time) {
    let at = time;
    for (const [begin, end, drawn] of cuts) {
      if (time >= end) at -= end - begin - drawn;
      else if (time > begin) at -= (time - begin) * (1 - drawn / (end - begin));
    }
    return at;
  }
  function arrange() {
    visible = [];
    let hidden = Infinity;
    spans.forEach((span) => {
      if (span.depth > hidden) return;
      hidden = folded.has(span.id) ? span.depth : Infinity;
      visible.push(span.id);
    });
  }

  // ------------------------------------------------------------------------------- page
  const header = make("header");
  const live = make("span", { className: "status", role: "status" });
  const search = make("input", { type: "search", placeholder: "Search (/)", "aria-label": "Search spans", oninput: find });
  const critical = make("button", { type: "button", textContent: "Critical path", title: "c", onclick: toggleCritical });
  const toolbar = make("div", { className: "toolbar", role: "toolbar", "aria-label": "View" },
    make("button", { type: "button", textContent: "+", title: "Zoom in (+)", "aria-label": "Zoom in", onclick: () => zoom(0.5) }),
    make("button", { type: "button", textContent: "−", title: "Zoom out (-)", "aria-label": "Zoom out", onclick: () => zoom(2) }),
    make("button", { type: "button", textContent: "Fit", title: "Show everything (0)", onclick: fit }),
    critical, search, live, make("span", { className: "grow" }),
    make("div", { className: "legend" },
      ...[["request", "model"], ["wait", "before the first token"], ["tool", "tool"], ["question", "person"], ["parked", "parked"],
        ["critical", "critical path"]].map(([name, text]) => make("span", { className: name, textContent: text }))));
  const overview = make("canvas", { className: "overview", "aria-hidden": "true" });
  const ticks = make("div", { className: "ticks", "aria-hidden": "true" });
  const bands = make("div", { className: "bands", "aria-hidden": "true" });
  const inner = make("div", { className: "inner", role: "none" }, bands);
  const rows = make("div", { className: "rows critical", role: "tree", tabIndex: 0, "aria-label": "Timeline of the runs", onscroll: draw,
    onkeydown: press }, inner);
  const corner = make("div", { className: "corner", textContent: "drag to zoom →" });
  const scale = make("div", { className: "scale" }, overview, ticks);
  const chart = make("div", { className: "chart" },
    make("div", { className: "top" }, corner, scale), rows);
  const aside = make("aside", { "aria-label": "Details", tabIndex: -1 });
  document.body.append(header, toolbar, make("main", {}, chart, aside));
  critical.setAttribute("aria-pressed", "true");

  function head() {
    const figures = data.figures, all = figures.active;
    const figure = (name, seconds, note, kind) => make("div", { className: `figure ${kind || name}` },
      make("b", {}, took(seconds), note ? make("small", { textContent: ` ${note}` }) : ""), make("span", { textContent: name }));
    const tiles = [figure("total", figures.total, "", "total")];
    for (const [name, seconds] of figures.shares) if (seconds > 0.0005) tiles.push(figure(name, seconds, percent(seconds, all)));
    if (figures.overlap > 0.0005) tiles.push(figure("overlap", figures.overlap, percent(figures.overlap, all)));
    if (figures.parked) tiles.push(figure("parked", figures.parked, ""));
    const chips = (pairs) => pairs.map(([id, seconds]) => make("button", { type: "button", className: "chip", onclick: () => go(id, true) },
      spans[id].n, make("i", { textContent: took(seconds) })));
    const totals = new Map();
    for (const span of spans) for (const [begin, end] of span.z || []) totals.set(span.id, (totals.get(span.id) || 0) + end - begin);
    const longest = new Set([...totals.keys()].sort((a, b) => totals.get(b) - totals.get(a)).slice(0, 6));
    const path = [...totals.keys()].filter((id) => longest.has(id)).sort((a, b) => spans[a].z[0][0] - spans[b].z[0][0]);
    const route = path.flatMap((id, index) => [index ? "›" : "", make("button", { type: "button", className: "chip",
      onclick: () => go(id, true) }, spans[id].n, make("i", { textContent: took(totals.get(id)) }))]);
    header.replaceChildren(
      make("h1", { textContent: data.headline }),
      make("div", { className: "figures" }, ...tiles),
      path.length ? make("div", { className: "line long" }, make("b", { textContent: "Critical path" }), ...route) : "",
      data.slowest.length ? make("div", { className: "line" }, make("b", { textContent: "Slowest" }), ...chips(data.slowest)) : "",
      ...data.notes.map((note) => make("p", { className: "note", textContent: note })));
  }

  // ------------------------------------------------------------------------------- draw
  const shown = new Map();
  let queued = false, laneWidth = 1, isStale = true;
  function draw(event) {
    // Scrolling brings rows in, and changes none of the others.
    isStale = isStale || !event || event.type !== "scroll";
    if (queued) return;
    queued = true;
    requestAnimationFrame(() => { queued = false; paint(); });
  }
  const xOf = (time) => ((place(time) - view.from) / (view.to - view.from)) * laneWidth;
  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

  function paint() {
    const isWhole = isStale;
    isStale = false;
    if (isWhole) {
      const label = parseFloat(getComputedStyle(bands).left) || 0;
      laneWidth = Math.max(inner.clientWidth - label, 1);
      scale.style.flex = `0 0 ${laneWidth}px`;
      corner.style.width = `${label}px`;
      inner.style.height = `${visible.length * ROW + MARGIN}px`;
    }
    const first = Math.max(Math.floor(rows.scrollTop / ROW) - 6, 0);
    const last = Math.min(Math.ceil((rows.scrollTop + rows.clientHeight) / ROW) + 6, visible.length);
    const wanted = new Map();
    for (let index = first; index < last; index += 1) wanted.set(visible[index], index);
    for (const [id, row] of shown) if (!wanted.has(id)) { row.remove(); shown.delete(id); }
    for (const [id, index] of wanted) {
      let row = shown.get(id);
      if (row && !isWhole) continue;
      if (!row) { row = build(spans[id]); shown.set(id, row); inner.append(row); }
      update(row, spans[id], index);
    }
    if (shown.has(chosen)) rows.setAttribute("aria-activedescendant", `span-${chosen}`);
    else rows.removeAttribute("aria-activedescendant");
    if (!isWhole) return;
    paintScale();
    paintOverview();
  }
  function build(span) {
    const fold = make("span", { className: "fold", "aria-hidden": "true", onclick: (event) => { event.stopPropagation(); turnFold(span.id); } });
    const label = make("div", { className: "label" }, fold, make("span", { className: "dot" }), make("span", { className: "name", textContent: span.n }),
      make("span", { className: "kind", textContent: ["turn", "parked"].includes(span.k) ? "" : words[span.k] }));
    label.style.setProperty("--depth", Math.min(span.depth, 12));
    const bar = make("div"), time = make("span", { className: "took" }), lane = make("div", { className: "lane" }, bar, time);
    const row = make("div", { className: `row ${span.k}`, id: `span-${span.id}`, role: "treeitem", title: span.n, onclick: () => go(span.id, false),
      ondblclick: () => focusOn(span) }, label, lane);
    Object.assign(row, { fold, bar, time, lane });
    return row;
  }
  function update(row, span, index) {
    const end = endOf(span);
    row.style.top = `${index * ROW}px`;
    row.setAttribute("aria-level", span.depth + 1);
    row.setAttribute("aria-selected", span.id === chosen);
    if (span.inner.length) row.setAttribute("aria-expanded", !folded.has(span.id));
    row.setAttribute("aria-label", `${words[span.k]} ${span.n}, ${took(end - span.b)}, ${span.s}, begins at ${took(span.b)}`);
    row.classList.toggle("dim", hits !== null && !hits.has(span.id));
    row.fold.textContent = span.inner.length ? (folded.has(span.id) ? "▶" : "▼") : "";
    const left = clamp(xOf(span.b), -40, laneWidth + 40), right = clamp(xOf(end), -40, laneWidth + 40);
    const isMoment = span.k === "message" || span.k === "warning";
    row.bar.className = `bar ${span.s}`;
    row.bar.style.left = `${left}px`;
    row.bar.style.width = `${Math.max(right - left, 2)}px`;
    const turning = span.k === "request" ? span.f : span.k === "tool" ? span.r : undefined;
    // A request without a token so far, or a call whose function has not begun.
    const isWaiting = turning === undefined && ((span.k === "request" && span.s === "running") ||
      (span.k === "tool" && ["running", "parked"].includes(span.s)));
    row.bar.replaceChildren();
    const isRound = !["cancelled", "interrupted", "discarded"].includes(span.s);
    const begins = turning === undefined ? right : clamp(xOf(turning), left, right);
    if (isRound && begins - left >= 1 && (turning !== undefined || isWaiting)) {
      row.bar.classList.add("split");
      const done = make("div", { className: "done" });
      done.style.left = `${begins - left}px`;
      row.bar.append(done);
    }
    row.time.replaceChildren(isMoment ? "" : took(end - span.b));
    if (span.s !== "ok") row.time.append(make("em", { className: span.s, textContent: span.s }));
    const room = 62 + (span.s === "ok" ? 0 : 70);
    row.time.style.left = right + room < laneWidth ? `${Math.max(right, 0)}px` : "auto";
    row.time.style.right = right + room < laneWidth ? "auto" : `${Math.max(laneWidth - left, 0)}px`;
    const isInside = right + room >= laneWidth && left < room;
    row.time.classList.toggle("over", isInside);
    if (isInside) row.time.style.right = "4px";
    row.time.hidden = right < 0 || left > laneWidth;
    row.lane.querySelectorAll(".crit").forEach((piece) => piece.remove());
    for (const [begin, until] of span.z || []) {
      const from = clamp(xOf(begin), -9, laneWidth + 9), to = clamp(xOf(until), -9, laneWidth + 9);
      if (to <= 0 || from >= laneWidth || to - from < 0.5) continue;
      const piece = make("div", { className: "crit" });
      piece.style.left = `${from}px`;
      piece.style.width = `${to - from}px`;
      row.lane.append(piece);
    }
  }
  function paintScale() {
    const seconds = view.to - view.from, per = (seconds / laneWidth) * 90;
    const steps = [1, 2, 5].flatMap((step) => [-4, -3, -2, -1, 0, 1].map((power) => step * 10 ** power)).filter((step) => step < 60)
      .concat([60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400, 604800]).sort((a, b) => a - b);
    const step = steps.find((size) => size >= per) || steps[steps.length - 1];
    const labels = [], lines = [];
    let begin = 0, lastX = -99;
    for (const [cutBegin, cutEnd] of [...cuts, [data.length + grown(), Infinity]]) {
      let count = 0;
      const visibleFrom = Math.max(begin, begin + view.from - place(begin));
      for (let time = Math.ceil(visibleFrom / step - 1e-9) * step; time <= cutBegin && count < 60; time += step, count += 1) {
        const x = xOf(time);
        if (x > laneWidth) break;
        if (x < 0) continue;
        const line = make("div", { className: "grid" });
        line.style.left = `${x}px`;
        lines.push(line);
        if (x - lastX < 62) continue;
        lastX = x;
        const digits = step < 1 ? Math.ceil(-Math.log10(step)) : 0;
        const label = make("span", { textContent: time < 60 ? `${time.toFixed(digits)} s` : step < 1 ? `${time.toFixed(digits)} s` : took(time) });
        label.style.left = `${x}px`;
        labels.push(label);
      }
      if (cutEnd < Infinity) {
        const band = make("div", { className: "band" });
        band.style.left = `${clamp(xOf(cutBegin), -9, laneWidth + 9)}px`;
        band.style.width = `${Math.max(clamp(xOf(cutEnd), -9, laneWidth + 9) - clamp(xOf(cutBegin), -9, laneWidth + 9), 0)}px`;
        lines.push(band);
      }
      begin = cutEnd;
    }
    ticks.replaceChildren(...labels);
    bands.replaceChildren(...lines);
  }
  let dragged = null;
  function paintOverview() {
    const width = laneWidth, height = 44, ratio = devicePixelRatio || 1;
    if (overview.width !== Math.round(width * ratio)) { overview.width = Math.round(width * ratio); overview.height = height * ratio; }
    const pen = overview.getContext("2d"), style = getComputedStyle(document.documentElement);
    const color = (name) => style.getPropertyValue(name).trim();
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const x = (time) => (place(time) / length) * width;
    const drawn = spans.filter((span) => colors[span.k]);
    const deepest = Math.max(...drawn.map((span) => span.depth), 1), thick = Math.max(Math.min((height - 8) / (deepest + 1), 6), 1.5);
    for (const span of drawn) {
      pen.fillStyle = color(colors[span.k]);
      pen.globalAlpha = span.k === "run" ? 0.45 : 0.85;
      pen.fillRect(x(span.b), 4 + span.depth * thick, Math.max(x(endOf(span)) - x(span.b), 1), Math.max(thick - 1, 1));
    }
    pen.globalAlpha = 1;
    const [from, to] = dragged ? [Math.min(...dragged), Math.max(...dragged)] : [(view.from / length) * width, (view.to / length) * width];
    if (!isFit || dragged) {
      pen.fillStyle = color("--ink");
      pen.globalAlpha = 0.12;
      pen.fillRect(0, 0, from, height);
      pen.fillRect(to, 0, width - to, height);
      pen.globalAlpha = 1;
      pen.strokeStyle = color("--accent");
      pen.strokeRect(from + 0.5, 0.5, Math.max(to - from - 1, 1), height - 1);
    }
  }

  // ------------------------------------------------------------------------------- view
  function look(from, to) {
    const size = clamp(to - from, Math.min(1e-4, length), length);
    const start = clamp(from, 0, length - size);
    view = { from: start, to: start + size };
    isFit = size >= length * 0.999;
    draw();
  }
  function fit() { look(0, length); }
  function zoom(factor, at) {
    const span = spans[chosen];
    const middle = at !== undefined ? at : span && place(span.b) < view.to && place(endOf(span)) > view.from
      ? clamp((place(span.b) + place(endOf(span))) / 2, view.from, view.to) : (view.from + view.to) / 2;
    look(middle - (middle - view.from) * factor, middle + (view.to - middle) * factor);
  }
  const pan = (share) => look(view.from + (view.to - view.from) * share, view.to + (view.to - view.from) * share);
  function focusOn(span) {
    const begin = place(span.b), size = Math.max(place(endOf(span)) - begin, length * 1e-4);
    look(begin - size * 0.08, begin + size * 1.08);
  }
  rows.addEventListener("wheel", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) {
      event.preventDefault();
      const x = event.clientX - scale.getBoundingClientRect().left;
      zoom(Math.exp(clamp(event.deltaY, -200, 200) / 300), view.from + (clamp(x, 0, laneWidth) / laneWidth) * (view.to - view.from));
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      pan((event.deltaX || event.deltaY) / laneWidth);
    }
  }, { passive: false });
  const xIn = (event) => clamp(event.clientX - overview.getBoundingClientRect().left, 0, laneWidth);
  overview.addEventListener("pointerdown", (event) => { overview.setPointerCapture(event.pointerId); dragged = [xIn(event), xIn(event)]; draw(); });
  overview.addEventListener("pointermove", (event) => { if (dragged) { dragged[1] = xIn(event); draw(); } });
  overview.addEventListener("pointerup", () => {
    if (!dragged) return;
    const [from, to] = [Math.min(...dragged), Math.max(...dragged)].map((x) => (x / laneWidth) * length);
    const isClick = Math.abs(dragged[1] - dragged[0]) < 4, size = view.to - view.from;
    dragged = null;
    if (isClick) look(from - size / 2, from + size / 2); else look(from, to);
  });
  overview.addEventListener("dblclick", fit);

  function toggleCritical() {
    const on = rows.classList.toggle("critical");
    critical.setAttribute("aria-pressed", on);
  }
  function turnFold(id) {
    if (folded.has(id)) folded.delete(id); else folded.add(id);
    arrange();
    draw();
  }
  function find() {
    const text = search.value.trim().toLowerCase();
    hits = text ? new Set(spans.filter((span) => [span.n, span.s, words[span.k], span.c || "", ...(span.d || []).map((pair) => pair[1])]
      .some((value) => value.toLowerCase().includes(text))).map((span) => span.id)) : null;
    live.textContent = hits ? `${hits.size} found` : "";
    if (hits && hits.size) go([...hits].find((id) => id >= chosen) ?? [...hits][0], false); else draw();
  }
  search.addEventListener("keydown", (event) => {
    if (event.key === "Escape") { search.value = ""; find(); rows.focus(); }
    if (event.key === "Enter" && hits && hits.size) { const list = [...hits]; go(list.find((id) => id > chosen) ?? list[0], false); }
  });

  function go(id, isFar) {
    for (let up = spans[id].p; up >= 0; up = spans[up].p) folded.delete(up);
    arrange();
    chosen = id;
    const top = visible.indexOf(id) * ROW;
    inner.style.height = `${visible.length * ROW + MARGIN}px`;
    if (top < rows.scrollTop) rows.scrollTop = top;
    if (top + ROW > rows.scrollTop + rows.clientHeight) rows.scrollTop = top + ROW - rows.clientHeight;
    const begin = place(spans[id].b), end = place(endOf(spans[id]));
    if (isFar && (end < view.from || begin > view.to)) focusOn(spans[id]);
    describe();
    draw();
  }
  function press(event) {
    const index = visible.indexOf(chosen), span = spans[chosen], page = Math.max(Math.floor(rows.clientHeight / ROW) - 1, 1);
    if (event.ctrlKey || event.metaKey || event.altKey || !visible.length) return;
    const to = (target) => go(visible[clamp(target, 0, visible.length - 1)], false);
    const keys = {
      ArrowDown: () => to(index + 1), ArrowUp: () => to(index - 1), Home: () => to(0), End: () => to(visible.length - 1),
      PageDown: () => to(index + page), PageUp: () => to(index - page),
      ArrowRight: () => { if (event.shiftKey) pan(0.2); else if (span && folded.has(chosen)) turnFold(chosen); else if (span && span.inner.length) go(span.inner[0], false); },
      ArrowLeft: () => { if (event.shiftKey) pan(-0.2); else if (span && span.inner.length && !folded.has(chosen)) turnFold(chosen); else if (span && span.p >= 0) go(span.p, false); },
      Enter: () => { aside.hidden = false; describe(); aside.focus(); }, "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: fit,
      f: () => span && focusOn(span), c: toggleCritical, "/": () => search.focus(),
      Escape: () => { chosen = -1; describe(); draw(); },
    };
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  }
  aside.addEventListener("keydown", (event) => { if (event.key === "Escape") { close(); rows.focus(); } });
  const isNarrow = () => matchMedia("(max-width: 960px)").matches;
  function close() { chosen = -1; describe(); draw(); }

  // ---------------------------------------------------------------------------- details
  function describe() {
    const span = spans[chosen];
    aside.hidden = !span && isNarrow();
    if (!span) {
      const key = (name, text) => make("p", {}, make("kbd", { textContent: name }), ` ${text}`);
      aside.replaceChildren(make("div", { className: "help" }, make("p", { textContent: "Choose a bar to see its details." }),
        key("↑ ↓", "move"), key("← →", "fold, unfold, go in and out"), key("+ −", "zoom; also Ctrl and the wheel"), key("Shift ← →", "pan"),
        key("f", "zoom to the bar"), key("0", "show everything"), key("c", "critical path"), key("/", "search"), key("Enter", "read the details")));
      return;
    }
    const clock = (time) => new Date((data.origin + time) * 1000).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
    const facts = [["began", `${took(span.b)} after the start`], ["", clock(span.b)], ["took", took(endOf(span) - span.b)]];
    if (span.f !== undefined) facts.push(["first token", `after ${took(span.f - span.b)}`], ["then wrote for", took(endOf(span) - span.f)]);
    if (span.r !== undefined) facts.push(["began to run", `after ${took(span.r - span.b)}`]);
    const list = make("dl");
    for (const [name, text] of facts) list.append(make("dt", { textContent: name }), make("dd", { textContent: text }));
    const link = (name, id) => list.append(make("dt", { textContent: name }),
      make("dd", {}, make("button", { type: "button", className: "link", textContent: `${words[spans[id].k]} ${spans[id].n}`, onclick: () => go(id, true) })));
    if (span.x !== undefined) link("ended by", span.x);
    if (span.w !== undefined) link("waited last for", span.w);
    if (span.p >= 0) link("part of", span.p);
    const critically = (span.z || []).reduce((sum, [begin, end]) => sum + end - begin, 0);
    if (critically) list.append(make("dt", { textContent: "critical path" }), make("dd", { textContent: `${took(critically)} of it` }));
    const texts = (span.d || []).flatMap(([name, text]) => {
      if (text.length < 60 && !text.includes("\n") && !["arguments", "prompt", "result"].includes(name)) {
        list.append(make("dt", { textContent: name }), make("dd", { textContent: text }));
        return [];
      }
      return [make("h3", { textContent: name }), make("pre", { textContent: text, tabIndex: 0 })];
    });
    const isBad = !["ok", "running", "parked"].includes(span.s);
    aside.replaceChildren(
      make("button", { type: "button", className: "close", textContent: "×", "aria-label": "Close the details", onclick: close }),
      make("h2", { textContent: span.n }),
      make("span", { className: "pill", textContent: words[span.k] }), make("span", { className: `pill${isBad ? " bad" : ""}`, textContent: span.s }),
      list, ...(span.c ? [make("h3", { textContent: span.s === "ok" ? "note" : "because" }), make("pre", { textContent: span.c, tabIndex: 0 })] : []), ...texts);
    aside.scrollTop = 0;
  }

  // ------------------------------------------------------------------------------- live
  let records = -1, isFollowed = false;
  const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
  const ask = (path) => fetch(new URL(path, location.href), { cache: "no-store" });
  async function refresh() {
    const reply = await ask(`picture?format=json&records=${records}`);
    if (reply.status === 204) return null;
    if (!reply.ok) throw new Error(`status ${reply.status}`);
    const next = await reply.json();
    records = next.records;
    // Ids are places in the tree, which grows: what is chosen and folded is found again by its begin.
    const keyOf = (span) => `${span.b} ${span.k} ${span.n}`;
    const kept = chosen < 0 ? "" : keyOf(spans[chosen]), closed = new Set([...folded].map((id) => keyOf(spans[id])));
    folded.clear();
    for (const [id, span] of next.picture.spans.entries()) if (closed.has(keyOf(span))) folded.add(id);
    load(next.picture);
    head();
    chosen = kept ? spans.findIndex((span) => keyOf(span) === kept) : -1;
    if (search.value) find();
    for (const row of shown.values()) row.remove();
    shown.clear();
    if (!aside.contains(document.activeElement)) describe();
    draw();
    return next.live;
  }
  // Reads the session's events while a run is live here: each piece says that there is something new. The events of a run
  // that was cut off are not asked for, since asking resumes it.
  async function follow() {
    if (isFollowed) return;
    isFollowed = true;
    try {
      const reply = await ask(`events?after=${data.last}`), reader = reply.body.getReader(), decoder = new TextDecoder();
      let isNews = false, isOpen = true;
      const pull = async () => {
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          if (decoder.decode(value, { stream: true }).includes("data:")) isNews = true;
        }
      };
      const pulling = pull().catch(() => {}).finally(() => { isOpen = false; });
      while (isOpen) {
        await Promise.race([sleep(800), pulling]);
        if (isNews || !isOpen) { isNews = false; if ((await refresh()) === false) break; }
      }
      await reader.cancel().catch(() => {});
    } finally { isFollowed = false; }
  }
  async function watch() {
    for (;;) {
      try {
        const isLive = await refresh();
        live.className = "status on";
        live.textContent = data.running ? "live" : "up to date";
        if (isLive) await follow();
      } catch (error) {
        live.className = "status";
        live.textContent = `not live: ${error.message}`;
      }
      await sleep(document.hidden ? 10000 : 2500);
    }
  }
  load(read("data"));
  head();
  describe();
  // The address of a bar: run.html#12.
  const linked = Number(location.hash.slice(1));
  if (location.hash && spans[linked]) go(linked, false);
  new ResizeObserver(draw).observe(rows);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
  if (follows) {
    watch();
    setInterval(() => { if (data.running && !document.hidden) { if (isFit) { const extra = grown(); view = { from: 0, to: length + extra }; } draw(); } }, 500);
  }
  document.documentElement.dataset.ready = "yes";
})();

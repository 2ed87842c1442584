// What is seen and moved. State in, pictures out: every change goes through `change`, which draws all and writes the
// address. Nothing here knows a formula.

const WORDS = ["Canberra", "Sydney", "Melbourne", "the", "not"], N = WORDS.length, CORNERS = 3;
const CONTEXT_TITLES = {
  teacher: "Teacher", reference: "Reference model", old: "Old policy", prior: "Prior of the tokens",
  teacher_base: "Teacher before its own fine-tuning",
  weight: "Weight of this token", keep: "This token counts", negative: "Tokens to push away from",
  values: "Tokens as numbers (empty: none)",
};
const DISTRIBUTIONS = ["teacher", "reference", "old", "prior", "teacher_base"];
const STEP = 0.01, LEAST = 0.001;

const EXAMPLES = [
  {name: "SFT and DFT", state: {m: "sft;dft", p: "0.1,0.62,0.2,0.05,0.03", a: "1"},
    lesson: "The model believes Sydney; the demonstration says Canberra. SFT's target is Canberra alone. DFT trusts it only as far as the model does: most of its target stays where the model is. Drag the grey bar of Canberra up and watch DFT's follow."},
  {name: "Below zero", state: {m: "sft;gem;confidence_penalty", p: "0.7,0.2,0.06,0.03,0.01", y: "1"},
    lesson: "The model believes Canberra; the demonstration says Sydney. GEM subtracts the model's own sharpened belief, so that its target has a negative entry: what is likely is pushed below where it would be, and entropy is kept."},
  {name: "A teacher's help", state: {m: "kd_hybrid;target_sft;dft", p: "0.1,0.62,0.2,0.05,0.03", teacher: "0.75,0.15,0.08,0.01,0.01"},
    lesson: "A teacher knows better. Hybrid KD always listens to it; Target-SFT does where the model distrusts the observed token."},
  {name: "Uncertain or certain", state: {m: "chord_phi;focal;dft", p: "0.5,0.3,0.1,0.06,0.04", c: "trust"},
    lesson: "Three gates. CHORD-φ trusts the label most where the model is undecided, focal loss where it doubts, DFT where it knows. Trust is not yet push: choose the length of the gradient under Show, and DFT's is largest half way."},
  {name: "Where DFT ends", state: {m: "dft;sft;label_smoothing", a: "0", truth: "0.5,0.3,0.2", start: "0.3,0.4,0.3"},
    lesson: "Go to the triangle and press Train. SFT comes to rest at the truth, label smoothing nearer the middle, and DFT runs to the corner of the likeliest word, wherever it starts: drag the model (●) and try."},
];

// ---- state -----------------------------------------------------------------------------------------------------
const INITIAL = {
  methods: ["sft", "dft", ""].map(chosen), z: logitsOf([0.1, 0.62, 0.2, 0.05, 0.03]), label: 0, gauge: "unit",
  quantity: "trust", teacher: logitsOf([0.75, 0.15, 0.08, 0.01, 0.01]), reference: logitsOf([0.1, 0.62, 0.2, 0.05, 0.03]),
  old: logitsOf([0.12, 0.6, 0.2, 0.05, 0.03]), prior: logitsOf([0.1, 0.3, 0.2, 0.3, 0.1]), weight: 1, keep: 1,
  teacher_base: logitsOf([0.3, 0.4, 0.2, 0.06, 0.04]), negative: [0, 1, 0, 0, 0], values: [0, 1, 2, null, null], active: 0, truth: [0.5, 0.3, 0.2], start: [0.2, 0.5, 0.3],
};
let state = structuredClone(INITIAL);
const paths = {};  // of the slots: probabilities on the way

function logitsOf(p) { return p.map(x => Math.log(x)); }
function chosen(name) {
  const params = {};
  if (name) for (const p of CATALOGUE[name].params) params[p.name] = p.default;
  return {name, params};
}
const probs = z => softmax(z).probs;
const active = () => state.methods.map((m, slot) => ({...m, slot})).filter(m => m.name);
const needs = m => CATALOGUE[m.name].needs;
const context = (n = N) => Object.fromEntries([
  ...DISTRIBUTIONS.map(name => [name, state[name].slice(0, n)]),
  ["weight", state.weight], ["keep", state.keep], ["negative", state.negative.slice(0, n)],
  ["values", state.values.slice(0, n).map(x => x === null ? NaN : x)],
]);

// p_k becomes v and the others share the rest as before; of three or more, none falls to zero.
function withEntry(p, k, v) {
  v = Math.min(Math.max(v, LEAST), 1 - LEAST * (p.length - 1));
  const rest = 1 - p[k], q = p.map((x, j) => j === k ? v : rest > 0 ? x * (1 - v) / rest : (1 - v) / (p.length - 1));
  const floored = q.map(x => Math.max(x, LEAST / 10)), mass = total(floored);
  return floored.map(x => x / mass);
}

function change(update) { update(); draw(); remember(); }

// ---- the address -------------------------------------------------------------------------------------------------
const short = x => String(+x.toPrecision(6));
const listed = v => v.map(short).join(",");
const FIELDS = {
  m: [() => state.methods.map(m => [m.name, ...differing(m)].join(":")).join(";"),
    text => { state.methods = [...text.split(";"), "", "", ""].slice(0, 3).map(parsedMethod); }],
  p: [() => listed(probs(state.z)), text => { state.z = logitsOf(distribution(text, N)); }],
  y: [() => String(state.label), text => { state.label = oneOf(+text, WORDS.map((_, k) => k)); }],
  g: [() => state.gauge, text => { state.gauge = oneOf(text, ["unit", "fixed", "boundary"]); }],
  c: [() => state.quantity, text => { state.quantity = oneOf(text, ["trust", "target", "length"]); }],
  ...Object.fromEntries(DISTRIBUTIONS.map(name => [name,
    [() => listed(probs(state[name])), text => { state[name] = logitsOf(distribution(text, N)); }]])),
  weight: [() => short(state.weight), text => { state.weight = finite(+text); }],
  keep: [() => String(state.keep), text => { state.keep = oneOf(+text, [0, 1]); }],
  negative: [() => state.negative.join(","), text => {
    const mask = text.split(",").map(x => oneOf(+x, [0, 1]));
    if (mask.length !== N) throw new Error("negative");
    state.negative = mask;
  }],
  values: [() => state.values.map(x => x === null ? "" : short(x)).join(","), text => {
    const found = text.split(",").map(x => x === "" ? null : finite(+x));
    if (found.length !== N) throw new Error("values");
    state.values = found;
  }],
  a: [() => String(state.active), text => { state.active = oneOf(+text, [0, 1, 2]); }],
  truth: [() => listed(state.truth), text => { state.truth = distribution(text, CORNERS, 0); }],
  start: [() => listed(state.start), text => { state.start = distribution(text, CORNERS); }],
};

const differing = m => m.name ? CATALOGUE[m.name].params.filter(p => m.params[p.name] !== p.default)
  .map(p => `${p.name}=${typeof m.params[p.name] === "number" ? short(m.params[p.name]) : m.params[p.name]}`) : [];
function oneOf(x, choices) { if (!choices.includes(x)) throw new Error(`unknown ${x}`); return x; }
function finite(x) { if (!Number.isFinite(x)) throw new Error("not a number"); return x; }
function distribution(text, n, least = 1e-9) {
  const v = text.split(",").map(Number);
  if (v.length !== n || v.some(x => !(x >= 0)) || !(total(v) > 0)) throw new Error("not a distribution");
  const floored = v.map(x => Math.max(x, least)), mass = total(floored);
  return floored.map(x => x / mass);
}
function parsedMethod(text) {
  const [name, ...settings] = text.split(":");
  if (!Object.hasOwn(CATALOGUE, name)) return chosen("");
  const m = chosen(name);
  for (const setting of settings) {
    const [key, value] = setting.split("="), p = CATALOGUE[name].params.find(q => q.name === key);
    if (p) m.params[key] = p.choices ? oneOf(value, p.choices) : legal(p, +value);
  }
  return m;
}
// A parameter's value, moved into its range.
function legal(p, value) {
  finite(value);
  if (p.integer) value = Math.round(value);
  if (p.least !== null) value = Math.max(value, p.least);
  if (p.most !== null) value = Math.min(value, p.most);
  return value;
}

function restore(text) {
  state = structuredClone(INITIAL);
  for (const [key, value] of new URLSearchParams(text.replace(/^#/, ""))) {
    const saved = structuredClone(state);
    try { if (Object.hasOwn(FIELDS, key)) FIELDS[key][1](value); } catch { state = saved; }
  }
  if (!active().length) state.methods = structuredClone(INITIAL.methods);
  if (!state.methods[state.active].name) state.active = active()[0].slot;
  Object.keys(paths).forEach(slot => delete paths[slot]);
}

let written = "";
function remember() {
  const used = new Set(active().flatMap(needs));
  const fields = Object.keys(FIELDS).filter(f => !Object.hasOwn(CONTEXT_TITLES, f) || used.has(f));
  written = "#" + fields.map(f => `${f}=${FIELDS[f][0]()}`).join("&");
  history.replaceState(null, "", written);
}

// ---- what is worked out ------------------------------------------------------------------------------------------
function outcome(m, z = state.z, label = state.label) {
  const t = token(z, label, context()), formulas = FORMULAS[m.name], about = CATALOGUE[m.name];
  const x = pulled(formulas, t, m.params), unit = gaugeOf(x, "unit", about.shift_invariant);
  return {
    loss: formulas.loss(t, m.params), gradient: x.gradient, gauge: gaugeOf(x, state.gauge, about.shift_invariant),
    inSimplex: about.shift_invariant ? unit.target.every((q, k) => q >= -EPS * (x.policy[k] + x.magnitude[k]) * (1 - t.policy.log[k])) : null,
  };
}

// ---- drawing -----------------------------------------------------------------------------------------------------
const $ = id => document.getElementById(id);
const escaped = s => String(s).replace(/[&<>"']/g, c => `&#${c.charCodeAt(0)};`);
const colour = m => CATALOGUE[m.name].colour;
// Methods of a family have shades that are hard to tell apart: the second and the third are hatched as well.
const textures = svg => `<defs><pattern id="${svg}-1" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="2" height="6" fill="var(--card)"/></pattern>
  <pattern id="${svg}-2" width="6" height="6" patternUnits="userSpaceOnUse"><rect width="3" height="3" fill="var(--card)"/></pattern></defs>`;
const bar = (svg, m, x, y, width, height) => ['class="shade" ' + tint(m), ...m.slot ? [`fill="url(#${svg}-${m.slot})"`] : []]
  .map(look => `<rect ${look} x="${x}" y="${y}" width="${width}" height="${height}"/>`).join("");
const tint = m => `style="--c:${colour(m)}"`;
function number(x, digits = 3) {
  if (Number.isNaN(x)) return "–";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  const text = Math.abs(x) < 5e-4 && x !== 0 ? x.toExponential(1) : String(+x.toPrecision(digits));
  return text.replace("-", "−");
}
const percent = x => `${Math.round(100 * x)} %`;

// Round values, and the ends where they lie apart from those.
const ticks = (low, high) => [0, 0.5, 1, 2, low, high].filter((v, i, all) =>
  v >= low && v <= high && all.slice(0, i).every(w => w < low || w > high || Math.abs(v - w) > 0.08 * (high - low)));

function slider({drag, label, value, min = 0, max = 1, text, shape, ring}) {
  return `<g role="slider" tabindex="0" id="${drag}" data-drag="${drag}" aria-label="${escaped(label)}"
    aria-valuemin="${min}" aria-valuemax="${max}" aria-valuenow="${+value.toFixed(4)}" aria-valuetext="${escaped(text)}">
    ${ring}${shape}</g>`;
}

function draw() {
  const focused = document.activeElement?.id;
  drawBars(); drawSteps(); drawTable(); drawContexts(); drawCurve(); drawTriangle();
  $("observed").textContent = WORDS[state.label];
  $("label").value = String(state.label); $("gauge").value = state.gauge; $("quantity").value = state.quantity;
  $("active").innerHTML = active().map(m => `<option value="${m.slot}">${escaped(CATALOGUE[m.name].title)}</option>`).join("");
  $("active").value = String(state.active);
  if (focused && document.activeElement?.id !== focused) $(focused)?.focus({preventScroll: true});
}

function drawBars() {
  const p = probs(state.z), found = active().map(m => ({m, ...outcome(m)}));
  const all = found.flatMap(f => f.gauge.target).filter(Number.isFinite);
  const high = Math.min(Math.max(1, ...all), 3), low = Math.max(Math.min(0, ...all), -2);
  const top = 26, bottom = 292, y = v => bottom - (Math.min(Math.max(v, low), high) - low) / (high - low) * (bottom - top);
  const group = 118, left = 44, parts = [textures("bars")];
  for (const v of ticks(low, high))
    parts.push(`<line class="axis" x1="${left}" x2="636" y1="${y(v)}" y2="${y(v)}"/><text class="soft" x="${left - 6}" y="${y(v) + 4}" text-anchor="end">${number(v, 2)}</text>`);
  WORDS.forEach((word, k) => {
    const x = left + 6 + group * k, width = Math.min(24, 78 / Math.max(found.length, 1));
    parts.push(slider({
      drag: `p${k}`, label: `model's probability of ${word}`, value: p[k], text: percent(p[k]),
      ring: `<rect class="ring" x="${x - 3}" y="${top - 8}" width="32" height="${bottom - top + 12}" rx="4"/>`,
      shape: `<rect x="${x}" y="${y(p[k])}" width="26" height="${y(0) - y(p[k])}" fill="var(--model)"/>
        <rect x="${x - 2}" y="${y(p[k]) - 3}" width="30" height="6" rx="3" fill="var(--ink)"/>`,
    }));
    found.forEach((f, i) => {
      const q = f.gauge.target[k];
      if (!Number.isFinite(q)) return;
      const at = x + 30 + i * width, from = Math.min(y(q), y(0)), size = Math.abs(y(q) - y(0));
      parts.push(bar("bars", f.m, at, from, width - 2, Math.max(size, 1.5)));
      if (q > high || q < low) parts.push(`<text x="${at}" y="${q > high ? top - 6 : bottom + 12}">${number(q, 2)}</text>`);
    });
    parts.push(`<text x="${x + 50}" y="316" text-anchor="middle" ${k === state.label ? 'font-weight="700" text-decoration="underline"' : ""}>${word}</text>`);
  });
  $("bars").innerHTML = parts.join("");
  $("legend").innerHTML = `<span style="--c:var(--model);--lift:0%">model p</span>`
    + found.map(f => `<span data-slot="${f.m.slot}" ${tint(f.m)}>Q of ${escaped(CATALOGUE[f.m.name].title)}</span>`).join("");
  frame.bars = {y: py => low + (bottom - py) / (bottom - top) * (high - low)};
  const silent = found.filter(f => !CATALOGUE[f.m.name].shift_invariant), signed = found.filter(f => f.inSimplex === false);
  $("outside").textContent = [
    ...silent.map(f => `${CATALOGUE[f.m.name].title} has no target: its gradient does not sum to zero.`),
    ...signed.map(f => `${CATALOGUE[f.m.name].title}: not a distribution here (unit gauge).`),
  ].join(" ");
}

function drawSteps() {
  const found = active().map(m => ({m, g: outcome(m).gradient}));
  const most = Math.max(1e-9, ...found.flatMap(f => f.g.map(Math.abs))), middle = 370, half = 255, parts = [textures("steps")];
  parts.push(`<line class="axis" x1="${middle}" x2="${middle}" y1="4" y2="232"/>`);
  WORDS.forEach((word, k) => {
    const y = 8 + 45 * k, thick = Math.min(13, 38 / Math.max(found.length, 1));
    parts.push(`<text x="4" y="${y + 23}" ${k === state.label ? 'font-weight="700" text-decoration="underline"' : ""}>${word}</text>`);
    found.forEach((f, i) => {
      const size = -f.g[k] / most * half, width = Math.abs(size);
      parts.push(bar("steps", f.m, size < 0 ? middle - width : middle, y + i * thick, Math.max(width, .8), thick - 2));
    });
  });
  parts.push(`<text class="soft" x="636" y="236" text-anchor="end">bar of full length: ${number(most)}</text>`);
  $("steps").innerHTML = parts.join("");
}

function drawTable() {
  const cell = x => `<td data-value="${x}">${number(x, 4)}</td>`;
  const rows = active().map(m => {
    const o = outcome(m), g = o.gauge;
    return `<tr data-slot="${m.slot}"><th scope="row" ${tint(m)}>${escaped(CATALOGUE[m.name].title)}</th>${cell(o.loss)}
      ${cell(g.scale)}${cell(g.trust)}${g.target.map(cell).join("")}${cell(sum(N, k => Math.abs(o.gradient[k])) / 2)}
      <td>${o.inSimplex === null ? "no target" : o.inSimplex ? "yes" : "no"}</td></tr>`;
  });
  const model = probs(state.z).map(cell).join("");
  $("table").innerHTML = `<thead><tr><th scope="col">Method</th><th scope="col">loss (nats)</th><th scope="col">scale s</th>
    <th scope="col">trust γ</th>${WORDS.map(w => `<th scope="col">Q(${w})</th>`).join("")}<th scope="col">½ Σ |g|</th>
    <th scope="col">a distribution</th></tr></thead>
    <tbody><tr id="model-row"><th scope="row" style="--c:var(--model);--lift:0%">model p</th><td></td><td></td><td></td>${model}<td></td><td></td></tr>${rows.join("")}</tbody>`;
}

function drawContexts() {
  const used = Object.keys(CONTEXT_TITLES).filter(name => active().some(m => needs(m).includes(name)));
  const host = $("contexts");
  if (host.dataset.shown !== used.join()) {
    host.dataset.shown = used.join();
    host.className = "contexts";
    host.innerHTML = used.map(name => {
      const title = `<h3 id="h-${name}">${CONTEXT_TITLES[name]}</h3>`;
      if (DISTRIBUTIONS.includes(name)) return `${title}<svg id="${name}" role="group" aria-labelledby="h-${name}" viewBox="0 0 640 130"></svg>`;
      if (name === "weight") return `<h3><label for="in-weight">${CONTEXT_TITLES.weight}</label></h3><input id="in-weight" type="number" step="0.1">`;
      if (name === "keep") return `<label><input id="in-keep" type="checkbox"> ${CONTEXT_TITLES.keep}</label>`;
      if (name === "values") return `${title}<div class="row">${WORDS.map((w, k) => `<label>${w} <input id="in-values${k}" type="number" step="1"></label>`).join("")}</div>`;
      return `${title}<div class="row">${WORDS.map((w, k) => `<label><input id="in-negative${k}" type="checkbox"> ${w}</label>`).join("")}</div>`;
    }).join("");
    for (const name of used.filter(n => DISTRIBUTIONS.includes(n))) listen(name);
  }
  for (const name of used) {
    if (DISTRIBUTIONS.includes(name)) drawContext(name);
    else if (name === "weight") { if (document.activeElement !== $("in-weight")) $("in-weight").value = state.weight; }
    else if (name === "keep") $("in-keep").checked = !!state.keep;
    else if (name === "values") WORDS.forEach((_, k) => {
      const box = $(`in-values${k}`);
      if (document.activeElement !== box) box.value = state.values[k] ?? "";
    });
    else WORDS.forEach((_, k) => { $(`in-negative${k}`).checked = !!state.negative[k]; });
  }
}

function drawContext(name) {
  const q = probs(state[name]), y = v => 100 - 92 * v;
  $(name).innerHTML = `<line class="axis" x1="44" x2="636" y1="100" y2="100"/>` + WORDS.map((word, k) => {
    const x = 50 + 118 * k;
    return slider({
      drag: `${name}${k}`, label: `${CONTEXT_TITLES[name]}: probability of ${word}`, value: q[k], text: percent(q[k]),
      ring: `<rect class="ring" x="${x - 3}" y="2" width="66" height="104" rx="4"/>`,
      shape: `<rect x="${x}" y="${y(q[k])}" width="60" height="${100 - y(q[k])}" fill="var(--soft)"/>
        <rect x="${x - 2}" y="${y(q[k]) - 3}" width="64" height="6" rx="3" fill="var(--ink)"/>`,
    }) + `<text x="${x + 30}" y="122" text-anchor="middle">${word}</text>`;
  }).join("");
  frame[name] = {y: py => (100 - py) / 92};
}

function drawCurve() {
  const p = probs(state.z), us = vec(121, i => Math.min(Math.max(i / 120, 0.001), 0.999));
  const value = o => state.quantity === "trust" ? o.gauge.trust : state.quantity === "target" ? o.gauge.target[state.label] : sum(N, k => Math.abs(o.gradient[k])) / 2;
  const at = u => logitsOf(withEntry(p, state.label, u));
  const curves = active().map(m => ({m, values: us.map(u => value(outcome(m, at(u)))), here: value(outcome(m))}));
  const finiteOnes = curves.flatMap(c => c.values).filter(Number.isFinite);
  const high = Math.min(Math.max(1, ...finiteOnes), 3), low = Math.max(Math.min(0, ...finiteOnes), -2);
  const left = 44, right = 500, top = 14, bottom = 290, X = u => left + u * (right - left);
  const Y = v => bottom - (Math.min(Math.max(v, low), high) - low) / (high - low) * (bottom - top), parts = [];
  for (const v of ticks(low, high))
    parts.push(`<line class="axis" x1="${left}" x2="${right}" y1="${Y(v)}" y2="${Y(v)}"/><text class="soft" x="${left - 6}" y="${Y(v) + 4}" text-anchor="end">${number(v, 2)}</text>`);
  for (const u of [0, 0.5, 1]) parts.push(`<text class="soft" x="${X(u)}" y="${bottom + 18}" text-anchor="middle">${u}</text>`);
  parts.push(`<text x="${(left + right) / 2}" y="${bottom + 36}" text-anchor="middle">probability of “${WORDS[state.label]}” under the model</text>`);
  const labels = [];
  for (const c of curves) {
    const runs = [[]];
    c.values.forEach((v, i) => Number.isFinite(v) && v <= high && v >= low ? runs.at(-1).push(`${X(us[i]).toFixed(1)},${Y(v).toFixed(1)}`) : runs.push([]));
    for (const run of runs.filter(r => r.length > 1))
      parts.push(`<polyline class="stroke" ${tint(c.m)} stroke-width="3" stroke-dasharray="${CATALOGUE[c.m.name].dash}" points="${run.join(" ")}"/>`);
    if (Number.isFinite(c.here)) parts.push(`<circle class="shade" ${tint(c.m)} cx="${X(p[state.label])}" cy="${Y(c.here)}" r="6"/>`);
    const last = c.values.findLast(Number.isFinite);
    labels.push({m: c.m, y: last === undefined ? bottom : Y(last), text: CATALOGUE[c.m.name].title + (last === undefined ? " (none)" : "")});
  }
  labels.sort((a, b) => a.y - b.y).forEach((l, i, all) => { if (i) l.y = Math.max(l.y, all[i - 1].y + 24); });
  const over = Math.max(0, (labels.at(-1)?.y ?? 0) - bottom);
  for (const l of labels) parts.push(`<text class="name" ${tint(l.m)} x="${right + 8}" y="${l.y - over + 4}">${escaped(l.text.length > 18 ? CATALOGUE[l.m.name].name : l.text)}</text>`);
  parts.push(slider({
    drag: "curve-u", label: `model's probability of ${WORDS[state.label]}`, value: p[state.label], text: percent(p[state.label]),
    ring: `<rect class="ring" x="${X(p[state.label]) - 16}" y="${top - 8}" width="32" height="${bottom - top + 12}" rx="4"/>`,
    shape: `<line x1="${X(p[state.label])}" x2="${X(p[state.label])}" y1="${top}" y2="${bottom}" stroke="var(--ink)" stroke-dasharray="3 3"/>`,
  }));
  $("plot").innerHTML = parts.join("");
  frame.plot = {x: px => (px - left) / (right - left)};
}

// ---- the triangle ------------------------------------------------------------------------------------------------
const CORNER = [[320, 44], [70, 500], [570, 500]];  // the observed words, first one on top
const place = p => [0, 1].map(i => sum(CORNERS, k => p[k] * CORNER[k][i]));
function barycentric(x, y) {
  const [[ax, ay], [bx, by], [cx, cy]] = CORNER, det = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy);
  const a = ((by - cy) * (x - cx) + (cx - bx) * (y - cy)) / det, b = ((cy - ay) * (x - cx) + (ax - cx) * (y - cy)) / det;
  const v = [a, b, 1 - a - b].map(q => Math.max(q, 0.004)), mass = total(v);
  return v.map(q => q / mass);
}
const field = (m, p, truth) => drift(FORMULAS[m.name], m.params, logitsOf(p), truth, context(CORNERS));

function drawTriangle() {
  const m = {...state.methods[state.active], slot: state.active}, parts = [];
  parts.push(`<polygon class="axis" style="stroke:var(--soft)" points="${CORNER.map(c => c.join()).join(" ")}"/>`);
  CORNER.forEach(([x, y], k) => parts.push(`<text x="${x}" y="${k ? y + 28 : y - 16}" text-anchor="middle" font-weight="600">${WORDS[k]}</text>`));
  // The drift is that of the logits; as a move of p it is p ∘ (d − ⟨p, d⟩).
  const arrows = [], n = 13;
  for (let i = 1; i < n; i++) for (let j = 1; j < n - i; j++) {
    const p = [i / n, j / n, (n - i - j) / n], d = field(m, p, state.truth), mean = sum(CORNERS, k => p[k] * d[k]);
    const [vx, vy] = place(p.map((x, k) => x * (d[k] - mean)));
    arrows.push([place(p), [vx, vy], Math.hypot(vx, vy)]);
  }
  const most = Math.max(...arrows.map(a => a[2]).filter(Number.isFinite), 1e-12);
  for (const [[x, y], [vx, vy], size] of arrows) {
    if (!(size > 0)) continue;
    const length = 8 + 18 * Math.sqrt(size / most), ux = vx / size, uy = vy / size, ex = x + ux * length / 2, ey = y + uy * length / 2;
    parts.push(`<path class="stroke" ${tint(m)} stroke-width="1.8" opacity="${(0.45 + 0.5 * Math.sqrt(size / most)).toFixed(2)}" d="M${(x - ux * length / 2).toFixed(1)},${(y - uy * length / 2).toFixed(1)}L${ex.toFixed(1)},${ey.toFixed(1)}M${(ex - 6 * ux - 3.5 * uy).toFixed(1)},${(ey - 6 * uy + 3.5 * ux).toFixed(1)}L${ex.toFixed(1)},${ey.toFixed(1)}L${(ex - 6 * ux + 3.5 * uy).toFixed(1)},${(ey - 6 * uy - 3.5 * ux).toFixed(1)}"/>`);
  }
  for (const [slot, path] of Object.entries(paths)) {
    const its = {...state.methods[slot], slot}, shown = path.points.slice(0, path.upTo);
    if (!its.name || !shown.length) continue;
    parts.push(`<polyline class="stroke" ${tint(its)} stroke-width="4" stroke-linejoin="round" points="${shown.map(p => place(p).map(v => v.toFixed(1)).join()).join(" ")}"/>`);
    const [x, y] = place(shown.at(-1));
    parts.push(`<circle class="shade" ${tint(its)} cx="${x}" cy="${y}" r="8" stroke="var(--card)" stroke-width="2"/>`);
  }
  const contextOf = DISTRIBUTIONS.filter(name => needs(m).includes(name));
  for (const name of contextOf) {
    const [x, y] = place(probs(state[name].slice(0, CORNERS)));
    parts.push(`<rect x="${x - 6}" y="${y - 6}" width="12" height="12" fill="none" stroke="var(--ink)" stroke-width="2.5"/><text x="${x + 11}" y="${y + 5}">${name}</text>`);
  }
  const spoken = p => p.map((x, k) => `${WORDS[k]} ${percent(x)}`).join(", ");
  const [tx, ty] = place(state.truth), [sx, sy] = place(state.start);
  parts.push(slider({
    drag: "truth", label: "truth: arrow keys move it", value: state.truth[0], text: spoken(state.truth),
    ring: `<circle class="ring" cx="${tx}" cy="${ty}" r="22"/>`,
    shape: `<path d="M${tx},${ty - 11}L${tx + 11},${ty}L${tx},${ty + 11}L${tx - 11},${ty}Z" fill="var(--ink)" stroke="var(--card)" stroke-width="2"/><text x="${tx + 15}" y="${ty - 8}" font-weight="600">truth</text>`,
  }));
  parts.push(slider({
    drag: "start", label: "model before training: arrow keys move it", value: state.start[0], text: spoken(state.start),
    ring: `<circle class="ring" cx="${sx}" cy="${sy}" r="22"/>`,
    shape: `<circle cx="${sx}" cy="${sy}" r="10" fill="var(--model)" stroke="var(--ink)" stroke-width="2.5"/><text x="${sx + 15}" y="${sy + 18}" font-weight="600">model</text>`,
  }));
  $("triangle").innerHTML = parts.join("");
}

const still = matchMedia("(prefers-reduced-motion: reduce)");
let playing = 0;
function play() {
  const m = state.methods[state.active], slot = state.active;
  const found = train(FORMULAS[m.name], m.params, logitsOf(state.start), state.truth, context(CORNERS));
  const path = paths[slot] = {points: found.path, upTo: still.matches ? found.path.length : 1};
  const end = found.path.at(-1), turn = ++playing, title = CATALOGUE[m.name].title;
  const where = end.map((x, k) => `${WORDS[k]} ${x.toFixed(3)}`).join(", ");
  const gap = sum(CORNERS, k => Math.abs(end[k] - state.truth[k])) / 2;
  const top = end.indexOf(Math.max(...end));
  $("outcome").textContent = (end[top] > 0.999 && state.truth[top] < 0.999 ? `${title} runs into a corner: ${where}.`
    : found.rested ? `${title} comes to rest at ${where}.` : `${title} has not come to rest after ${found.path.length - 1} steps: ${where}.`)
    + ` Distance to the truth (total variation): ${number(gap)}.`;
  $("outcome").dataset.end = end.join();
  const frames = 60, tick = () => {
    if (turn !== playing) { path.upTo = path.points.length; return; }
    path.upTo = Math.min(path.points.length, path.upTo + Math.ceil(path.points.length / frames));
    drawTriangle();
    if (path.upTo < path.points.length) requestAnimationFrame(tick);
  };
  if (still.matches) drawTriangle(); else requestAnimationFrame(tick);
}

// ---- moving ------------------------------------------------------------------------------------------------------
const frame = {};  // of each picture: from its coordinates to values

function setEntry(name, k, v) {
  const key = name === "p" ? "z" : name;
  state[key] = logitsOf(withEntry(probs(state[key]), k, v));
}
function moveTo(drag, svg, x, y) {
  if (drag === "truth" || drag === "start") { state[drag] = barycentric(x, y); forgetPaths(); }
  else if (drag === "curve-u") setEntry("p", state.label, frame.plot.x(x));
  else { const [, name, k] = drag.match(/^([a-z]+)(\d)$/); setEntry(name, +k, frame[svg.id].y(y)); }
}
function nudge(drag, key, large) {
  const step = large ? 10 * STEP : STEP;
  if (drag === "truth" || drag === "start") {
    const [x, y] = place(state[drag]), by = 400 * step;
    const [dx, dy] = {ArrowLeft: [-by, 0], ArrowRight: [by, 0], ArrowUp: [0, -by], ArrowDown: [0, by]}[key] ?? [0, 0];
    state[drag] = barycentric(x + dx, y + dy);
    forgetPaths();
    return;
  }
  const [name, k] = drag === "curve-u" ? ["p", state.label] : [drag.slice(0, -1), +drag.at(-1)];
  const now = probs(state[name === "p" ? "z" : name])[k];
  setEntry(name, k, {ArrowUp: now + step, ArrowRight: now + step, ArrowDown: now - step, ArrowLeft: now - step, Home: 0, End: 1}[key]);
}
function forgetPaths() {
  Object.keys(paths).forEach(slot => delete paths[slot]);
  playing++;
  $("outcome").textContent = "";
}

function listen(id) {
  const svg = $(id);
  let dragged = null;
  const point = e => { const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal; return [(e.clientX - box.left) / box.width * view.width, (e.clientY - box.top) / box.height * view.height]; };
  svg.addEventListener("pointerdown", e => {
    const handle = e.target.closest("[data-drag]");
    if (!handle) return;
    dragged = handle.dataset.drag;
    svg.setPointerCapture(e.pointerId);
    handle.focus({preventScroll: true});
    e.preventDefault();
  });
  svg.addEventListener("pointermove", e => { if (dragged) change(() => moveTo(dragged, svg, ...point(e))); });
  for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => { dragged = null; });
  svg.addEventListener("keydown", e => {
    const handle = e.target.closest("[data-drag]");
    if (!handle || !/^(Arrow(Up|Down|Left|Right)|Home|End)$/.test(e.key)) return;
    e.preventDefault();
    change(() => nudge(handle.dataset.drag, e.key, e.shiftKey));
  });
}

// ---- choosing methods --------------------------------------------------------------------------------------------
function buildPickers() {
  const options = [...byFamily()].map(([family, names]) => `<optgroup label="${family}">${names.map(n => `<option value="${n}">${escaped(CATALOGUE[n].title)}</option>`).join("")}</optgroup>`).join("");
  $("pickers").innerHTML = state.methods.map((m, slot) => {
    const about = m.name && CATALOGUE[m.name], ordinal = ["First", "Second", "Third"][slot];
    const facts = about ? `<p class="summary">${escaped(about.summary)}</p><dl><dt>Loss</dt><dd><code>${escaped(about.loss)}</code></dd>
      <dt>Pulls</dt><dd><code>${escaped(about.pulls)}</code></dd></dl>${about.params.map(p => control(p, slot, m.params[p.name])).join("")}
      <p class="hint summary">${escaped(about.source)}</p>` : `<p class="hint">Nothing here yet.</p>`;
    return `<div class="picker" ${about ? tint(m) : ""}><select id="method${slot}" data-slot="${slot}" aria-label="${ordinal} method">
      <option value="">none</option>${options}</select>${facts}</div>`;
  }).join("");
  state.methods.forEach((m, slot) => { $(`method${slot}`).value = m.name; });
}
function byFamily() {
  const families = new Map();
  for (const [name, about] of Object.entries(CATALOGUE)) families.set(about.family, [...families.get(about.family) ?? [], name]);
  return families;
}
function control(p, slot, value) {
  const id = `param${slot}-${p.name}`, about = `<small id="${id}-doc">${escaped(p.doc)}</small>`;
  if (p.choices) return `<div class="param"><label for="${id}">${p.name}</label><select id="${id}" data-slot="${slot}" data-param="${p.name}" aria-describedby="${id}-doc">${p.choices.map(c => `<option${c === value ? " selected" : ""}>${c}</option>`).join("")}</select><span></span>${about}</div>`;
  const step = p.integer ? 1 : "any", limits = (p.least === null ? "" : ` min="${p.least}"`) + (p.most === null ? "" : ` max="${p.most}"`);
  return `<div class="param"><label for="${id}">${p.name}</label>
    <input type="range" id="${id}" data-slot="${slot}" data-param="${p.name}" min="${p.from}" max="${p.to}" step="${step}" value="${value}" aria-describedby="${id}-doc">
    <input type="number" id="${id}-number" data-slot="${slot}" data-param="${p.name}" aria-label="${p.name}" step="${step}"${limits} value="${short(value)}">${about}</div>`;
}

function parameterChanged(input) {
  const m = state.methods[+input.dataset.slot], p = CATALOGUE[m.name].params.find(q => q.name === input.dataset.param);
  if (p.choices) m.params[p.name] = input.value;
  else {
    if (input.value === "" || !Number.isFinite(+input.value)) return;
    m.params[p.name] = ordered(m, p, legal(p, +input.value));
    const id = `param${input.dataset.slot}-${p.name}`;
    for (const other of [$(id), $(`${id}-number`)]) if (other !== input) other.value = short(m.params[p.name]);
  }
  forgetPaths();
}
// Of two parameters of which one may not exceed the other, the one that is moved stops at the other.
function ordered(m, p, value) {
  if (p.name === "low" && "high" in m.params) return Math.min(value, m.params.high);
  if (p.name === "high" && "low" in m.params) return Math.max(value, m.params.low);
  return value;
}

function show(text) { forgetPaths(); restore(text); buildPickers(); draw(); }

function start() {
  $("label").innerHTML = WORDS.map((w, k) => `<option value="${k}">${w}</option>`).join("");
  $("examples").innerHTML = EXAMPLES.map((e, i) => `<button type="button" data-example="${i}">${e.name}</button>`).join("") + `<p id="lesson" role="status"></p>`;
  show(location.hash);
  if (location.hash.length < 2) $("lesson").textContent = EXAMPLES[0].lesson;  // what a fresh page shows
  for (const id of ["bars", "plot", "triangle"]) listen(id);
  document.addEventListener("input", ({target}) => {
    const {id, dataset} = target;
    if (dataset.param) return change(() => parameterChanged(target));
    if (id === "in-weight" && Number.isFinite(target.valueAsNumber)) return change(() => { state.weight = target.valueAsNumber; });
    if (id === "in-keep") return change(() => { state.keep = +target.checked; });
    if (id.startsWith("in-negative")) return change(() => { state.negative[+id.at(-1)] = +target.checked; });
  });
  document.addEventListener("change", ({target}) => {
    const {id} = target;
    if (id.startsWith("method")) change(() => {
      state.methods[+target.dataset.slot] = chosen(target.value);
      if (!active().length) state.methods = structuredClone(INITIAL.methods);
      if (!state.methods[state.active].name) state.active = active()[0].slot;
      forgetPaths();
      buildPickers();
      $(id).focus();
    });
    else if (id === "label") change(() => { state.label = +target.value; });
    else if (id === "gauge") change(() => { state.gauge = target.value; });
    else if (id === "quantity") change(() => { state.quantity = target.value; });
    else if (id === "active") change(() => { state.active = +target.value; });
    else if (id.endsWith("-number")) target.value = short(state.methods[+target.dataset.slot].params[target.dataset.param]);
  });
  document.addEventListener("click", ({target}) => {
    const example = EXAMPLES[target.dataset?.example];
    if (example) {
      show(new URLSearchParams(example.state).toString());
      remember();
      $("lesson").textContent = example.lesson;
    } else if (target.id === "play") play();
    else if (target.id === "forget") { forgetPaths(); drawTriangle(); }
    else if (target.id === "share") copyLink();
  });
  addEventListener("hashchange", () => { if (location.hash !== written) show(location.hash); });
}

async function copyLink() {
  remember();
  try { await navigator.clipboard.writeText(location.href); $("copied").textContent = "Copied."; }
  catch { $("copied").textContent = "Copy it from the address bar."; }
}

start();

// One token of double precision: what the formulas of the catalogue are written in, and what follows from their pulls.
"use strict";

const TINY = 2.2250738585072014e-308, LOG_MAX = Math.log(Number.MAX_VALUE) - 1, RULED_OUT = -1e6, EPS = 2 ** -49;

const vec = (n, f) => Array.from({length: n}, (_, k) => f(k));
const sum = (n, f) => { let s = 0; for (let k = 0; k < n; k++) s += f(k); return s; };
const total = v => sum(v.length, k => v[k]);
const log = x => Math.log(Math.max(x, TINY));
const exp = x => Math.exp(Math.min(x, LOG_MAX));
const logAddExp = (a, b) => a === b ? a + Math.LN2 : Math.max(a, b) + Math.log1p(Math.exp(-Math.abs(a - b)));
const logAdd = (logX, c) => logAddExp(logX, log(c));
const qLog = (logX, q) => q === 0 ? logX : Math.expm1(Math.min(q * logX, LOG_MAX)) / q;
const logSumExp = z => { const top = Math.max(...z); return top + Math.log(sum(z.length, k => Math.exp(z[k] - top))); };
const sumOthers = v => vec(v.length, k => sum(v.length, j => j === k ? 0 : v[j]));
const log1m = p => sumOthers(p).map(log);

function softmax(logits) {
  const lse = logSumExp(logits), logs = logits.map(z => z - lse);
  const top = Math.max(...logits), weights = logits.map(z => Math.exp(z - top)), mass = total(weights);
  return {probs: weights.map(w => w / mass), log: logs};
}

const conditioned = (logs, mask) => softmax(logs.map((x, k) => x + (1 - mask[k]) * 2 * RULED_OUT));

function argmax(logs) {
  const top = Math.max(...logs), at = logs.map(x => x === top ? 1 : 0), n = total(at), probs = at.map(x => x / n);
  return {probs, log: probs.map(log)};
}

function inTopK(logs, k) {
  const order = logs.map((_, i) => i).sort((i, j) => logs[j] - logs[i] || i - j).slice(0, k);
  return logs.map((_, i) => order.includes(i) ? 1 : 0);
}

// 1 at the largest, 2 at the next; those that tie share the mean of their places.
function ranks(logs) {
  return logs.map(p => (logs.filter(q => q > p).length + 1 + logs.filter(q => q >= p).length) / 2);
}

// The probabilities by size, the largest at the token with the largest of the logarithms.
function inOrderOf(probs, logs) {
  const places = logs.map((_, i) => i).sort((i, j) => logs[j] - logs[i] || i - j), found = [...probs];
  [...probs].sort((a, b) => b - a).forEach((p, rank) => { found[places[rank]] = p; });
  return found;
}

function topP(probs, mass) {
  const sorted = [...probs].sort((a, b) => b - a);
  let last = 0;
  for (let s = sorted[0]; s < mass && last < sorted.length - 1; s += sorted[++last]);
  return probs.map(p => p >= sorted[last] ? 1 : 0);
}

// The root of a falling function, by halving.
function bisect(f, low, high) {
  for (let i = 0; i < 200 && low < high; i++) {
    const mid = (low + high) / 2;
    if (mid === low || mid === high) break;
    if (f(mid) > 0) low = mid; else high = mid;
  }
  return (low + high) / 2;
}

function entmax(logs, alpha) {
  const x = logs.map(v => (alpha - 1) * v), top = Math.max(...x), power = 1 / (alpha - 1);
  const at = tau => x.map(v => Math.pow(Math.max(v - tau, 0), power));
  const probs = at(bisect(tau => total(at(tau)) - 1, top - 1, top));
  return {probs, log: probs.map(log)};
}

function temperedSoftmax(logs, t) {
  if (t === 1) return softmax(logs);
  const top = Math.max(...logs), at = shift => logs.map(v => Math.pow(1 + (1 - t) * (v - shift), 1 / (1 - t)));
  let high = top + 1;
  while (total(at(high)) > 1) high = top + 2 * (high - top);
  const probs = at(bisect(shift => total(at(shift)) - 1, top, high));
  return {probs, log: probs.map(log)};
}

// logits, label and contexts (MODELS: logits; weight, keep: numbers; negative: 0s and 1s; values: numbers, NaN for none).
const MODELS = ["reference", "teacher", "old", "prior", "teacher_base"];
function token(logits, label, context) {
  const n = logits.length, policy = softmax(logits), lse = logSumExp(logits);
  const rest = sum(n, k => k === label ? 0 : policy.probs[k]), raw = logits[label] - lse;
  const logU = raw > -0.5 ? Math.log1p(-Math.min(rest, 0.5)) : raw;
  const oneHot = vec(n, k => k === label ? 1 : 0);
  const t = {
    vocab: n, logits, policy, logSumExp: lse, rest, logU, u: Math.max(Math.exp(logU), TINY),
    logRest: logSumExp(vec(n, k => k === label ? RULED_OUT : logits[k])) - lse,
    label: {index: label, probs: oneHot, log: oneHot.map(x => RULED_OUT * (1 - x))},
    uniform: {probs: vec(n, () => 1 / n), log: vec(n, () => -Math.log(n))},
    weight: context.weight, keep: context.keep, negative: context.negative, teacherLogits: context.teacher,
    values: context.values && context.values.map(x => Number.isNaN(x) ? 0 : x),
    isNumber: context.values && context.values.map(x => Number.isNaN(x) ? 0 : 1),
  };
  for (const name of MODELS) if (context[name]) t[name] = softmax(context[name]);
  return t;
}

// The pulls added up, under the names of Pulled in Python (qunify/maps/_pulls.py), which says what each sum is.
function pulled(method, t, params) {
  const p = t.policy.probs, found = method.pulls(t, params), zero = vec(t.vocab, () => 0);
  const x = {policy: p, gradient: [...zero], offLabelSum: [...zero], magnitude: [...zero], onLabel: 0, offLabel: 0, weights: 0};
  for (const [w, D, isLabel] of found) {
    if (D === undefined) {  // a signed gradient vector
      x.weights = NaN;
      for (let k = 0; k < t.vocab; k++) {
        x.gradient[k] += w[k]; x.offLabelSum[k] -= w[k]; x.magnitude[k] += Math.abs(w[k]);
      }
      continue;
    }
    x.weights += Math.abs(w);
    if (isLabel) x.onLabel += w; else x.offLabel += w;
    for (let k = 0; k < t.vocab; k++) {
      const gap = isLabel && k === t.label.index ? -t.rest : p[k] - D[k];
      x.gradient[k] += w * gap;
      x.magnitude[k] += Math.abs(w) * (p[k] + D[k]);
      if (!isLabel) x.offLabelSum[k] += w * D[k];
    }
  }
  return x;
}

function scaleOf(x, gauge) {
  if (gauge === "unit") return 1;
  if (gauge === "fixed") {
    const s = x.onLabel + x.offLabel;
    return s > EPS * x.weights ? s : NaN;
  }
  const ratios = x.policy.map((p, k) => x.gradient[k] > EPS * x.magnitude[k] && p > TINY / EPS ? x.gradient[k] / p : 0);
  const s = Math.max(...ratios);
  return s > 0 ? s : NaN;
}

// One point on the ray of targets: g = scale · (p − target), target = trust·δ + (1 − trust)·residual.
function gaugeOf(x, gauge, invariant) {
  const s = invariant ? scaleOf(x, gauge) : NaN, target = x.policy.map((p, k) => p - x.gradient[k] / s);
  let unclaimed = s - x.onLabel - x.offLabel;
  const none = Math.abs(unclaimed) <= EPS * (s + Math.abs(x.onLabel) + Math.abs(x.offLabel));
  if (none) unclaimed = 0;
  const remains = none ? x.offLabel : s - x.onLabel;
  const residual = x.policy.map((p, k) => remains === 0 ? NaN : (unclaimed * p + x.offLabelSum[k]) / remains);
  return {scale: s, target, trust: x.onLabel / s, residual};
}

// The mean of Q − p when the label is drawn from a truth: what training does to p.
function drift(method, params, logits, truth, context) {
  const n = logits.length, found = vec(n, () => 0);
  for (let y = 0; y < n; y++) {
    if (!(truth[y] > 0)) continue;
    const g = pulled(method, token(logits, y, context), params).gradient;
    for (let k = 0; k < n; k++) found[k] -= truth[y] * g[k];
  }
  return found;
}

// Training on the truth from these logits, by steps that shrink where the drift turns: probabilities on the way, and
// whether it has come to rest.
function train(method, params, logits, truth, context, steps = 4000, tolerance = 1e-7) {
  let z = [...logits], step = 0.2, old = null, rested = false;
  const path = [softmax(z).probs];
  for (let i = 0; i < steps; i++) {
    const d = drift(method, params, z, truth, context), size = Math.max(...d.map(Math.abs));
    if (!Number.isFinite(size)) break;
    if (size < tolerance) { rested = true; break; }
    const agree = old ? sum(d.length, k => d[k] * old[k]) : 1;
    step = Math.min(agree > 0 ? step * 1.1 : step / 4, 0.5 / size);
    z = z.map((x, k) => x + step * d[k]);
    const middle = total(z) / z.length;
    z = z.map(x => Math.max(x - middle, -40));
    old = d;
    path.push(softmax(z).probs);
  }
  return {path, rested};
}

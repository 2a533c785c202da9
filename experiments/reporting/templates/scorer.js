"use strict";
/* The scores of all items for a session, by the models that a page holds. Items are numbers from 1, in time order; a
   table is an array of its rows, the first of which is padding. Sums are taken in double precision. */

const TYPES = { float32: Float32Array, float64: Float64Array, uint16: Uint16Array, uint32: Uint32Array };

/* Returns the numbers that a page holds in base64. */
function decodeNumbers(stored) {
  const text = atob(stored.base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return new TYPES[stored.type](bytes.buffer);
}

/* Returns a model with its arrays decoded. */
function decodeModel(stored) {
  const arrays = {};
  for (const [name, array] of Object.entries(stored.arrays)) arrays[name] = decodeNumbers(array);
  return { ...stored, arrays };
}

/* Layers. A vector is an array of numbers. */

const zeros = (size) => new Array(size).fill(0);
const sum = (x) => x.reduce((total, value) => total + value, 0);
const dot = (x, y) => sum(x.map((value, i) => value * y[i]));
const add = (x, y) => x.map((value, i) => value + y[i]);
const times = (x, y) => x.map((value, i) => value * y[i]);
const scaled = (x, factor) => x.map((value) => value * factor);
const sigmoid = (x) => 1 / (1 + Math.exp(-x));
const tableRow = (table, number, dim) => Array.from(table.subarray(number * dim, (number + 1) * dim));

/* x W, where W has one row for each number of x. */
function product(x, kernel) {
  const width = kernel.length / x.length;
  const found = zeros(width);
  for (let i = 0; i < x.length; i += 1) for (let j = 0; j < width; j += 1) found[j] += x[i] * kernel[i * width + j];
  return found;
}

/* x W + b. */
const affine = (x, model, name) => add(product(x, model.arrays[`${name}_kernel`]), Array.from(model.arrays[`${name}_bias`]));

/* x / max(|x|, 1e-12). */
const l2Normalize = (x) => scaled(x, 1 / Math.max(Math.sqrt(dot(x, x)), 1e-12));

function softmax(x) {
  const highest = Math.max(...x);
  const exponentials = x.map((value) => Math.exp(value - highest));
  return scaled(exponentials, 1 / sum(exponentials));
}

/* (x - mean) / sqrt(variance + 1e-8) * scale + bias. */
function layerNorm(x, model, name) {
  const mean = sum(x) / x.length;
  const centered = x.map((value) => value - mean);
  const normalized = scaled(centered, 1 / Math.sqrt(dot(centered, centered) / x.length + 1e-8));
  return add(times(normalized, model.arrays[`${name}_scale`]), Array.from(model.arrays[`${name}_bias`]));
}

/* Backbones: the vector of a session of at least one item. */

/* FPMC: the mean of the items' vectors. */
function encodeFpmc(model, items) {
  const rows = items.map((item) => tableRow(model.arrays.input_embedding, item, model.dim));
  return scaled(rows.reduce(add), 1 / items.length);
}

/* STAMP: attention over the items, by the mean and the last of them. */
function encodeStamp(model, items) {
  const { arrays, dim, options } = model;
  const rows = items.map((item) => tableRow(arrays.input_embedding, item, dim));
  const last = rows[rows.length - 1];
  let total = rows.reduce(add);
  if (options.sum_padding) {
    total = add(total, scaled(tableRow(arrays.input_embedding, 0, dim), model.length - items.length));
  }
  const mean = scaled(total, 1 / items.length);
  let query = add(product(last, arrays.attention_last_kernel), product(mean, arrays.attention_mean_kernel));
  query = add(query, Array.from(arrays.attention_bias));
  let vector = mean;
  for (const row of rows) {
    const hidden = add(product(row, arrays.attention_item_kernel), query);
    vector = add(vector, scaled(row, dot(hidden.map(sigmoid), arrays.attention_out_kernel)));
  }
  if (options.variant === "original") {
    vector = times(affine(vector, model, "session").map(Math.tanh), affine(last, model, "last").map(Math.tanh));
  }
  return vector;
}

/* AttMix: several levels of recent items attend to all columns, padding too; numbers are split into heads as they lie. */
function encodeAttmix(model, items) {
  const { dim, length } = model;
  const { heads, levels } = model.options;
  const size = dim / heads;
  const rows = items.map((item) => l2Normalize(tableRow(model.arrays.input_embedding, item, dim)));
  while (rows.length < length) rows.push(zeros(dim));
  const recent = [];
  for (let i = 0; i < levels; i += 1) recent.push(i < items.length ? rows[items.length - 1 - i] : zeros(dim));
  let queries = recent.map((_, i) => affine(recent.slice(0, i + 1).flat(), model, `level_${i + 1}`));
  const norms = zeros(dim).map((_, d) => Math.max(Math.sqrt(sum(queries.map((row) => row[d] ** 2))), 1e-12));
  queries = queries.flatMap((row) => affine(row.map((value, d) => value / norms[d]), model, "level_query"));
  const keys = rows.flatMap((row) => affine(row, model, "item_key"));
  const values = rows.map((row) => affine(row, model, "item_value"));
  const attended = [];
  for (let head = 0; head < heads; head += 1) {
    let weights = zeros(length);
    for (let level = 0; level < levels; level += 1) {
      const query = queries.slice((head * levels + level) * size, (head * levels + level + 1) * size);
      const keyOf = (l) => keys.slice((head * length + l) * size, (head * length + l + 1) * size);
      const energy = weights.map((_, l) => dot(query, keyOf(l)));
      weights = add(weights, softmax(energy.map((value) => 2 * sigmoid(value))));
    }
    weights = softmax(scaled(weights, 2).slice(0, items.length));
    for (let d = head * size; d < (head + 1) * size; d += 1) attended.push(sum(weights.map((w, l) => w * values[l][d])));
  }
  const pair = layerNorm(attended, model, "layer_norm").concat(recent[0]);
  return l2Normalize(affine(pair, model, "merge"));
}

const ENCODERS = { fpmc: encodeFpmc, stamp: encodeStamp, attmix: encodeAttmix };

/* The products of the session's vector with the items' vectors. */
function scoreByVectors(model, items) {
  const vector = ENCODERS[model.backbone](model, items);
  const isShared = model.backbone === "stamp" && model.options.variant === "original";
  const table = isShared ? model.arrays.input_embedding : model.arrays.output_embedding;
  const scores = new Float64Array(table.length / model.dim);
  for (let item = 1; item < scores.length; item += 1) {
    for (let d = 0; d < model.dim; d += 1) scores[item] += vector[d] * table[item * model.dim + d];
  }
  return scores;
}

/* Counting: sequential rules. What came after each item in training sessions, a recent item with more weight; of equal
   scores the more popular item is the higher one. */
function scoreByRules(model, items) {
  const { row_starts: starts, columns, codes, levels, popularity, divisors } = model.arrays;
  const weights = new Map();
  items.forEach((item, place) => {
    weights.set(item, (weights.get(item) || 0) + model.recency[items.length - 1 - place]);
  });
  const scores = new Float64Array(popularity.length);
  for (const item of [...weights.keys()].sort((a, b) => a - b)) {
    const weight = weights.get(item) / divisors[item];
    for (let at = starts[item]; at < starts[item + 1]; at += 1) scores[columns[at]] += weight * levels[codes[at]];
  }
  const most = popularity.reduce((a, b) => Math.max(a, b));
  return scores.map((score, item) => roundedHalfEven((score + (1e-6 * popularity[item]) / most) * 1e12) / 1e12);
}

/* The nearest whole number, the even one of two. */
function roundedHalfEven(x) {
  const below = Math.floor(x);
  const part = x - below;
  if (part !== 0.5) return part < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

/* The best items for a session, best first, ties to the lower number: [item, score] pairs. A model reads the last
   `length` items; no item of the session is listed. */
function recommend(model, items, k) {
  const read = items.slice(-model.length);
  const scores = model.kind === "rules" ? scoreByRules(model, read) : scoreByVectors(model, read);
  const seen = new Set(items);
  const order = [];
  for (let item = 1; item < scores.length; item += 1) if (!seen.has(item)) order.push(item);
  order.sort((a, b) => scores[b] - scores[a] || a - b);
  return order.slice(0, k).map((item) => [item, scores[item]]);
}

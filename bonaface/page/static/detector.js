// From an RGB image to its result, step by step as the Python detector takes them.

import { findFaces } from "./faces.js";
import { crop, reduce, resize, roundEven } from "./resample.js";

export class Detector {
  // `network` and `faces` run a network: (values, shape) -> {output: values}; `faces` is null for a page without one.
  constructor(facts, network, faces, bank) {
    Object.assign(this, { facts, network, faces, bank });
  }

  async check(image, { compressed = false } = {}) {
    const { facts } = this;
    const { boxes, warnings } = await this.boxesOf(image);
    const views = boxes.length ? boxes.map((box) => crop(image, faceSquare(image, box, facts.margin))) : [image];
    const faces = [];
    for (const [i, view] of views.entries()) faces.push({ box: boxes[i], ...(await this.score(view)) });
    const worst = faces.reduce((a, b) => (b.p_fake > a.p_fake ? b : a));
    const said = [];
    if (facts.drawings_only) said.push(facts.warnings.drawings);
    if (compressed) said.push(facts.warnings.compressed);
    said.push(...warnings);
    if (worst.unlike) said.push(facts.words.unlike);
    if (!facts.band) said.push("not calibrated");
    return { ...worst, faces: boxes.length ? faces : [], warnings: said };
  }

  // The faces to be scored; none where the image itself is.
  async boxesOf(image) {
    const { reader, warnings, searches } = this.facts;
    const shorter = Math.min(image.width, image.height);
    const small = shorter < reader.small_side ? [warnings.small] : [];
    if (!searches || shorter <= reader.crop_side) return { boxes: [], warnings: small };
    const found = this.faces ? await findFaces(image, this.faces, reader.looks) : [];
    if (!found.length) return { boxes: [], warnings: [warnings.no_face, ...small] };
    const [x0, y0, x1, y1] = found[0];
    if (Math.max(x1 - x0, y1 - y0) >= reader.crop_share * shorter) return { boxes: [], warnings: small };
    const large = found.filter((box) => Math.min(box[2] - box[0], box[3] - box[1]) >= reader.tiny_face);
    const boxes = (large.length ? large : found).slice(0, reader.max_faces);
    return { boxes, warnings: large.length ? [] : [warnings.small] };
  }

  async score(view) {
    const { facts } = this;
    const { logits, features } = await this.outputs(view);
    const probabilities = probabilitiesOf(logits, facts);
    const p_fake = fakeProbability(probabilities, facts);
    const unlike = Boolean(this.bank && features) && this.bank.distance(features) > facts.bank.threshold;
    return { p_fake, probabilities, unlike, verdict: verdictOf(p_fake, probabilities, unlike, facts) };
  }

  async outputs(view) {
    const { pixels, reader } = this.facts;
    const factor = Math.ceil(Math.sqrt((view.width * view.height) / reader.huge));
    const values = pixelValues(factor > 1 ? reduce(view, factor) : view, pixels);
    return this.network(values, [1, 3, pixels.height, pixels.width]);
  }
}

// The square around a face with the margin of training, moved inside the image, and smaller where the image is.
export function faceSquare(image, [x0, y0, x1, y1], margin) {
  const wanted = roundEven(Math.max(x1 - x0, y1 - y0) * (1 + 2 * margin));
  const side = Math.max(1, Math.min(wanted, image.width, image.height));
  const left = Math.min(Math.max(roundEven((x0 + x1 - side) / 2), 0), image.width - side);
  const top = Math.min(Math.max(roundEven((y0 + y1 - side) / 2), 0), image.height - side);
  return [left, top, left + side, top + side];
}

// Resized, cut out of the middle, in the network's units: three planes.
export function pixelValues(image, rule) {
  const [height, width] = rule.resized ?? shorterSideAt(rule.edge, image);
  const sized = resize(image, width, height, rule.kernel, rule.arithmetic);
  const middle = rule.crop === "even" ? (x) => roundEven(x / 2) : (x) => Math.floor(x / 2);
  const left = middle(width - rule.width), top = middle(height - rule.height);
  const values = new Float32Array(3 * rule.height * rule.width);
  for (let c = 0, at = 0; c < 3; c++) {
    for (let y = top; y < top + rule.height; y++) {
      for (let x = left; x < left + rule.width; x++, at++) {
        const inside = x >= 0 && y >= 0 && x < width && y < height; // else black, as where Pillow cuts out more
        values[at] = (inside ? sized.data[(y * width + x) * 3 + c] : 0) * rule.scale[c] + rule.offset[c];
      }
    }
  }
  return values;
}

function shorterSideAt(edge, { width, height }) {
  const longer = Math.trunc((edge * Math.max(width, height)) / Math.min(width, height));
  return width <= height ? [longer, edge] : [edge, longer];
}

export function probabilitiesOf(logits, { labels, sigmoid, calibration }) {
  if (sigmoid) {
    const each = Array.from(logits, (z) => 1 / (1 + Math.exp(-z)));
    return each.length === labels.length ? each : [each[0], 1 - each[0]];
  }
  const z = Array.from(logits, (value, i) => (calibration ? (value + calibration.bias[i]) / calibration.temperature : value));
  const most = Math.max(...z);
  const powers = z.map((value) => Math.exp(value - most));
  const sum = powers.reduce((a, b) => a + b);
  return powers.map((power) => power / sum);
}

function fakeProbability(probabilities, { real, sigmoid }) {
  if (sigmoid) return 1 - probabilities[real];
  return Math.min(probabilities.reduce((sum, p, i) => (i === real ? sum : sum + p), 0), 1);
}

function verdictOf(p_fake, probabilities, unlike, { band, real }) {
  if (unlike) return "uncertain";
  if (!band) return probabilities.indexOf(Math.max(...probabilities)) === real ? "real" : "fake";
  return p_fake <= band[0] ? "real" : p_fake >= band[1] ? "fake" : "uncertain";
}

// Unit-length features of training images in int8, each row with its scale.
export class Bank {
  constructor(bytes, { rows, neighbour }) {
    this.neighbour = neighbour;
    this.scales = new Float32Array(bytes.slice(0, 4 * rows));
    this.levels = new Int8Array(bytes, 4 * rows);
    this.width = this.levels.length / rows;
  }

  // To the neighbour-th nearest training image, in [0, 2].
  distance(features) {
    const length = Math.max(Math.hypot(...features), 1e-12);
    const similar = this.scales.map((scale, row) => {
      const start = row * this.width;
      let product = 0;
      for (let i = 0; i < this.width; i++) product += this.levels[start + i] * features[i];
      return (product * scale) / length;
    });
    const nearest = similar.sort()[similar.length - this.neighbour];
    return Math.sqrt(Math.max(2 - 2 * nearest, 0));
  }
}

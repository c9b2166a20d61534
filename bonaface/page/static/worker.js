// Holds the networks and judges one file after another, away from the page, which stays responsive.
//
// Messages in: {check: File, id}. Messages out: {loaded, total} in bytes; {ready: {threads}}; {refused: reason};
// {id, result} or {id, error: {reason, message}}.

import * as ort from "./ort.js";
import { containerOf, kindOf } from "./container.js";
import { checkBytes, decode, ImageError } from "./decode.js";
import { Bank, Detector, faceSquare } from "./detector.js";
import { findFaces } from "./faces.js";
import { provenanceOf } from "./provenance.js";
import { crop } from "./resample.js";

const HERE = new URL(".", import.meta.url);
const SHOWN = 480; // pixels, the longer side of an image on the page

class Refusal extends Error {}

async function start() {
  const facts = await (await fetched("facts.json")).json();
  const wanted = ["runtime.bin", "network.bin", "faces.bin", "bank.bin", ...facts.self_test.images.map(({ file }) => file)];
  const files = await loadAll(wanted.filter((name) => name in facts.files), facts);
  const threads = self.crossOriginIsolated ? Math.min(navigator.hardwareConcurrency || 1, 4) : 1;
  Object.assign(ort.env.wasm, { numThreads: threads, wasmBinary: files["runtime.bin"] });
  ort.env.logLevel = "error";
  const network = runner(await session(files["network.bin"]));
  const faces = files["faces.bin"] ? runner(await session(files["faces.bin"])) : null;
  const bank = files["bank.bin"] ? new Bank(files["bank.bin"], facts.bank) : null;
  const detector = new Detector(facts, network, faces, bank);
  await testItself(detector, files);
  self.postMessage({ ready: { threads } });
  return detector;
}

async function fetched(name) {
  const answer = await fetch(new URL(name, HERE));
  if (!answer.ok) throw new Refusal(`${name} could not be loaded (${answer.status}).`);
  return answer;
}

// Every file, with its digest checked before it is used.
async function loadAll(names, facts) {
  const total = names.reduce((sum, name) => sum + facts.sizes[name], 0);
  let loaded = 0;
  const files = {};
  await Promise.all(names.map(async (name) => {
    const answer = await fetched(name);
    const parts = [];
    for (const reader = answer.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      parts.push(value);
      self.postMessage({ loaded: (loaded += value.length), total });
    }
    const bytes = await new Blob(parts).arrayBuffer();
    if ((await sha256(bytes)) !== facts.files[name]) {
      throw new Refusal(`${name} is not the file that this page was made with. Reload the page, or ask whoever runs it.`);
    }
    files[name] = name.endsWith(".bin") ? await unpacked(bytes) : bytes;
  }));
  return files;
}

async function sha256(bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function unpacked(bytes) {
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

function session(bytes) {
  return ort.InferenceSession.create(new Uint8Array(bytes), { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
}

function runner(loaded) {
  return async (values, shape) => {
    const input = new ort.Tensor("float32", values, shape);
    const outputs = await loaded.run({ [loaded.inputNames[0]]: input });
    return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, tensor.data]));
  };
}

// The images of known pixels, faces and outputs: does this browser find what the Python side found?
async function testItself(detector, files) {
  const { images, tolerance, face_tolerance } = detector.facts.self_test;
  const far = (a, b) => Math.max(0, ...a.flat().map((value, i) => Math.abs(value - b.flat()[i])));
  for (const { file, pixels, faces, boxes, logits } of images) {
    const { image, bitmap } = await decode(new Uint8Array(files[file]), detector.facts.reader);
    bitmap.close();
    if ((await sha256(image.data)) !== pixels) {
      throw new Refusal(
        "This browser changes the pixels that a page reads, so a score here would mean nothing. Protection against " +
          "fingerprinting does that: allow this page to read canvas data, or use another browser.",
      );
    }
    const found = detector.faces ? await findFaces(image, detector.faces, detector.facts.reader.looks) : [];
    const cut = (await detector.boxesOf(image)).boxes;
    const same = found.length === faces.length && far(found, faces) <= face_tolerance && cut.length === boxes.length;
    const views = cut.length ? cut.map((box) => crop(image, faceSquare(image, box, detector.facts.margin))) : [image];
    for (const [i, view] of views.entries()) {
      const { logits: ours } = await detector.outputs(view);
      if (!same || !(far([...ours], logits[i]) <= tolerance)) {
        throw new Refusal("This browser computes other scores than the model's own, so it must not judge. Use another browser.");
      }
    }
  }
}

async function check(detector, file) {
  const { facts } = detector;
  checkBytes(file.size, facts.reader);
  const bytes = new Uint8Array(await file.arrayBuffer());
  const kind = kindOf(bytes);
  const provenance = kind ? await provenanceOf(containerOf(bytes, kind), kind, facts.words.provenance) : [];
  const { image, bitmap, compressed } = await decode(bytes, facts.reader);
  try {
    const result = await detector.check(image, { compressed });
    const shown = await thumbnail(bitmap, [0, 0, bitmap.width, bitmap.height], SHOWN);
    const several = result.faces.length > 1;
    for (const face of several ? result.faces : []) face.shown = await thumbnail(bitmap, faceSquare(image, face.box, 0.3), 144);
    return { ...result, size: [image.width, image.height], provenance, shown };
  } finally {
    bitmap.close();
  }
}

function thumbnail(bitmap, [x0, y0, x1, y1], side) {
  const scale = Math.min(1, side / Math.max(x1 - x0, y1 - y0));
  const size = { resizeWidth: Math.max(1, Math.round((x1 - x0) * scale)), resizeHeight: Math.max(1, Math.round((y1 - y0) * scale)) };
  return createImageBitmap(bitmap, Math.floor(x0), Math.floor(y0), Math.max(1, Math.round(x1 - x0)), Math.max(1, Math.round(y1 - y0)), size);
}

function explained(error) {
  if (error instanceof ImageError) return { reason: error.reason, message: error.message };
  if (error instanceof RangeError) return { reason: "too many pixels", message: "There is not enough memory for this image." };
  return { reason: "unreadable", message: `The file could not be checked (${error.message}).` };
}

const detector = start();
detector.catch((error) => {
  const reason = error instanceof Refusal ? error.message : `The detector could not be started (${error.message}).`;
  self.postMessage({ refused: reason });
});

let last = Promise.resolve(); // one file at a time
self.onmessage = ({ data: { check: file, id } }) => {
  last = last.then(async () => {
    try {
      self.postMessage({ id, result: await check(await detector, file) });
    } catch (error) {
      self.postMessage({ id, error: explained(error) });
    }
  });
};

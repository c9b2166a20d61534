// The page: files in, results out. What judges them runs in a worker.

import { rowOf, saveCsv, saveJson } from "./save.js";

const $ = (id) => document.getElementById(id);
const template = (id) => $(id).content.firstElementChild.cloneNode(true);
const facts = await fetch(new URL("facts.json", import.meta.url)).then((answer) => answer.json()).catch(unloaded);
const { words } = facts;

let worker = null;
let waiting = []; // {file, article}
let current = null;
let ready = false;
let refused = "";
const rows = []; // of the files to take away

function unloaded(error) {
  showState("failed", "The page is incomplete. Reload it, or ask whoever runs it.");
  throw error;
}

// --- the worker ----------------------------------------------------------------------------------------------------

function startWorker() {
  // From a blob, so that it inherits this page's policy; one from a file has only the policy of its server's headers.
  const source = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
  const address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
  worker = new Worker(address, { type: "module" });
  ready = false;
  worker.onmessage = ({ data }) => {
    if (data.total) showState("loading", `Loading the detector: ${Math.round((100 * data.loaded) / data.total)} %`, data.loaded / data.total);
    if (data.ready) begin(data.ready);
    if (data.refused) refuse(data.refused);
    if (data.id !== undefined) finish(data);
  };
  worker.onerror = (event) => refuse(`The detector could not be started (${event.message || "it could not be loaded"}).`);
}

function begin({ threads }) {
  ready = true;
  document.body.dataset.threads = threads;
  showState("ready", `The model ${facts.name} is ready, in this browser.`);
  keepForOffline();
  next();
}

function refuse(reason) {
  refused = reason;
  ready = false;
  for (const id of ["file", "camera", "shoot"]) $(id).disabled = true;
  worker?.terminate();
  worker = null;
  showState("failed", "No verdicts");
  for (const { article } of [current, ...waiting].filter(Boolean)) article.remove();
  [current, waiting] = [null, []];
  $("empty")?.remove();
  $("results").prepend(notice("This page gives no verdicts here", [reason]));
  showProgress();
}

function keepForOffline() {
  const folder = new URL(".", import.meta.url).pathname.split("/").at(-2);
  navigator.serviceWorker?.register(`sw.js?folder=${folder}`).catch(() => {}); // without, the page needs a network each time
}

function showState(status, message, share) {
  $("state").className = `bf-state bf-${status}`;
  $("state").lastElementChild.textContent = message;
  $("bar").hidden = share === undefined;
  $("bar").value = share ?? 0;
}

// --- files in ------------------------------------------------------------------------------------------------------

function add(files) {
  if (refused || !files.length) return;
  $("empty")?.remove();
  for (const file of files) {
    const article = template("result");
    article.querySelector("h2").textContent = plain(file.name);
    $("results").append(article);
    waiting.push({ file, article });
  }
  if (!worker) startWorker();
  next();
}

function next() {
  if (ready && !current && waiting.length) {
    current = waiting.shift();
    worker.postMessage({ check: current.file, id: rows.length });
  }
  showProgress();
}

function finish({ result, error }) {
  const { file, article } = current;
  current = null;
  rows.push(rowOf(file.name, result, error, facts));
  article.querySelector(".bf-waiting").remove();
  if (error) article.append(unreadable(error));
  else showResult(article, result);
  article.dataset.done = result ? "result" : "error";
  next();
}

function cancel() {
  for (const { article } of [current, ...waiting].filter(Boolean)) article.remove();
  [current, waiting] = [null, []];
  worker?.terminate(); // stops at once, and gives its memory back; the next file starts another
  worker = null;
  ready = false;
  showState("ready", "Stopped. The next image starts the detector again.");
  showProgress();
}

function clear() {
  cancel();
  rows.length = 0;
  $("results").replaceChildren();
  showState("ready", "All results are gone.");
  showProgress();
}

function showProgress() {
  const left = waiting.length + (current ? 1 : 0), done = rows.length;
  $("cancel").hidden = !left;
  $("after").hidden = !done;
  $("count").textContent = left ? `${done} of ${done + left} images checked` : done ? summary() : "";
}

function summary() {
  const counts = ["fake", "uncertain", "real", "error"].map((verdict) => [verdict, rows.filter((row) => row.verdict === verdict).length]);
  const said = counts.filter(([, n]) => n).map(([verdict, n]) => `${n} ${verdict === "fake" ? words.verdicts.fake : words.verdicts[verdict].toLowerCase()}`);
  return `${rows.length} ${rows.length === 1 ? "file" : "files"}: ${said.join(", ")}.`;
}

// --- results out ---------------------------------------------------------------------------------------------------

function showResult(article, result) {
  const card = template(`verdict-${result.verdict}`);
  const shown = score(result.p_fake);
  card.querySelector(".bf-score b").textContent = shown;
  const meter = card.querySelector(".bf-meter");
  meter.ariaLabel = meter.ariaLabel.replace(/^Score [\d.]+/, `Score ${shown}`);
  card.querySelector(".bf-mark").dataset.left = 100 * result.p_fake;
  const reason = result.unlike ? "unlike" : result.verdict, [short, ...long] = meaningOf(result);
  card.querySelector(".bf-beside").textContent = words.beside[reason];
  card.querySelector(".bf-short").textContent = short;
  lines(card.querySelector(".bf-sure > p"), [words.why[reason], ...long]);
  labels(card.querySelector(".bf-labels"), result.probabilities);
  warnings(card.querySelector(".bf-warnings"), result.warnings);
  place(card);
  article.append(picture(result.shown, `The image, ${result.size.join(" × ")} pixels`, "bf-shown"), card);
  if (result.faces.length > 1) article.append(facesCard(result.faces));
  article.append(provenanceCard(result.provenance));
}

function meaningOf({ p_fake, unlike }) {
  const { lines: told, at, unlike: [shortly, ...more] } = words.meanings;
  const [short, ...long] = told[at[Math.round(p_fake * (at.length - 1))]];
  return unlike ? [shortly, ...long, ...more] : [short, ...long];
}

function warnings(list, all) {
  const names = all.filter((name) => name in words.warnings); // one stands beside the verdict, as its reason
  const item = list.firstElementChild;
  list.replaceChildren(...names.map((name) => {
    const copy = item.cloneNode(true), [title, text] = words.warnings[name];
    copy.firstElementChild.textContent = `${title}.`;
    copy.lastChild.textContent = ` ${text}`;
    return copy;
  }));
  if (!names.length) list.remove();
}

// Replace a line by several.
function lines(line, texts) {
  line.replaceWith(...texts.map((text) => Object.assign(document.createElement("p"), { textContent: text })));
}

// The largest first, where the card has a place for them: with two labels, one says what the other is.
function labels(list, probabilities) {
  if (!list) return;
  const shares = probabilities.map((p, i) => [facts.labels[i], p]).sort(([, a], [, b]) => b - a).slice(0, list.children.length);
  for (const [i, [label, p]] of shares.entries()) {
    list.children[i].querySelector("bdi").textContent = plain(label);
    list.children[i].querySelector("dd").textContent = score(p);
  }
}

function facesCard(faces) {
  const card = template("faces"), list = card.querySelector("ol");
  card.querySelector("h3").textContent = card.querySelector("h3").textContent.replace(/\d+/, faces.length);
  const items = Object.fromEntries(["real", "fake", "uncertain"].map((verdict) => [verdict, list.querySelector(`li:has(.bf-${verdict})`)]));
  list.replaceChildren(...faces.map((face, i) => {
    const item = items[face.verdict].cloneNode(true);
    item.querySelector("img").replaceWith(picture(face.shown, `Face ${i + 1}`, "bf-face"));
    item.querySelector(".bf-small").textContent = `Face ${i + 1}, score ${score(face.p_fake)}`;
    return item;
  }));
  return card;
}

function provenanceCard(said) {
  const card = template(said.length ? "provenance-some" : "provenance-none");
  card.querySelector(".bf-note").textContent = words.note;
  const list = card.querySelector("dl");
  if (!said.some(({ source }) => source === "C2PA")) card.querySelector("p:has(> b)")?.remove();
  if (list) {
    const [term, text] = list.children;
    list.replaceChildren(...said.flatMap((item) => {
      const [dt, dd] = [term.cloneNode(true), text.cloneNode(true)];
      dt.firstChild.textContent = `${words.kinds[item.says]} `;
      dt.lastElementChild.textContent = item.source;
      dd.textContent = item.text;
      return [dt, dd];
    }));
  }
  return card;
}

function picture(bitmap, name, kind) {
  const canvas = Object.assign(document.createElement("canvas"), { width: bitmap.width, height: bitmap.height, className: kind });
  canvas.role = "img";
  canvas.ariaLabel = name;
  canvas.getContext("bitmaprenderer").transferFromImageBitmap(bitmap);
  return canvas;
}

function unreadable({ reason, message }) {
  return notice(null, [message, words.remedies[reason] ?? "Save it again as JPEG or PNG, then send it."]);
}

function notice(title, texts) {
  const card = template("error");
  if (title) card.querySelector(".bf-title").textContent = title;
  const [line, ...others] = card.querySelectorAll("p:not(.bf-title)");
  others.forEach((other) => other.remove());
  lines(line, texts);
  return card;
}

// The page's policy allows no style in markup: widths and places come as data.
function place(card) {
  card.querySelectorAll("[data-width]").forEach((part) => (part.style.width = `${part.dataset.width}%`));
  card.querySelectorAll("[data-left]").forEach((part) => (part.style.left = `${part.dataset.left}%`));
}

function score(p) {
  return (p > 0 && p < 0.01) || (p > 0.99 && p < 1) ? p.toFixed(4) : p.toFixed(2);
}

// Without control and direction characters, which could make a name read as another.
function plain(name) {
  return name.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, "").slice(0, 160);
}

// --- the camera ----------------------------------------------------------------------------------------------------

let stream = null;

async function openCamera() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1920 }, height: { ideal: 1080 } } });
  } catch (error) {
    $("count").textContent = `The camera cannot be used (${error.name}). Allow it for this page, or choose a file.`;
    return;
  }
  $("shoot").disabled = true; // until there is an image
  $("video").onloadeddata = () => { $("shoot").disabled = false; $("shoot").focus(); };
  $("video").srcObject = stream;
  $("camera-box").hidden = false;
}

function closeCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = $("video").srcObject = null;
  $("camera-box").hidden = true;
  $("camera").focus();
}

async function shoot() {
  const video = $("video"), canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  add([new File([await canvas.convertToBlob({ type: "image/png" })], `camera ${rows.length + waiting.length + 1}.png`)]);
}

// --- events --------------------------------------------------------------------------------------------------------

const dark = matchMedia("(prefers-color-scheme: dark)");
const paint = () => document.documentElement.classList.toggle("dark", dark.matches);
dark.addEventListener("change", paint);
paint();

$("file").onchange = ({ target }) => { add([...target.files]); target.value = ""; };
$("camera").onclick = openCamera;
$("shoot").onclick = shoot;
$("close").onclick = closeCamera;
$("cancel").onclick = cancel;
$("clear").onclick = clear;
$("json").onclick = () => saveJson(rows, facts);
$("csv").onclick = () => saveCsv(rows);
$("camera").hidden = !navigator.mediaDevices;
addEventListener("paste", ({ clipboardData }) => add([...clipboardData.files]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("bf-over", kind === "dragover");
    if (kind === "drop") add([...event.dataTransfer.files]);
  });
}
if (isSecureContext) startWorker();
else refuse("A browser runs the detector only on a page that came by https, or from this computer itself.");

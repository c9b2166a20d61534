// What a file says about itself: EXIF, a PNG's text, the source type of XMP, and whether there are content credentials.
// A small part of what `bonaface provenance` reads; where both read, they say the same.

import { hasCredentials, text } from "./container.js";

const MAX_TEXT = 300, MAX_PARSED = 200_000;
const TAGS = {
  11: "ProcessingSoftware",
  269: "DocumentName", 270: "ImageDescription", 271: "Make", 272: "Model", 305: "Software", 315: "Artist",
  33434: "ExposureTime", 33437: "FNumber", 34855: "ISOSpeedRatings", 36867: "DateTimeOriginal", 37386: "FocalLength",
  37510: "UserComment",
};
const TEXTS = ["ImageDescription", "UserComment", "Software", "ProcessingSoftware", "Artist", "Make", "DocumentName"];
const SETTINGS = ["ExposureTime", "FNumber", "ISOSpeedRatings", "FocalLength"];

// [{says, source, text}]; `patterns` are the Python side's.
export async function provenanceOf(container, kind, patterns) {
  const exif = readExif(exifBytes(container, kind));
  const texts = { ...(await pngTexts(container, kind)) };
  for (const name of TEXTS) if (exif[name]) texts[`EXIF ${name}`] = String(exif[name]);
  const found = camera(exif);
  for (const [source, value] of Object.entries(texts)) found.push(...generator(source, value.slice(0, MAX_PARSED), patterns));
  found.push(...sourceTypes(xmpText(container, kind), patterns));
  if (hasCredentials(container, kind)) {
    const said = "content credentials are present; this page does not read or verify them";
    found.push({ says: "unclear", source: "C2PA", text: said });
  }
  return found.map((item) => ({ ...item, text: clean(item.text) }));
}

function camera(exif) {
  const make = exif.Make ?? "", model = exif.Model ?? "";
  if (!make && !model) return [];
  const taken = SETTINGS.some((name) => name in exif);
  const name = model.startsWith(make) ? model : `${make} ${model}`.trim();
  const settings = taken ? "with exposure settings" : "without exposure settings, which cameras write";
  const date = exif.DateTimeOriginal ? `, taken ${exif.DateTimeOriginal}` : "";
  return [{ says: taken ? "camera" : "unclear", source: "EXIF", text: `${name}, ${settings}${date}` }];
}

function generator(source, value, patterns) {
  const is = (name) => new RegExp(...patterns[name]);
  const field = (source.split("`")[1] ?? "").toLowerCase();
  const say = (says, said) => [{ says, source, text: `${said}: ${value}` }];
  if (isComfy(value)) return say("generated", "a ComfyUI graph");
  if (is("parameters").test(value)) return say("generated", "Stable Diffusion parameters");
  if (field in patterns.own_fields) return say("generated", `settings of ${patterns.own_fields[field]}`);
  if (is("midjourney").test(value)) return say("generated", "a Midjourney prompt");
  const name = is("names").exec(value), editor = is("editors").exec(value);
  if (name) return say(is("program_field").test(source) || is("credit").test(value) ? "generated" : "unclear", `names ${name[0]}`);
  return editor ? say("edited", `names ${editor[0]}`) : [];
}

function isComfy(value) {
  const head = value.slice(0, 5000);
  return value.trimStart().startsWith("{") && (head.includes('"class_type"') || (value.includes('"nodes"') && head.includes('"last_node_id"')));
}

// Only the IPTC's property counts, and not what is said of the images that this one was made from.
function sourceTypes(xmp, { source_types, iptc_extension }) {
  const own = xmp.replace(/<([\w.-]+:(?:Ingredients|Pantry))\b[^>]*>.*?<\/\1>/gs, "");
  const prefixes = Array.from(own.matchAll(/xmlns:([\w-]+)\s*=\s*["']([^"']+)["']/g), ([, prefix, uri]) => uri === iptc_extension && prefix);
  const found = own.matchAll(/([\w-]+):digitalSourceType(?:="|>\s*)([^"<]{1,300})/gi);
  return Array.from(found).filter(([, prefix]) => prefixes.includes(prefix)).map(([, , value]) => {
    const name = value.trim().replace(/\/$/, "").split(/[/:#]/).at(-1).slice(0, 60);
    const [says, meaning] = source_types[name.toLowerCase()] ?? ["unclear", "an unknown source type"];
    return { says, source: "XMP digitalSourceType", text: `${name}: ${meaning}` };
  });
}

function xmpText({ parts }, kind) {
  const utf8 = (bytes) => new TextDecoder().decode(bytes.subarray(0, MAX_PARSED));
  const header = "http://ns.adobe.com/xap/1.0/\0";
  if (kind === "JPEG") return parts.filter(({ name, bytes }) => name === "APP1" && text(bytes, 0, 29) === header).map(({ bytes }) => utf8(bytes)).join("");
  const wanted = kind === "PNG" ? ({ name, bytes }) => name === "iTXt" && text(bytes, 0, 17) === "XML:com.adobe.xmp" : ({ name }) => name === "XMP ";
  return parts.filter(wanted).map(({ bytes }) => utf8(bytes)).join("");
}

function exifBytes({ parts }, kind) {
  if (kind === "JPEG") return parts.find(({ name, bytes }) => name === "APP1" && text(bytes, 0, 6) === "Exif\0\0")?.bytes.subarray(6);
  const found = parts.find(({ name }) => name === (kind === "PNG" ? "eXIf" : "EXIF"))?.bytes;
  return found && text(found, 0, 6) === "Exif\0\0" ? found.subarray(6) : found;
}

// The wanted tags of a TIFF structure, its Exif block included; what is broken is passed over.
function readExif(bytes) {
  const found = {};
  if (!bytes || bytes.length < 8) return found;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length), little = bytes[0] === 0x49;
  const directory = (at, within) => {
    const n = view.getUint16(at, little);
    for (let i = 0, entry = at + 2; i < n; i++, entry += 12) {
      const tag = view.getUint16(entry, little), kind = view.getUint16(entry + 2, little), count = view.getUint32(entry + 4, little);
      if (tag === 34665 && !within) directory(view.getUint32(entry + 8, little), true);
      if (!(tag in TAGS)) continue;
      const size = count * ({ 2: 1, 7: 1 }[kind] ?? 8);
      const start = size > 4 ? view.getUint32(entry + 8, little) : entry + 8;
      found[TAGS[tag]] = kind === 2 || kind === 7 ? words(bytes.subarray(start, start + count)) : true;
    }
  };
  try {
    directory(view.getUint32(4, little), false);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // it points outside of the block
  }
  return found;
}

// EXIF 2.3, 4.6.5: a comment starts with the name of its code.
function words(bytes) {
  const code = text(bytes, 0, 8);
  if (code === "UNICODE\0") {
    const body = bytes.subarray(8), big = (body[0] === 0xfe && body[1] === 0xff) || body[0] === 0;
    return stripped(new TextDecoder(big ? "utf-16be" : "utf-16le").decode(body));
  }
  return stripped(new TextDecoder().decode(code === "ASCII\0\0\0" || code === "\0".repeat(8) ? bytes.subarray(8) : bytes));
}

async function pngTexts({ parts }, kind) {
  const found = {};
  if (kind !== "PNG") return found;
  for (const { name, bytes } of parts) {
    const end = bytes.indexOf(0), key = text(bytes, 0, Math.max(end, 0)), rest = bytes.subarray(end + 1);
    if (end < 1 || !["tEXt", "zTXt", "iTXt"].includes(name) || key === "XML:com.adobe.xmp") continue;
    let value;
    if (name === "tEXt") value = new TextDecoder("latin1").decode(rest);
    if (name === "zTXt") value = new TextDecoder("latin1").decode(await inflated(rest.subarray(1)));
    if (name === "iTXt") {
      const body = rest.subarray(rest.indexOf(0, rest.indexOf(0, 2) + 1) + 1);
      value = new TextDecoder().decode(rest[0] ? await inflated(body) : body);
    }
    if (stripped(value)) found[`PNG text \`${clean(key)}\``] = stripped(value);
  }
  return found;
}

// At most MAX_PARSED bytes: a few compressed ones can be gigabytes.
async function inflated(bytes) {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const out = new Uint8Array(MAX_PARSED);
  let length = 0;
  try {
    for (let part; length < MAX_PARSED && !(part = await reader.read()).done; ) {
      const kept = part.value.subarray(0, MAX_PARSED - length);
      out.set(kept, length);
      length += kept.length;
    }
  } catch {
    return out.subarray(0, 0); // broken
  }
  reader.cancel().catch(() => {});
  return out.subarray(0, length);
}

function stripped(value) {
  return value.replace(/^[\0\s]+|[\0\s]+$/g, "");
}

// One line without control or bidirectional characters, and not too long.
export function clean(value) {
  const line = value.slice(0, 4 * MAX_TEXT).replace(/[\p{C}\p{Zl}\p{Zp}\s]/gu, " ").replace(/ +/g, " ").trim();
  return line.length <= MAX_TEXT ? line : `${line.slice(0, MAX_TEXT - 1)}…`;
}

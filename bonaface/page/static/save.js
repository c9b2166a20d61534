// Results as files to take away.

const FORMULA = /^[=+\-@\t\r]/; // what a spreadsheet would run

// A row of the table, with the columns of `bonaface predict`.
export function rowOf(path, result, error, { labels }) {
  const shares = labels.map((label, i) => [`p_${label}`, result ? result.probabilities[i] : null]);
  const scores = { p_fake: result ? result.p_fake : null, ...Object.fromEntries(shares.filter(([name]) => name !== "p_fake")) };
  if (error) {
    const { reason: status, message } = error;
    return { path, status, error: message, verdict: "error", ...scores, n_faces: 0, faces: [], warnings: "" };
  }
  const rounded = (box) => box.map((value) => Math.round(10 * value) / 10);
  const faces = result.faces.map(({ box, p_fake, verdict }) => ({ box: rounded(box), p_fake, verdict }));
  const warnings = result.warnings.join("; ");
  return { path, status: "ok", error: "", verdict: result.verdict, ...scores, n_faces: faces.length, faces, warnings };
}

function save(name, type, content) {
  const address = URL.createObjectURL(new Blob([content], { type }));
  Object.assign(document.createElement("a"), { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 60_000);
}

export function saveJson(rows, facts) {
  const model = { name: facts.name, bonaface: facts.version, weights: facts.weights, labels: facts.labels, band: facts.band };
  save("bonaface-results.json", "application/json", `${JSON.stringify({ model, files: rows }, null, 1)}\n`);
}

export function saveCsv(rows) {
  const names = Object.keys(rows[0]);
  const cell = (value) => {
    const text = value === null ? "" : typeof value === "object" ? (value.length ? JSON.stringify(value) : "") : String(value);
    const safe = typeof value === "string" && FORMULA.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const table = [names, ...rows.map((row) => names.map((name) => row[name]))];
  save("bonaface-results.csv", "text/csv", table.map((row) => `${row.map(cell).join(",")}\r\n`).join(""));
}

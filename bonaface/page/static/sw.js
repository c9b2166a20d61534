// The page without a network: all of its files are kept after the first visit. The headers that let the networks run on
// several threads, and that a plain file server does not send, come from here.

const FOLDER = new URL(location).searchParams.get("folder");
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
  "Cross-Origin-Resource-Policy": "same-origin",
};

self.addEventListener("install", (event) => event.waitUntil(keep()));

async function keep() {
  const cache = await caches.open(FOLDER);
  const facts = await fetch(`${FOLDER}/facts.json`);
  const { files } = await facts.clone().json();
  await cache.put(`${FOLDER}/facts.json`, facts);
  await cache.addAll(["./", ...Object.keys(files).map((name) => `${FOLDER}/${name}`)]);
  await self.skipWaiting();
}

self.addEventListener("activate", (event) => event.waitUntil(replace()));

async function replace() {
  const old = (await caches.keys()).filter((name) => name.startsWith("files-") && name !== FOLDER);
  await Promise.all(old.map((name) => caches.delete(name)));
  await self.clients.claim();
}

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method === "GET" && url.origin === location.origin) event.respondWith(answer(event.request));
});

// The page itself is asked for anew where there is a network; its files never change under their names.
async function answer(request) {
  const kept = await caches.match(request.mode === "navigate" ? "./" : request, { cacheName: FOLDER, ignoreSearch: true });
  const found = request.mode === "navigate" ? await fetch(request).catch(() => kept) : kept ?? (await fetch(request));
  if (!found) return Response.error();
  const headers = new Headers(found.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(found.body, { status: found.status, statusText: found.statusText, headers });
}

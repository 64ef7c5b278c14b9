// What the pages share. What people typed (phrases, labels, errors) is set as text only, never as HTML.

export const SILENT = "The backend does not answer.";

export const $ = (selector, root = document) => root.querySelector(selector);

export const sentence = (text) => `${text.charAt(0).toUpperCase()}${text.slice(1).replace(/\.?$/, ".")}`;

export const count = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;

export function put(selector, text, root = document) {
  const node = $(selector, root);
  if (node.textContent !== text) node.textContent = text;
  node.hidden = !text;
}

// For places that are read out when they change: they must not be hidden in between.
export function say(id, text) {
  const node = document.getElementById(id);
  if (node.textContent !== text) node.textContent = text;
}

export function link(anchor, url) {
  // An address may be anything, `javascript:` too.
  if (/^https?:\/\//i.test(url ?? "")) anchor.href = url;
  else anchor.removeAttribute("href");
}

// The answer's JSON; an Error whose message is the server's sentence. `sent` goes along as JSON.
export async function ask(path, { method = "GET", sent, within = 10_000 } = {}) {
  const headers = method === "GET" ? {} : { "X-Sam3-Backend": "1" };
  if (sent) headers["Content-Type"] = "application/json";
  const body = sent && JSON.stringify(sent);
  const options = { method, headers, body, cache: "no-store", signal: AbortSignal.timeout(within) };
  const answer = await fetch(path, options).catch(() => null);
  const found = await answer?.json().catch(() => null);
  if (!answer?.ok || !found) throw new Error(found?.error ?? SILENT);
  return found;
}

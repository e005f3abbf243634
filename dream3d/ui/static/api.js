// The HTTP API. A restarted server is found again with all that was typed; one with other scripts makes the page load itself anew.

let page;
export const connection = new EventTarget();

export class Refusal extends Error {}

async function ask(method, path, body, headers = body === undefined ? {} : { "Content-Type": "application/json" }) {
  let answer;
  try {
    answer = await fetch(`/api/${path}`, {
      method,
      headers,
      body: body === undefined || body instanceof Blob ? body : JSON.stringify(body),
    });
  } catch {
    connection.dispatchEvent(new Event("lost"));
    throw new Refusal("the server does not answer; what runs goes on, and this page finds it again");
  }
  connection.dispatchEvent(new Event("found"));
  // What is refused before it is read (too large, no password) is told in plain text.
  const text = await answer.text().catch(() => "");
  const plain = answer.headers.get("content-type")?.startsWith("text/plain") ? text : "";
  const data = plain ? {} : read(text);
  if (data.page !== undefined) {
    page ??= data.page;
    if (page !== data.page) location.reload();
  }
  if (!answer.ok) throw new Refusal(data.error?.message ?? (plain || `the server answered ${answer.status}`));
  return data;
}

function read(text) {
  try {
    return JSON.parse(text) ?? {};
  } catch {
    return {};
  }
}

export const get = (path) => ask("GET", path);
export const post = (path, body = {}) => ask("POST", path, body);
// Resolves to the name that a setting takes for the file.
export const upload = async (file) => (await ask("POST", `uploads?name=${encodeURIComponent(file.name)}`, file, { "Content-Type": "application/octet-stream" })).upload;
export const remove = (path) => ask("DELETE", path);

export const fileUrl = (job, name, version = "") =>
  `/api/jobs/${job}/files/${encodeURIComponent(name)}${version ? `?v=${version}` : ""}`;
export const saveUrl = (job, name) => `${fileUrl(job, name)}?save=1`;

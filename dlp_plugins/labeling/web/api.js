// Requests to the server. The page's address holds the token, so relative addresses are enough.

export const person = (() => {
  const known = localStorage.getItem("dlp-person");
  const own = known || Array.from(crypto.getRandomValues(new Uint8Array(8)), b => b.toString(16).padStart(2, "0")).join("");
  localStorage.setItem("dlp-person", own);
  return own;
})();

async function answered(response) {
  if (response.ok) return response;
  if (response.status === 404) throw new Error("The server was started again. Open the address that it printed.");
  const text = await response.text();
  throw new Error(text.length < 400 && !text.startsWith("{") ? text : `The server refused this (${response.status}).`);
}

async function request(path, options) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is `dlp label` still running?");
  }
  return answered(response);
}

export const get = async path => (await request(`api/${path}`)).json();

export const bytes = async path => (await request(`api/${path}`)).arrayBuffer();

export const post = async (path, body = {}) =>
  (await request(`api/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ person, ...body }),
  })).json();

// One answer after the other: the next one needs the versions that the last one made.
let last = Promise.resolve();
export let waiting = 0; // answers that the server has not confirmed yet

export function inTurn(task) {
  waiting++;
  const run = last.then(task).finally(() => waiting--);
  last = run.catch(() => {});
  return run;
}

// Until all that was answered so far is with the server, or was refused.
export const answersSent = () => last;

// The server's HTTP API as the page uses it. URLs are relative: the page works at any prefix.

export class ApiError extends Error {
  constructor(status, error) {
    super(error.message || `HTTP ${status}`);
    this.status = status;
    this.code = error.code || "";
  }
}

const RENDER = "render=html";
const session = (uid) => `v1/sessions/${uid}`;
const turn = (uid, id) => `${session(uid)}/turns/${id}`;

/** A response with a good status. Raises ApiError, and TypeError if no server answers. */
async function send(method, path, body, headers = {}, signal = undefined) {
  const response = await fetch(path, {
    method,
    headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
    body: body === undefined ? undefined : JSON.stringify(body),
    signal,
    cache: "no-store",
  });
  if (response.ok) return response;
  const answer = await response.json().catch(() => ({}));
  throw new ApiError(response.status, answer.error || {});
}

async function json(method, path, body) {
  return (await send(method, path, body)).json();
}

export const login = (key) => json("POST", "v1/login", key === undefined ? {} : { key });
export const logout = () => send("POST", "v1/logout");
export const listModels = async () => (await json("GET", "v1/models")).data;
export const listPlugins = async () => (await json("GET", "v1/plugins")).data;

export function listChats(search = "", after = "", limit = 40) {
  const query = new URLSearchParams({ limit: String(limit) });
  if (search) query.set("search", search);
  if (after) query.set("after", after);
  return json("GET", `v1/sessions?${query}`);
}

export const createChat = (body) => json("POST", "v1/sessions", body);
export const changeChat = (uid, changes) => json("PATCH", session(uid), changes);
export const deleteChat = (uid) => json("DELETE", session(uid));
/** The chat with all of its turns, their replies as HTML. */
export const readChat = (uid) => json("GET", `${session(uid)}?all=true&${RENDER}`);
/** The chat without its other branches: what has changed, and whether a turn runs. */
export const glanceAtChat = (uid) => json("GET", session(uid));
export const cancelTurn = (uid, id) => json("POST", `${turn(uid, id)}/cancel`, { keep: true });
export const rateTurn = (uid, id, liked) => json("PUT", `${turn(uid, id)}/feedback`, { liked });

/** Starts a turn; the same `key` never starts another one. The response is its events. */
export const startTurn = (uid, body, key, signal) =>
  send("POST", `${session(uid)}/turns?${RENDER}`, { ...body, stream: true }, { "Idempotency-Key": key }, signal);

export const startAgain = (uid, id, key, signal) =>
  send("POST", `${turn(uid, id)}/regenerate?${RENDER}`, { stream: true }, { "Idempotency-Key": key }, signal);

/** The events of a turn behind number `after`; status 204 if there are none. */
export const followTurn = (uid, id, after, signal) =>
  send("GET", `${turn(uid, id)}/events?${RENDER}${after >= 0 ? `&after=${after}` : ""}`, undefined, {}, signal);

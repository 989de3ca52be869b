// Reads the events of a turn, through broken connections and restarted servers.

import { ApiError, followTurn } from "./api.js";

const FIRST_PAUSE_MS = 300;
const LONGEST_PAUSE_MS = 3000;
const PASSING = [408, 429, 500, 502, 503, 504];

/** Server-sent events of a response, as `{number, kind, data}`; those without a number have -1. */
async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (text + value).split("\n\n");
      text = blocks.pop();
      yield* blocks.map(parseEvent).filter((event) => event !== null);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function parseEvent(block) {
  let number = -1;
  let kind = "message";
  const data = [];
  for (const line of block.split("\n")) {
    if (line.startsWith("id: ")) number = Number(line.slice(4));
    else if (line.startsWith("event: ")) kind = line.slice(7);
    else if (line.startsWith("data: ")) data.push(line.slice(6));
  }
  return data.length ? { number, kind, data: JSON.parse(data.join("\n")) } : null;
}

/**
 * Tells `onEvent` each event of a turn once, in order, up to `done` or `error`.
 *
 * `begin()` opens the first response; after a break it is asked again until the turn has an id,
 * then the turn is followed from the last event. `onWait(isWaiting)` says that no server answers.
 * Raises ApiError for an answer that asking again will not change, and AbortError.
 */
export async function tellTurn(uid, turnId, begin, onEvent, onWait, signal) {
  const state = { id: turnId, last: -1, pauseMs: FIRST_PAUSE_MS };
  for (;;) {
    try {
      const response = await (state.id ? followTurn(uid, state.id, state.last, signal) : begin());
      onWait(false);
      if (response.status === 204 || (await tellAll(response, state, onEvent))) return;
    } catch (error) {
      if (signal.aborted || !isPassing(error)) throw error;
      onWait(true);
    }
    await pause(state, signal);
  }
}

/** Whether the last event came. The response is read to its end, which is near then. */
async function tellAll(response, state, onEvent) {
  let hasEnded = false;
  for await (const event of readEvents(response)) {
    if (event.kind === "turn") state.id = event.data.id;
    if (event.number >= 0) state.last = event.number;
    state.pauseMs = FIRST_PAUSE_MS;
    if (event.kind === "error" && event.number < 0) throw new ApiError(503, event.data.error || {});
    onEvent(event);
    hasEnded ||= event.kind === "done" || event.kind === "error";
  }
  return hasEnded;
}

function isPassing(error) {
  return !(error instanceof ApiError) || PASSING.includes(error.status);
}

function pause(state, signal) {
  const ms = state.pauseMs * (0.75 + Math.random() / 2);
  state.pauseMs = Math.min(LONGEST_PAUSE_MS, state.pauseMs * 1.7);
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}

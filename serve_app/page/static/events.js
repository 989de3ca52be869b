// Reads the events of a turn, through broken connections and restarted servers.

import { followTurn } from "./api.js";
import { isOutage } from "./errors.js";

const FIRST_PAUSE_MS = 300;
const LONGEST_PAUSE_MS = 3000;

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
 * then the turn is followed from the last event. `onAway(isAway)` says whether no server answers.
 * Raises ApiError for an answer that asking again will not change, AbortError, and what `onEvent`
 * raises.
 */
export async function tellTurn(uid, turnId, begin, onEvent, onAway, signal) {
  const state = { id: turnId, last: -1, pauseMs: FIRST_PAUSE_MS };
  for (;;) {
    const response = await attempt(() => (state.id ? followTurn(uid, state.id, state.last, signal) : begin()));
    onAway(response === null);
    if (response && (response.status === 204 || (await tellAll(response, state, onEvent)))) return;
    await pause(state.pauseMs);
    if (signal.aborted) throw new DOMException("left", "AbortError");
    state.pauseMs = Math.min(LONGEST_PAUSE_MS, state.pauseMs * 1.7);
  }
}

/** Whether the last event came. The response is read to its end, which is near then. */
async function tellAll(response, state, onEvent) {
  let hasEnded = false;
  const events = readEvents(response);
  for (;;) {
    const next = await attempt(() => events.next());
    if (next === null || next.done) return hasEnded;
    const event = next.value;
    if (event.kind === "error" && event.number < 0) return false; // of the connection, not of the turn
    if (event.kind === "turn") state.id = event.data.id;
    if (event.number >= 0) state.last = event.number;
    state.pauseMs = FIRST_PAUSE_MS;
    onEvent(event);
    hasEnded ||= event.kind === "done" || event.kind === "error";
  }
}

/** What `request` gives; null if it is worth asking again. */
async function attempt(request) {
  try {
    return await request();
  } catch (error) {
    if (isOutage(error)) return null;
    throw error;
  }
}

function pause(ms) {
  return new Promise((resolve) => setTimeout(resolve, ms * (0.75 + Math.random() / 2)));
}

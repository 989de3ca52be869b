// The open chat: its turns, and the one that runs. It knows neither the list of chats nor settings.

import * as api from "./api.js";
import { announce, note } from "./dialogs.js";
import { byId } from "./dom.js";
import { tellTurn } from "./events.js";
import { t } from "./i18n.js";
import { Scroll } from "./scroll.js";
import { Tree } from "./tree.js";
import { TurnView } from "./turn.js";

const GLANCE_MS = 3000;
const BUSY = ["session_busy", "idempotency_in_progress"];

const newKey = () => crypto.getRandomValues(new Uint8Array(16)).reduce((hex, byte) => hex + byte.toString(16).padStart(2, "0"), "");

export class Chat {
  /** `told.changed()` after a turn has ended, `told.running(isRunning)`, `told.opened(chat)`,
   * `told.gone()` if the chat is not there, `told.refused(text)` gives a text back. */
  constructor(told) {
    this.told = told;
    this.uid = null;
    this.session = null;
    this.tree = new Tree([], null);
    this.running = null; // {id, view, abort}
    this.scroll = new Scroll();
    setInterval(() => this.glance(), GLANCE_MS);
    document.addEventListener("visibilitychange", () => this.glance());
  }

  /** Leaves the chat that is open; a turn that runs goes on at the server. */
  leave() {
    this.running?.abort.abort();
    this.running = null;
    this.waitNote?.();
    this.waitNote = null;
    this.uid = this.session = null;
    this.tree = new Tree([], null);
    byId("turns").replaceChildren();
    this.told.running(false);
  }

  async open(uid) {
    this.leave();
    this.uid = uid;
    await this.load();
    this.scroll.toEnd();
  }

  /** Reads the chat again, and follows the turn that runs. */
  async load() {
    const { uid } = this;
    const session = await this.ask(() => api.readChat(uid));
    if (!session || uid !== this.uid) return;
    this.session = session;
    this.tree = new Tree(session.tree, session.active_turn);
    this.show(this.tree.pathTo(session.active_turn));
    this.told.opened(session);
    if (session.running_turn && !this.running) this.follow(session.running_turn);
  }

  /** The turns of `path`. What a reader has unfolded stays so. */
  show(path) {
    const unfolded = new Set([...document.querySelectorAll("#turns details[open]")].map(nameOfStep));
    this.views = path.map((turn) => {
      const view = new TurnView(turn, this);
      view.showStored(this.tree.place(turn));
      return view;
    });
    byId("turns").replaceChildren(...this.views.map((view) => view.element));
    for (const step of document.querySelectorAll("#turns details")) step.open = unfolded.has(nameOfStep(step));
    this.scroll.keepAtEnd();
  }

  /** Follows a turn that was started elsewhere, or before the page was loaded. */
  follow(id) {
    const view = new TurnView({ id: "", user: "" }, this);
    this.run(view, id, null);
  }

  send(user) {
    this.startBehind(this.session.active_turn, user);
  }

  edit(turn, user) {
    this.startBehind(turn.parent, user);
  }

  startBehind(parent, user) {
    this.start({ user, parent }, this.tree.pathTo(parent), (key, signal) => api.startTurn(this.uid, { user, parent }, key, signal));
  }

  regenerate(turn) {
    this.start({ user: turn.user, parent: turn.parent }, this.tree.pathTo(turn.parent), (key, signal) =>
      api.startAgain(this.uid, turn.id, key, signal),
    );
  }

  /** Starts a turn behind `path`, by a request with a key that is its own for good. */
  start(turn, path, request) {
    if (this.running) return;
    this.show(path);
    const key = newKey();
    this.run(new TurnView({ id: "", ...turn }, this), null, (signal) => request(key, signal), () => this.start(turn, path, request));
    this.scroll.toEnd();
  }

  async run(view, id, begin, again = () => this.load()) {
    const abort = new AbortController();
    const { uid } = this;
    const running = { id, view, abort };
    this.running = running;
    byId("turns").append(view.element);
    view.startWaiting();
    this.told.running(true);
    announce(t("answering"));
    try {
      await tellTurn(uid, id, () => begin(abort.signal), (event) => this.tell(running, event), (is) => this.wait(is), abort.signal);
      if (this.running === running) await this.end(running);
    } catch (error) {
      if (this.running === running) this.fail(running, error, again);
    }
  }

  tell(running, event) {
    const { view } = running;
    if (event.kind === "turn") {
      running.id = view.element.dataset.running = event.data.id;
      if (running.isStopped) this.stop();
      view.turn = { ...view.turn, user: event.data.user, parent: event.data.parent };
      view.showQuestion();
    } else if (event.kind === "error") throw new api.ApiError(0, event.data.error); // the turn's own end
    else view.tell(event);
    this.scroll.keepAtEnd();
  }

  async end(running) {
    running.view.stopWaiting();
    this.running = null;
    await this.load();
    this.told.running(this.running !== null);
    this.told.changed();
    announce(t("answer_done"));
  }

  fail(running, error, again) {
    this.running = null;
    this.wait(false);
    this.told.running(false);
    if (error.status === 401) location.reload();
    else if (error.status === 404) this.load(); // it ended long ago, or the chat is gone
    else if (BUSY.includes(error.code)) this.giveBack(running);
    else if (error.code === "turn_cancelled") this.load();
    else running.view.fail(error.message, again);
  }

  /** Another tab or device has a turn running on this chat. */
  giveBack(running) {
    this.told.refused(running.view.turn.user);
    this.load();
  }

  /** Keeps what was told; a turn that has no id yet stops when it has. */
  async stop() {
    const { running } = this;
    if (!running) return;
    running.isStopped = true;
    if (running.id) await this.ask(() => api.cancelTurn(this.uid, running.id));
  }

  async step(turn, by) {
    const leaf = this.tree.leafBeside(turn, by);
    await this.ask(() => api.changeChat(this.uid, { active_turn: leaf }));
    await this.load();
    document.querySelector(`[data-id="${CSS.escape(this.siblingShown(turn))}"] [data-action="${by < 0 ? "previous" : "next"}"]`)?.focus();
  }

  siblingShown(turn) {
    return this.views.find((view) => view.turn.parent === turn.parent)?.turn.id || "";
  }

  async rate(turn, liked) {
    const rated = await this.ask(() => api.rateTurn(this.uid, turn.id, liked));
    if (!rated) return;
    turn.feedback = rated.feedback;
    const view = this.views.find((each) => each.turn === turn);
    view.showFoot(this.tree.place(turn), rated.feedback);
    view.element.querySelector(`[data-action="${liked === false ? "dislike" : "like"}"]`).focus();
  }

  /** Whether another tab or device has changed the chat, or runs a turn on it. */
  async glance() {
    if (!this.session || this.running || document.hidden) return;
    const { uid, session } = this;
    const now = await api.glanceAtChat(uid).catch(() => null);
    if (!now || this.session !== session || this.running) return;
    if (now.active_turn !== session.active_turn || now.running_turn) await this.load();
    else if (now.title !== session.title) this.told.opened(Object.assign(session, { title: now.title }));
  }

  /** The answer to a request, or null after a note of why there is none. */
  async ask(request) {
    try {
      return await request();
    } catch (error) {
      if (error.status === 404) {
        note(t("gone"));
        this.told.gone();
      } else if (error.status === 401) location.reload();
      else note(error.message);
      return null;
    }
  }

  wait(isWaiting) {
    if (isWaiting && !this.waitNote) this.waitNote = note(t("no_server"), true);
    if (!isWaiting && this.waitNote) {
      this.waitNote();
      this.waitNote = null;
      note(t("server_back"));
    }
  }
}

/** A step's name, which is the same while its turn runs and when it is stored. */
function nameOfStep(step) {
  const { id, running } = step.closest(".turn").dataset;
  return `${id || running}/${step.dataset.call || "thoughts"}`;
}

// The open chat and the turn that runs on it. It knows neither the list of chats nor settings.

import * as api from "./api.js";
import { Conversation } from "./conversation.js";
import { announce, note, warn } from "./dialogs.js";
import { errorText, isOutage } from "./errors.js";
import { tellTurn } from "./events.js";
import { t } from "./i18n.js";
import { Scroll } from "./scroll.js";
import { Tree } from "./tree.js";

const GLANCE_MS = 4000;
const BUSY = ["session_busy", "idempotency_in_progress"];
const UNACCEPTED = [400, 413, 422];
const TOLD_LENGTH = 300; // of a reply, to screen readers

const newKey = () => crypto.getRandomValues(new Uint8Array(16)).reduce((hex, byte) => hex + byte.toString(16).padStart(2, "0"), "");

export class Chat {
  /** `told.changed()` after a turn has ended, `told.running(isRunning)`, `told.opened(session)`,
   * `told.gone()` if the chat is not there, `told.giveBack(text)` for what was not sent. */
  constructor(told) {
    this.told = told;
    this.visit = 0; // counts the chats that were opened
    this.conversation = new Conversation(this);
    this.scroll = new Scroll();
    this.leave();
    setInterval(() => this.glance(), GLANCE_MS);
    document.addEventListener("visibilitychange", () => this.glance());
  }

  /** Whether a message would be sent now. */
  get accepts() {
    return !this.running && (this.uid === null || this.session !== null);
  }

  /** Leaves the chat that is open; a turn that runs goes on at the server. */
  leave() {
    this.running?.abort.abort();
    this.running = null; // {id, typed, view, abort, isStopped, isAway}
    this.uid = this.session = null;
    this.tree = new Tree([], null);
    this.visit += 1;
    this.conversation.clear();
    this.hideOutage();
    this.told.running(false);
  }

  async open(uid) {
    this.leave();
    this.uid = uid;
    await this.load();
    this.scroll.toEnd();
  }

  /** Takes a chat that has just been made. */
  begin(session) {
    this.leave();
    this.uid = session.id;
    this.session = session;
  }

  /** Reads the chat again, and follows the turn that runs. */
  async load() {
    const { visit } = this;
    let session;
    try {
      session = await api.readChat(this.uid);
    } catch (error) {
      if (visit === this.visit) this.refuse(error);
      return;
    }
    if (visit !== this.visit) return;
    if (!this.running) this.hideOutage(true);
    this.session = session;
    this.tree = new Tree(session.tree, session.active_turn);
    this.conversation.show(this.tree.pathTo(this.running ? this.running.parent : session.active_turn), this.tree);
    this.told.opened(session);
    this.scroll.keepAtEnd();
    if (session.running_turn && !this.running) this.follow(session.running_turn);
  }

  /** Makes all words anew, in another language. */
  redraw() {
    if (!this.session || this.running) return;
    this.conversation.clear();
    this.conversation.show(this.tree.pathTo(this.session.active_turn), this.tree);
  }

  /** Follows a turn that was started elsewhere, or before the page was loaded. */
  follow(id) {
    this.run({ user: "", parent: this.session.active_turn }, { id, typed: "" });
  }

  send(user) {
    this.startBehind(this.session.active_turn, user);
  }

  edit(turn, user) {
    this.startBehind(turn.parent, user);
  }

  startBehind(parent, user) {
    this.start({ user, parent }, user, (key, signal) => api.startTurn(this.uid, { user, parent }, key, signal));
  }

  regenerate(turn) {
    this.start({ user: turn.user, parent: turn.parent }, "", (key, signal) => api.startAgain(this.uid, turn.id, key, signal));
  }

  /** Starts a turn, by a request with a key that is its own for good. `typed` is given back if the
   * server does not take it. */
  start(turn, typed, request) {
    if (this.running) return;
    const key = newKey();
    this.conversation.show(this.tree.pathTo(turn.parent), this.tree);
    this.run(turn, { id: null, typed, begin: (signal) => request(key, signal), again: () => this.start(turn, typed, request) });
    this.scroll.toEnd();
  }

  async run(turn, { id, typed, begin, again = () => this.load() }) {
    const abort = new AbortController();
    const view = this.conversation.run({ id: "", ...turn });
    const running = { id, typed, view, abort, parent: turn.parent, isStopped: false, isAway: false };
    this.running = running;
    this.told.running(true);
    announce(t("answering"));
    try {
      const onAway = (isAway) => this.running === running && this.showOutage(isAway);
      await tellTurn(this.uid, id, () => begin(abort.signal), (event) => this.tell(running, event), onAway, abort.signal);
      if (this.running === running) await this.end(running);
    } catch (error) {
      if (this.running === running) this.fail(running, error, again);
    }
  }

  tell(running, { kind, data }) {
    if (this.running !== running) return;
    if (kind === "error") throw new api.ApiError(0, data.error); // the turn's own end
    if (kind === "turn") this.know(running, data);
    else running.view.tell({ kind, data });
    this.scroll.keepAtEnd();
  }

  /** What a turn is, that may have been started elsewhere. */
  know(running, { id, user, parent }) {
    running.id = id;
    running.view.know({ user, parent });
    if (parent !== running.parent) {
      running.parent = parent;
      this.conversation.show(this.tree.pathTo(parent), this.tree);
    }
    if (running.isStopped) this.cancel(running);
  }

  async end(running) {
    const { visit } = this;
    this.conversation.settle(running.id);
    this.running = null;
    await this.load();
    if (visit !== this.visit) return;
    this.told.running(this.running !== null);
    this.told.changed();
    const reply = this.tree.byId.get(running.id)?.reply || "";
    announce(`${t("answer_done")} ${reply.slice(0, TOLD_LENGTH)}`);
  }

  fail(running, error, again) {
    this.hideOutage();
    this.running = null;
    this.told.running(false);
    if (error.status === 401) {
      this.told.giveBack(running.typed);
      this.refuse(error);
    } else if (this.isUntaken(error)) {
      this.conversation.settle("");
      this.told.giveBack(running.typed);
      if (error.code !== "turn_cancelled") warn(errorText(error));
      this.load();
    } else {
      this.conversation.settle("failed");
      running.view.fail(errorText(error), again);
    }
  }

  /** Whether there is no turn to show, and what was typed goes back into its field. */
  isUntaken({ status, code }) {
    return status === 404 || UNACCEPTED.includes(status) || BUSY.includes(code) || code === "turn_cancelled";
  }

  /** Keeps what was told. A turn that has no id yet stops when it has. */
  stop() {
    const { running } = this;
    if (!running) return;
    running.isStopped = true;
    if (running.id) this.cancel(running);
    else if (running.isAway) this.giveUp(running);
  }

  async cancel(running) {
    await api.cancelTurn(this.uid, running.id).catch(() => {}); // asked again when the server is back
  }

  /** Of a turn of which no server has heard. */
  giveUp(running) {
    running.abort.abort();
    this.fail(running, new api.ApiError(0, { code: "turn_cancelled" }), null);
  }

  async step(turn, by) {
    if (this.running) return;
    const leaf = this.tree.leafBeside(turn, by);
    if (!leaf || !(await this.ask(() => api.changeChat(this.uid, { active_turn: leaf })))) return;
    await this.load();
    this.conversation.versionOf(turn)?.focusStepper(by);
  }

  async rate(turn, liked) {
    const rated = await this.ask(() => api.rateTurn(this.uid, turn.id, liked));
    if (rated) this.conversation.versionOf(turn)?.showFeedback(rated.feedback);
  }

  /** Whether another tab or device has changed the chat, or runs a turn on it. */
  async glance() {
    if (!this.uid || this.running || document.hidden) return;
    const { visit, session } = this;
    if (!session) {
      await this.load();
      return;
    }
    const now = await api.glanceAtChat(this.uid).catch((error) => (error.code === "session_not_found" ? error : null));
    if (!now || visit !== this.visit || this.session !== session || this.running) return;
    if (now instanceof api.ApiError) this.refuse(now);
    else if (now.active_turn !== session.active_turn || now.running_turn) await this.load();
    else if (now.title !== session.title) this.told.opened(Object.assign(session, { title: now.title }));
  }

  /** The answer to a request, or null after a word of why there is none. */
  async ask(request) {
    const { visit } = this;
    try {
      return await request();
    } catch (error) {
      if (visit === this.visit) this.refuse(error);
      return null;
    }
  }

  refuse(error) {
    if (error.status === 401) location.reload();
    else if (error.code === "session_not_found") {
      warn(t("gone"));
      this.told.gone();
    } else if (error.code === "turn_not_found") this.load();
    else if (isOutage(error) && !this.session) this.showOutage(true);
    else warn(errorText(error));
  }

  showOutage(isAway) {
    const { running } = this;
    if (running) running.isAway = isAway;
    if (isAway && !this.outage) this.outage = note(t("no_server"), true);
    if (isAway) return;
    this.hideOutage(true);
    if (running?.isStopped && running.id) this.cancel(running);
  }

  hideOutage(isOver = false) {
    if (this.outage && isOver) note(t("server_back"));
    this.outage?.();
    this.outage = null;
  }
}

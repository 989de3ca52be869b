// One turn as elements: what was asked, thoughts, plugin calls, the reply, and what to do with it.

import { callStep, linkCitations } from "./calls.js";
import { announce } from "./dialogs.js";
import { copyText, icon, iconButton, isComposing, make, sendsMessage } from "./dom.js";
import { t } from "./i18n.js";

const CITATION = /<sup><\|(\d+)\|><\/sup>/g;

/** `actions`: edit(turn, text), regenerate(turn), step(turn, by), rate(turn, liked), and whether it
 * `accepts` messages now. */
export class TurnView {
  constructor(turn, actions) {
    this.turn = turn;
    this.actions = actions;
    this.blocks = [];
    this.calls = new Map();
    this.question = make("div", { class: "question" });
    this.steps = make("div", { class: "steps" });
    this.reply = make("div", { class: "reply" });
    this.wait = make("p", { class: "wait", hidden: true }, make("span", { class: "pulse" }), make("span", { text: t("thinking") }));
    this.foot = make("div", { class: "foot" });
    const heading = make("h2", { class: "visually-hidden", text: t("you") });
    const name = make("h2", { class: "name" }, make("img", { src: "ui/icon.svg", alt: "", width: 22, height: 22 }), "MOSS");
    this.answer = make("div", { class: "answer" }, name, this.steps, this.reply, this.wait, this.foot);
    this.element = make("article", { class: "turn", data: { id: turn.id || "" } }, heading, this.question, this.answer);
    this.showQuestion();
  }

  /** What is known of a turn that runs. */
  know(turn) {
    this.turn = { ...this.turn, ...turn };
    this.showQuestion();
  }

  /** A stored turn, which is version `place.n` of `place.of`. Only what has changed is made anew. */
  showStored(turn, place) {
    const state = JSON.stringify([turn.id, place, turn.feedback]);
    if (state === this.state) return;
    this.state = state;
    this.turn = turn;
    this.place = place;
    this.element.dataset.id = turn.id;
    if (!this.isEdited) this.showQuestion();
    if (turn.thoughts) this.setThoughts(turn.thoughts);
    for (const call of turn.plugin_calls) this.setCall(call);
    turn.html.forEach((html, block) => this.setBlock(block, html));
    this.showFoot();
  }

  showFeedback(feedback) {
    this.turn.feedback = feedback;
    const focused = document.activeElement?.dataset.action;
    this.showFoot();
    this.foot.querySelector(`[data-action="${focused}"]`)?.focus();
  }

  /** After a step the other arrow, where there is no further version. */
  focusStepper(by) {
    const names = by < 0 ? ["previous", "next"] : ["next", "previous"];
    names.map((name) => this.foot.querySelector(`[data-action="${name}"]`)).find((button) => button && !button.disabled)?.focus();
  }

  startWaiting() {
    this.element.classList.add("running");
    this.element.setAttribute("aria-busy", "true");
    this.wait.hidden = false;
  }

  stopWaiting() {
    this.element.classList.remove("running");
    this.element.removeAttribute("aria-busy");
    this.wait.hidden = true;
  }

  /** An event of a running turn. */
  tell({ kind, data }) {
    if (kind === "thoughts") data.text && this.setThoughts(data.text);
    else if (kind === "plugin") this.setCall(data);
    else if (kind === "reset") this.reset();
    else if (kind === "html") {
      this.wait.hidden = true;
      this.setBlock(data.block, data.html);
    }
  }

  reset() {
    this.blocks = [];
    this.reply.replaceChildren();
  }

  setThoughts(text) {
    if (!this.thoughts) {
      this.thoughts = make("div", { class: "text" });
      const summary = make("summary", {}, icon("bulb"), make("span", { text: t("thoughts") }));
      this.steps.prepend(make("details", { class: "thoughts" }, summary, this.thoughts));
    }
    this.thoughts.textContent = text;
  }

  setCall(call) {
    const state = JSON.stringify([call.state, call.output]);
    if (this.calls.get(call.id)?.state === state) return;
    const { element, pictures } = callStep(call, this.calls.get(call.id)?.element.open);
    const old = this.calls.get(call.id);
    if (old) old.element.replaceWith(element);
    else this.steps.append(element);
    old?.pictures?.remove();
    if (pictures) this.steps.append(pictures);
    this.calls.set(call.id, { call, state, element, pictures });
  }

  /** HTML is the server's: cleaned there, by an allow-list. */
  setBlock(number, html) {
    while (this.blocks.length <= number) {
      const block = make("div", { class: "block" });
      this.blocks.push({ block, html: "" });
      this.reply.append(block);
    }
    const old = this.blocks[number];
    if (old.html === html) return;
    old.html = html;
    old.block.innerHTML = html;
    for (const formula of old.block.querySelectorAll('math:not([display="block"])')) putIntoFrame(formula);
    linkCitations(old.block, [...this.calls.values()]);
    for (const code of old.block.querySelectorAll("pre")) addCopyButton(code);
    for (const wide of old.block.querySelectorAll('table, math[display="block"]')) wide.tabIndex = 0; // they scroll, too
  }

  showQuestion() {
    const { turn } = this;
    this.isEdited = false;
    if (!turn.user) return;
    const buttons = make("div", { class: "actions" });
    buttons.append(iconButton("copy", t("copy"), (event) => copy(turn.user, event.currentTarget)));
    if (turn.id) buttons.append(iconButton("edit", t("edit"), () => this.startEdit(), { "data-action": "edit" }));
    this.question.replaceChildren(make("div", { class: "bubble", text: turn.user, dir: "auto" }), buttons);
  }

  startEdit() {
    this.isEdited = true;
    const field = make("textarea", { class: "edit", rows: 3, "aria-label": t("edit"), maxlength: 60000 });
    field.value = this.turn.user;
    const send = () => field.value.trim() && this.actions.accepts && (this.showQuestion(), this.actions.edit(this.turn, field.value.trim()));
    const stop = () => (this.showQuestion(), this.question.querySelectorAll("button")[1]?.focus());
    field.addEventListener("keydown", (event) => {
      if (isComposing(event)) return;
      if (event.key === "Escape") stop();
      if (sendsMessage(event)) (event.preventDefault(), send());
    });
    const buttons = make(
      "div",
      { class: "buttons" },
      make("button", { type: "button", class: "quiet", text: t("cancel"), on: { click: stop } }),
      make("button", { type: "button", class: "primary", text: t("save_and_send"), on: { click: send } }),
    );
    this.question.replaceChildren(make("div", { class: "editor" }, field, buttons));
    field.focus();
  }

  showFoot() {
    const { turn, place, actions } = this;
    const { feedback } = turn;
    const parts = [];
    if (place.of > 1) parts.push(stepper(turn, place, actions));
    parts.push(iconButton("copy", t("copy"), (event) => copy(plainReply(turn), event.currentTarget)));
    for (const liked of [true, false]) parts.push(this.rateButton(liked, feedback?.liked));
    parts.push(iconButton("again", t("regenerate"), () => actions.regenerate(turn), { "data-action": "regenerate" }));
    parts.push(make("span", { class: "counts", text: counts(turn) }));
    const remarks = [];
    if (turn.dropped_turns) remarks.push(t("dropped", { n: turn.dropped_turns }));
    this.foot.replaceChildren(...remarks.map((text) => make("p", { class: "remark", text })), make("div", { class: "actions" }, ...parts));
  }

  rateButton(liked, chosen) {
    const name = liked ? "like" : "dislike";
    const isChosen = chosen === liked;
    const rate = () => this.actions.rate(this.turn, isChosen ? null : liked);
    return iconButton(name, t(name), rate, { "aria-pressed": String(isChosen), "data-action": name });
  }

  fail(reason, again) {
    this.stopWaiting();
    const button = make("button", { type: "button", text: t("again"), on: { click: again } });
    this.foot.replaceChildren(
      make("div", { class: "failure", role: "alert" }, icon("warning"), make("p", { text: t("failed", { reason }) }), button),
    );
  }
}

function stepper(turn, { n, of }, actions) {
  const back = iconButton("left", t("branch_previous"), () => actions.step(turn, -1), { disabled: n === 1, "data-action": "previous" });
  const on = iconButton("right", t("branch_next"), () => actions.step(turn, 1), { disabled: n === of, "data-action": "next" });
  const label = make("span", { text: `${n}/${of}`, "aria-label": t("branch", { n, of }), role: "img" });
  return make("span", { class: "stepper" }, back, label, on);
}

function counts(turn) {
  const tokens = turn.usage.completion_tokens;
  const words = turn.duration_ms
    ? t("tokens_seconds", { tokens, seconds: (turn.duration_ms / 1000).toFixed(1) })
    : t("tokens", { tokens });
  const isCut = ["cancelled", "content_filter", "length"].includes(turn.finish_reason);
  return isCut ? `${words} · ${t(`ended_${turn.finish_reason}`)}` : words;
}

/** The reply as Markdown, with `[n]` for citations. */
export function plainReply(turn) {
  return turn.reply.replace(CITATION, "[$1]");
}

async function copy(text, button) {
  await copyText(text, button);
  announce(t("copied"));
}

/** So that a long formula scrolls by itself. */
function putIntoFrame(formula) {
  const frame = make("span", { class: "formula" });
  formula.replaceWith(frame);
  frame.append(formula);
}

function addCopyButton(code) {
  const click = (event) => copy(code.textContent, event.currentTarget);
  const button = iconButton("copy", t("copy_code"), click, { class: "quiet icon-only copy-code" });
  const frame = make("div", { class: "code-frame" });
  code.replaceWith(frame);
  code.tabIndex = 0; // long lines scroll, by the keyboard, too
  frame.append(code, button);
}

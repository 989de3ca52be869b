// The message field.

import { byId, icon, isComposing, sendsMessage } from "./dom.js";

const DRAFT = "moss.draft";

export class Composer {
  /** `told.send(text)`, which says whether it takes it, and `told.stop()`. A draft outlives a reload
   * of its tab. */
  constructor(told) {
    this.told = told;
    this.field = byId("input");
    this.isRunning = false;
    byId("send").append(icon("send"));
    byId("stop").append(icon("stop"));
    byId("composer").addEventListener("submit", (event) => (event.preventDefault(), this.send()));
    byId("stop").addEventListener("click", () => told.stop());
    this.field.addEventListener("keydown", (event) => this.press(event));
    this.field.addEventListener("input", () => this.keep());
    this.setText(sessionStorage.getItem(DRAFT) || "");
  }

  press(event) {
    if (isComposing(event)) return;
    if (sendsMessage(event)) {
      event.preventDefault();
      this.send();
    } else if (event.key === "Escape" && this.isRunning) this.told.stop();
  }

  send() {
    const text = this.field.value.trim();
    if (text && !this.isRunning && this.told.send(text)) this.setText("");
  }

  setText(text) {
    this.field.value = text;
    this.keep();
  }

  /** What was not sent stands before what was typed meanwhile. */
  giveBack(text) {
    this.setText([text, this.field.value].filter(Boolean).join("\n\n"));
  }

  keep() {
    sessionStorage.setItem(DRAFT, this.field.value);
    this.fit();
  }

  /** A turn runs: it can be stopped, and the next message written. */
  setRunning(isRunning) {
    const hadFocus = [byId("send"), byId("stop")].includes(document.activeElement);
    this.isRunning = isRunning;
    byId("send").hidden = isRunning;
    byId("stop").hidden = !isRunning;
    if (hadFocus) (isRunning ? byId("stop") : this.field).focus();
    this.fit();
  }

  /** On a touch screen that would bring the keyboard up. */
  focus() {
    if (matchMedia("(hover: hover)").matches) this.field.focus();
  }

  fit() {
    byId("send").disabled = !this.field.value.trim();
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight}px`;
  }
}

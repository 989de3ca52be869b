// The message field.

import { byId, icon } from "./dom.js";

export class Composer {
  /** `told.send(text)` and `told.stop()`. */
  constructor(told) {
    this.told = told;
    this.field = byId("input");
    this.isRunning = false;
    byId("send").append(icon("send"));
    byId("stop").append(icon("stop"));
    byId("composer").addEventListener("submit", (event) => (event.preventDefault(), this.send()));
    byId("stop").addEventListener("click", () => told.stop());
    this.field.addEventListener("keydown", (event) => this.press(event));
    this.field.addEventListener("input", () => this.fit());
    this.fit();
  }

  press(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.send();
    } else if (event.key === "Escape" && this.isRunning) this.told.stop();
  }

  send() {
    const text = this.field.value.trim();
    if (!text || this.isRunning) return;
    this.setText("");
    this.told.send(text);
  }

  setText(text) {
    this.field.value = text;
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

  focus() {
    this.field.focus();
  }

  fit() {
    byId("send").disabled = !this.field.value.trim();
    this.field.style.height = "auto";
    this.field.style.height = `${this.field.scrollHeight}px`;
  }
}

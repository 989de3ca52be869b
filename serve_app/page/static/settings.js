// Plugin switches and sampling: of the open chat, or of the next one.

import { keep, kept } from "./kept.js";
import { byId, icon, make } from "./dom.js";
import { t } from "./i18n.js";

const PLUGIN_ICONS = { web_search: "search", calculator: "calculator", equation_solver: "solver", text_to_image: "picture" };
// `start` is what the server takes where nothing is chosen.
const SLIDERS = [
  { name: "temperature", min: 0, max: 2, step: 0.05, start: 0.7 },
  { name: "top_p", min: 0.05, max: 1, step: 0.05, start: 0.8 },
  { name: "top_k", min: 1, max: 100, step: 1, start: 40 },
  { name: "repetition_penalty", min: 1, max: 1.5, step: 0.01, start: 1.02 },
  { name: "max_tokens", min: 16, max: 2048, step: 16, start: 2048 },
];

export class Settings {
  /** `change(changes)` is called with what a PATCH of a chat takes. */
  constructor(change) {
    this.change = change;
    this.plugins = [];
    this.takeOwn();
    byId("open-settings").prepend(icon("settings"));
    byId("open-settings").addEventListener("click", () => byId("settings").showModal());
    byId("reset-sampling").addEventListener("click", () => this.setDefaults({}));
  }

  /** The plugins of the server, as `GET /v1/plugins` lists them. */
  setPlugins(plugins) {
    this.plugins = plugins;
    this.show();
  }

  /** What this browser chose last: for the next chat. */
  takeOwn() {
    const plugins = kept("plugins");
    this.choice = { plugins: Array.isArray(plugins) ? plugins : null, defaults: ownDefaults(kept("defaults")) };
    if (this.plugins.length) this.show();
  }

  /** What holds for the chat that is opened. */
  take({ plugins, defaults }) {
    this.choice = { plugins, defaults: { ...defaults } };
    this.show();
  }

  isOn(id) {
    return this.choice.plugins === null || this.choice.plugins.includes(id);
  }

  toggle(id) {
    const on = this.plugins.map((plugin) => plugin.id).filter((each) => (each === id ? !this.isOn(id) : this.isOn(each)));
    this.choice.plugins = on.length === this.plugins.length ? null : on;
    keep("plugins", this.choice.plugins);
    this.show();
    this.change({ plugins: this.choice.plugins });
  }

  setDefaults(defaults) {
    this.choice.defaults = defaults;
    keep("defaults", defaults);
    this.showSliders();
    this.change({ defaults });
  }

  show() {
    const focused = document.activeElement?.dataset?.plugin;
    const inDialog = byId("settings").contains(document.activeElement);
    byId("switches").replaceChildren(...this.plugins.map((plugin) => this.chip(plugin)));
    byId("plugin-settings").replaceChildren(byId("plugin-settings").firstElementChild, ...this.plugins.map((plugin) => this.row(plugin)));
    this.showSliders();
    if (focused) document.querySelector(`#${inDialog ? "settings" : "switches"} [data-plugin="${CSS.escape(focused)}"]`)?.focus();
  }

  chip(plugin) {
    const on = { click: () => this.toggle(plugin.id) };
    const props = { type: "button", class: "chip", title: pluginName(plugin), "aria-label": pluginName(plugin), "aria-pressed": String(this.isOn(plugin.id)) };
    const name = make("span", { class: "only-wide", text: pluginName(plugin) });
    return make("button", { ...props, on, data: { plugin: plugin.id } }, icon(PLUGIN_ICONS[plugin.id] || "plugin"), name);
  }

  row(plugin) {
    const on = { change: () => this.toggle(plugin.id) };
    const box = make("input", { type: "checkbox", role: "switch", checked: this.isOn(plugin.id), on, data: { plugin: plugin.id } });
    return make("label", { class: "switch" }, make("span", { text: pluginName(plugin) }), box);
  }

  showSliders() {
    byId("sampling").replaceChildren(byId("sampling").firstElementChild, ...SLIDERS.map((slider) => this.slider(slider)));
  }

  slider({ name, min, max, step, start }) {
    const value = this.choice.defaults[name] ?? start;
    const shown = make("output", { text: value });
    const input = (event) => (shown.textContent = event.target.value);
    const change = (event) => {
      this.choice.defaults = { ...this.choice.defaults, [name]: Number(event.target.value) };
      keep("defaults", ownDefaults(this.choice.defaults));
      this.change({ defaults: this.choice.defaults });
    };
    const range = make("input", { type: "range", name, min, max, step, value, on: { input, change } });
    return make("label", { class: "slider" }, make("span", { text: t(name) }), shown, range);
  }
}

/** Those that a slider sets, within its bounds. */
function ownDefaults(defaults) {
  const good = SLIDERS.filter(({ name, min, max }) => defaults?.[name] >= min && defaults[name] <= max);
  return Object.fromEntries(good.map(({ name }) => [name, defaults[name]]));
}

function pluginName(plugin) {
  const key = `plugin_${plugin.id}`;
  return plugin.id in PLUGIN_ICONS ? t(key) : plugin.label;
}

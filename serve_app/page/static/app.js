// The page: puts its parts together, and knows which chat is open. `#UID` of the URL names it.
//
//   #sidebar    #new-chat, #search, #chat-list (li > a, a button with a menu), #theme, #language, #logout
//   #main       #welcome (suggestions), #turns > article.turn[data-id]:
//                 .question (.bubble, copy, edit)  .steps (details.thoughts, details.call, .pictures)
//                 .reply > .block  .foot (.stepper, copy, like, dislike, regenerate, .counts, .failure)
//   #composer   #input, #switches > button.chip[data-plugin], #send, #stop
//   dialogs     #settings (switches, sliders by name), #question (one answer)
//   #gate       asks for a key, where the server wants one

import * as api from "./api.js";
import { Chat } from "./chat.js";
import { Composer } from "./composer.js";
import { note, openDialogs } from "./dialogs.js";
import { byId, icon, make } from "./dom.js";
import { chooseLanguage, language, switchLanguage, t, translatePage } from "./i18n.js";
import { keep } from "./kept.js";
import { Settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";

const TITLE_LENGTH = 60;
const THEMES = { system: "light", light: "dark", dark: "system" }; // which one is next
const THEME_ICONS = { system: "system", light: "sun", dark: "moon" };

class App {
  constructor() {
    this.chat = new Chat({
      changed: () => this.sidebar.load(),
      running: (isRunning) => this.composer.setRunning(isRunning),
      opened: (session) => this.showOpen(session),
      gone: () => this.startNew(),
      refused: (text) => this.composer.setText(text),
    });
    this.sidebar = new Sidebar({
      renamed: (uid, title) => uid === this.chat.uid && this.showTitle(title),
      deleted: (uid) => uid === this.chat.uid && this.startNew(),
    });
    this.settings = new Settings((changes) => this.changeSettings(changes));
    this.composer = new Composer({ send: (text) => this.send(text), stop: () => this.chat.stop() });
  }

  async start() {
    this.listen();
    this.translate();
    byId("app").hidden = false;
    const [models, plugins] = await Promise.all([api.listModels(), api.listPlugins()]);
    byId("model").textContent = models[0].id;
    this.settings.setPlugins(plugins);
    await Promise.all([this.sidebar.load(), this.route()]);
  }

  listen() {
    for (const [id, name] of [["new-chat", "plus"], ["open-sidebar", "menu"], ["close-sidebar", "close"]]) byId(id).prepend(icon(name));
    byId("new-chat").addEventListener("click", () => this.startNew());
    byId("open-sidebar").addEventListener("click", () => this.showSidebar(true));
    for (const id of ["close-sidebar", "scrim"]) byId(id).addEventListener("click", () => this.showSidebar(false));
    byId("theme").addEventListener("click", () => this.nextTheme());
    byId("language").addEventListener("click", () => (switchLanguage(), this.translate(), this.redraw()));
    byId("logout").addEventListener("click", () => api.logout().then(() => location.reload()));
    byId("skip").addEventListener("click", (event) => (event.preventDefault(), this.composer.focus()));
    window.addEventListener("hashchange", () => this.route());
    document.addEventListener("visibilitychange", () => document.hidden || this.sidebar.load());
    document.addEventListener("keydown", (event) => this.press(event));
  }

  press(event) {
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "k") return;
    event.preventDefault();
    this.showSidebar(true);
    byId("search").focus();
  }

  /** Opens the chat that the URL names. */
  async route() {
    const uid = location.hash.slice(1);
    if (!/^[0-9a-f]{32}$/.test(uid)) return this.startNew();
    if (uid === this.chat.uid) return undefined;
    this.showWelcome(false);
    this.showSidebar(false);
    return this.chat.open(uid);
  }

  startNew() {
    this.chat.leave();
    if (location.hash) history.pushState(null, "", location.pathname);
    this.sidebar.setOpen(null);
    this.showTitle("");
    this.showWelcome(true);
    this.showSidebar(false);
    this.composer.focus();
  }

  async send(text) {
    if (this.chat.running || this.isCreating) return this.composer.setText(text);
    if (!this.chat.uid && !(await this.create(text))) return undefined;
    return this.chat.send(text);
  }

  /** Begins a chat, which the first words of `text` name. */
  async create(text) {
    const title = [...text.split("\n")[0]].slice(0, TITLE_LENGTH).join("");
    const { plugins, defaults } = this.settings.choice;
    const known = plugins && plugins.filter((id) => this.settings.plugins.some((plugin) => plugin.id === id));
    this.isCreating = true;
    const session = await this.chat.ask(() => api.createChat({ title, plugins: known, defaults }));
    this.isCreating = false;
    if (!session) {
      this.composer.setText(text);
      return false;
    }
    history.pushState(null, "", `#${session.id}`);
    this.chat.uid = session.id;
    this.chat.session = { ...session, tree: [] };
    this.showWelcome(false);
    this.showOpen(session);
    this.sidebar.load();
    return true;
  }

  changeSettings(changes) {
    const { chat } = this;
    if (chat.uid) chat.ask(async () => Object.assign(chat.session, await keepTurns(chat, changes)));
  }

  showOpen(session) {
    this.showTitle(session.title);
    this.settings.take(session);
    this.sidebar.setOpen(session.id);
  }

  showTitle(title) {
    byId("title").textContent = title;
    document.title = title ? `${title} · MOSS` : "MOSS";
  }

  showWelcome(isShown) {
    const tries = ["try_1", "try_2", "try_3", "try_4"].map((key) => {
      const click = () => this.send(t(key));
      return make("button", { type: "button", class: "suggestion", text: t(key), on: { click } });
    });
    const logo = make("img", { src: "ui/icon.svg", alt: "", width: 56, height: 56 });
    byId("welcome").replaceChildren(logo, make("p", { class: "greeting", text: t("welcome") }), make("div", { class: "suggestions" }, ...tries));
    byId("welcome").hidden = !isShown;
  }

  showSidebar(isShown) {
    const isNarrow = matchMedia("(max-width: 800px)").matches;
    document.body.classList.toggle("with-sidebar", isShown && isNarrow);
    byId("scrim").hidden = !(isShown && isNarrow);
    byId("open-sidebar").setAttribute("aria-expanded", String(isShown && isNarrow));
  }

  nextTheme() {
    const root = document.documentElement;
    root.dataset.theme = THEMES[root.dataset.theme] || "system";
    keep("theme", root.dataset.theme);
    this.showTheme();
  }

  showTheme() {
    const { theme } = document.documentElement.dataset;
    byId("theme").replaceChildren(icon(THEME_ICONS[theme]), make("span", { text: t(`theme_${theme}`) }));
  }

  translate() {
    translatePage();
    this.showTheme();
    byId("language").textContent = language === "zh" ? "English" : "中文";
    byId("language").lang = language === "zh" ? "en" : "zh";
  }

  /** What was made in the other language. A turn that runs keeps its words until it ends. */
  redraw() {
    this.sidebar.show();
    this.settings.show();
    this.showWelcome(!byId("welcome").hidden);
    if (this.chat.session && !this.chat.running) this.chat.load();
  }
}

async function keepTurns(chat, changes) {
  const { plugins, defaults } = await api.changeChat(chat.uid, changes);
  return { plugins, defaults };
}

/** Whether the caller comes in: by a cookie, or because nobody needs a key. */
async function comesIn(key) {
  try {
    const { owner } = await api.login(key);
    byId("logout").hidden = owner.startsWith("page-");
    return true;
  } catch (error) {
    if (error.status === 401) return false;
    throw error;
  }
}

async function askForKey(app) {
  translatePage();
  byId("gate").hidden = false;
  byId("key").focus();
  byId("key-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    byId("key-error").textContent = "";
    if (!(await comesIn(byId("key").value))) {
      byId("key-error").textContent = t("key_wrong");
      byId("key").select();
      return;
    }
    byId("key").value = "";
    byId("gate").hidden = true;
    await app.start();
  });
}

async function boot() {
  chooseLanguage();
  openDialogs();
  const app = new App();
  try {
    await ((await comesIn()) ? app.start() : askForKey(app));
  } catch (error) {
    note(error.message, true);
  }
}

boot();

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
import { note, openDialogs, warn } from "./dialogs.js";
import { byId, icon, make } from "./dom.js";
import { errorText, isOutage } from "./errors.js";
import { chooseLanguage, language, switchLanguage, t, translatePage } from "./i18n.js";
import { keep } from "./kept.js";
import { Settings } from "./settings.js";
import { Sidebar } from "./sidebar.js";

const TITLE_LENGTH = 60;
const BOOT_PAUSE_MS = 2000;
const THEME_ICONS = { system: "system", light: "sun", dark: "moon" };

class App {
  constructor() {
    this.composer = new Composer({ send: (text) => this.send(text), stop: () => this.chat.stop() });
    this.chat = new Chat({
      changed: () => this.sidebar.load(),
      running: (isRunning) => this.composer.setRunning(isRunning),
      opened: (session) => this.showOpen(session),
      gone: () => this.startNew("replaceState"),
      giveBack: (text) => this.composer.giveBack(text),
    });
    this.sidebar = new Sidebar({
      chosen: () => this.showSidebar(false),
      renamed: (uid, title) => uid === this.chat.uid && this.showTitle(title),
      deleted: (uid) => uid === this.chat.uid && this.startNew("replaceState"),
    });
    this.settings = new Settings((changes) => this.changeSettings(changes));
    this.listen();
  }

  async start() {
    this.translate();
    const [models, plugins] = await Promise.all([api.listModels(), api.listPlugins()]);
    byId("app").hidden = false;
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
    byId("logout").addEventListener("click", () => api.logout().then(() => location.reload(), (error) => warn(errorText(error))));
    byId("skip").addEventListener("click", (event) => (event.preventDefault(), byId("input").focus()));
    window.addEventListener("hashchange", () => this.route());
    document.addEventListener("visibilitychange", () => document.hidden || byId("app").hidden || this.sidebar.load());
    document.addEventListener("keydown", (event) => this.press(event));
  }

  press(event) {
    if (event.key === "Escape" && !event.defaultPrevented) this.showSidebar(false);
    if (!(event.ctrlKey || event.metaKey) || event.key.toLowerCase() !== "k") return;
    event.preventDefault();
    this.showSidebar(true);
    byId("search").focus();
  }

  /** Opens the chat that the URL names. */
  async route() {
    const uid = location.hash.slice(1);
    if (!/^[0-9a-f]{32}$/.test(uid)) return this.startNew("replaceState");
    if (uid === this.chat.uid) return undefined;
    this.showWelcome(false);
    this.showSidebar(false);
    return this.chat.open(uid);
  }

  /** `change` of the browser's history, which has no use for a chat that is gone. */
  startNew(change = "pushState") {
    this.chat.leave();
    if (location.hash) history[change](null, "", location.pathname);
    this.sidebar.setOpen(null);
    this.settings.takeOwn();
    this.showTitle("");
    this.showWelcome(true);
    this.showSidebar(false);
    this.composer.focus();
  }

  /** Whether it is sent: not while another message is. */
  send(text) {
    if (this.isSending || !this.chat.accepts) return false;
    this.isSending = true;
    this.startTurn(text).finally(() => (this.isSending = false));
    return true;
  }

  async startTurn(text) {
    if (this.chat.uid || (await this.create(text))) this.chat.send(text);
    else this.composer.giveBack(text);
  }

  /** Begins a chat, which the first words of `text` name. Whether it is the one that is open. */
  async create(text) {
    const title = [...text.split("\n")[0]].slice(0, TITLE_LENGTH).join("");
    const { plugins, defaults } = this.settings.choice;
    const known = plugins && plugins.filter((id) => this.settings.plugins.some((plugin) => plugin.id === id));
    const { visit } = this.chat;
    const session = await this.chat.ask(() => api.createChat({ title, plugins: known, defaults }));
    if (session && visit !== this.chat.visit) api.deleteChat(session.id).catch(() => {}); // somebody went elsewhere
    if (!session || visit !== this.chat.visit) return false;
    history.pushState(null, "", `#${session.id}`);
    this.chat.begin(session);
    this.showWelcome(false);
    this.showOpen(session);
    this.sidebar.load();
    return true;
  }

  async changeSettings(changes) {
    const { uid, session } = this.chat;
    if (!uid || !session) return;
    const now = await this.chat.ask(() => api.changeChat(uid, changes));
    if (now) Object.assign(session, { plugins: now.plugins, defaults: now.defaults });
    else if (uid === this.chat.uid) this.settings.take(session);
  }

  showOpen(session) {
    this.showTitle(session.title);
    this.settings.take(session);
    this.sidebar.setOpen(session.id);
  }

  showTitle(title) {
    byId("title").textContent = title || t("new_chat");
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

  /** On narrow windows, over the chat, which cannot be reached meanwhile. */
  showSidebar(isShown) {
    const isOpen = isShown && matchMedia("(max-width: 800px)").matches;
    const wasOpen = document.body.classList.contains("with-sidebar");
    document.body.classList.toggle("with-sidebar", isOpen);
    byId("stage").inert = isOpen;
    byId("scrim").hidden = !isOpen;
    byId("open-sidebar").setAttribute("aria-expanded", String(isOpen));
    if (isOpen !== wasOpen) byId(isOpen ? "close-sidebar" : "open-sidebar").focus();
  }

  /** The first click always changes what is seen. */
  nextTheme() {
    const root = document.documentElement;
    const isDark = matchMedia("(prefers-color-scheme: dark)").matches;
    const order = isDark ? ["system", "light", "dark"] : ["system", "dark", "light"];
    root.dataset.theme = order[(order.indexOf(root.dataset.theme) + 1) % order.length];
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
    this.showTitle(this.chat.session?.title || "");
    this.showWelcome(!byId("welcome").hidden);
    this.chat.redraw();
  }
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

/** Ends when a key opens. */
function askForKey() {
  translatePage();
  byId("gate").hidden = false;
  byId("key").focus();
  return new Promise((resolve) => {
    byId("key-form").addEventListener("submit", async (event) => {
      event.preventDefault();
      byId("log-in").disabled = true;
      const problem = await comesIn(byId("key").value).then((is) => (is ? "" : t("key_wrong")), errorText);
      byId("log-in").disabled = false;
      byId("key-error").textContent = problem;
      if (problem) return byId("key").select();
      byId("key").value = "";
      byId("gate").hidden = true;
      return resolve();
    });
  });
}

async function boot() {
  chooseLanguage();
  openDialogs();
  const app = new App();
  let outage = null;
  for (;;) {
    try {
      if (!(await comesIn())) await askForKey();
      await app.start();
      return outage?.();
    } catch (error) {
      if (!isOutage(error)) return warn(errorText(error));
      outage ||= note(t("no_server"), true);
      await new Promise((resolve) => setTimeout(resolve, BOOT_PAUSE_MS));
    }
  }
}

boot();

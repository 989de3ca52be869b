// The turns that are shown: one view for each of a path, and at the end the one that runs.

import { byId } from "./dom.js";
import { TurnView } from "./turn.js";

export class Conversation {
  /** `actions` are what views call: see turn.js. */
  constructor(actions) {
    this.actions = actions;
    this.element = byId("turns");
    this.clear();
  }

  clear() {
    this.views = [];
    this.running = null;
    this.element.replaceChildren();
  }

  /** Shows `path`. Turns that are shown already keep their elements: focus, selection, open steps. */
  show(path, tree) {
    const known = new Map(this.views.map((view) => [view.turn.id, view]));
    this.views = path.map((turn) => {
      const view = known.get(turn.id) || new TurnView(turn, this.actions);
      view.showStored(turn, tree.place(turn));
      return view;
    });
    this.arrange();
  }

  /** Adds the view of a turn that runs. */
  run(turn) {
    this.running = new TurnView(turn, this.actions);
    this.running.startWaiting();
    this.element.classList.add("busy");
    this.arrange();
    return this.running;
  }

  /** The turn that ran is one of the path, if it was stored; else it stays away from now on. */
  settle(id) {
    const { running } = this;
    running.stopWaiting();
    running.turn = { ...running.turn, id };
    this.views.push(running);
    this.running = null;
    this.element.classList.remove("busy");
  }

  /** The view of the version of `turn` that is shown. */
  versionOf(turn) {
    return this.views.find((view) => view.turn.parent === turn.parent);
  }

  arrange() {
    const views = this.running ? [...this.views, this.running] : this.views;
    const wanted = views.map((view) => view.element);
    for (const child of [...this.element.children]) if (!wanted.includes(child)) child.remove();
    wanted.forEach((element, place) => {
      if (this.element.children[place] !== element) this.element.insertBefore(element, this.element.children[place] || null);
    });
  }
}

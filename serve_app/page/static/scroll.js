// Keeps the newest text in sight, unless the reader has scrolled away from it.

import { byId, icon } from "./dom.js";

const NEAR_PX = 80;

export class Scroll {
  constructor() {
    this.area = byId("main");
    this.button = byId("to-end");
    this.button.append(icon("down"));
    this.isAtEnd = true;
    this.button.addEventListener("click", () => this.toEnd());
    this.area.addEventListener("scroll", () => this.look(), { passive: true });
  }

  look() {
    const { scrollHeight, scrollTop, clientHeight } = this.area;
    this.isAtEnd = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    this.button.hidden = this.isAtEnd;
  }

  toEnd() {
    this.isAtEnd = true;
    this.keepAtEnd();
  }

  /** Once a frame, however often it is called. */
  keepAtEnd() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      if (this.isAtEnd) this.area.scrollTop = this.area.scrollHeight;
      else this.look();
    });
  }
}

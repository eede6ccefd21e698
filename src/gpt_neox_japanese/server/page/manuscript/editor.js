/**
 * The sheet's two layers: a textarea to write in, and the reading layer to look at and to choose in.
 *
 * The textarea is always there and keeps the focus also under the reading layer: an input method
 * must find it before the first key, or the first syllable of a composition would be lost. Its
 * `value` is never set while a composition is going on.
 */

import { Reading } from "./reading.js";

export class Editor {
  /**
   * @param {object} hooks what the sheet cannot do itself
   * @param {(text: string) => void} hooks.onType @param {(index: number) => void} hooks.onToken
   * @param {(name: string) => void} hooks.command @param {() => boolean} hooks.busy
   * @param {() => boolean} hooks.canRedo
   */
  constructor(hooks) {
    this.hooks = hooks;
    this.root = document.documentElement;
    this.scroll = document.querySelector("#scroll");
    this.sheet = document.querySelector("#sheet");
    this.area = document.querySelector("#editor");
    this.reading = new Reading(document.querySelector("#reading"));
    this.composing = false;
    this.late = ""; // words of an input method that came while the model wrote: they stand after it
    this.root.classList.toggle("flat", !canStandUpright());
    const { area, scroll } = this;
    const layer = this.reading.element;
    area.addEventListener("compositionstart", () => {
      this.composing = true;
      this.early = hooks.busy();
      if (!this.early) this.edit(null);
    });
    area.addEventListener("compositionend", ({ data }) => {
      this.composing = false;
      if (!this.early) return this.typed();
      this.late += data;
      if (!hooks.busy()) hooks.command("read"); // the area lacks what was written meanwhile
    });
    area.addEventListener("beforeinput", (event) => {
      if (hooks.busy() && event.cancelable) event.preventDefault();
    });
    area.addEventListener("input", (event) => {
      if (!event.isComposing) this.typed();
      else if (this.editing) this.mirror();
    });
    area.addEventListener("keydown", (event) => this.key(event));
    layer.addEventListener("keydown", (event) => this.key(event));
    layer.addEventListener("click", (event) => this.click(event));
    this.sheet.addEventListener("click", ({ target }) => {
      if (target === this.sheet && !hooks.busy()) this.edit(area.value.length);
    });
    scroll.addEventListener("wheel", (event) => {
      if (!this.vertical || event.ctrlKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) return;
      const unit = event.deltaMode === 1 ? 40 : event.deltaMode === 2 ? scroll.clientWidth : 1;
      scroll.scrollLeft -= event.deltaY * unit; // the next line is to the left
      event.preventDefault();
    }, { passive: false });
    scroll.addEventListener("scroll", () => {
      this.follows = this.rest() < 80;
    });
    this.follows = true;
  }

  get vertical() {
    return this.root.classList.contains("vertical");
  }

  get editing() {
    return this.sheet.classList.contains("editing");
  }

  /** Another work is on the desk. @param {string} text */
  lay(text) {
    this.area.value = this.entered = text;
    this.reading.reset();
  }

  /** Show a version. @param {import("./story.js").Story} story */
  show(story) {
    const pieces = story.pieces();
    if (this.editing) this.mirror();
    else {
      this.reading.draw(pieces, story.unread);
      if (!this.composing && !this.hooks.busy()) this.area.value = story.text;
    }
    if (this.late && !this.composing && !this.hooks.busy()) {
      this.area.value += this.late;
      this.late = "";
      this.typed();
    }
    this.pages();
    if (this.follows && this.hooks.busy()) this.toNewest();
  }

  /** @param {number | null} caret where to write; null leaves it where it is */
  edit(caret) {
    if (!this.editing) {
      this.sheet.classList.add("editing");
      this.entered = this.area.value;
      this.mirror();
      this.hooks.command("mode");
    }
    if (caret === null) return;
    this.area.focus({ preventScroll: this.area.value.length > caret });
    this.area.setSelectionRange(caret, caret);
    this.pages();
  }

  /** Leave the textarea for the reading layer. @param {import("./story.js").Story} story */
  read(story) {
    if (this.composing) return;
    this.sheet.classList.remove("editing");
    this.reading.reset();
    this.show(story);
    this.area.setSelectionRange(this.area.value.length, this.area.value.length);
    this.hooks.command("mode");
  }

  /** The hidden reading layer gives the sheet the size that the textarea needs. */
  mirror() {
    this.reading.reset();
    this.reading.element.textContent = `${this.area.value}\u200b`;
    this.pages();
    if (this.area.selectionEnd === this.area.value.length) this.toNewest();
  }

  typed() {
    if (this.composing || this.hooks.busy()) return;
    this.edit(null);
    this.mirror();
    this.hooks.onType(this.area.value);
  }

  /** Squared paper comes in whole sheets. */
  pages() {
    const { style } = this.sheet;
    if (!this.root.classList.contains("squares")) return;
    const line = parseFloat(getComputedStyle(this.sheet).lineHeight);
    style.setProperty("--pages", 1);
    const { offsetWidth, offsetHeight } = this.reading.element;
    const size = this.vertical ? offsetWidth : offsetHeight;
    style.setProperty("--pages", Math.ceil((size - 2) / (line * 20)));
  }

  /** @returns {number} pixels from the view to the newest line */
  rest() {
    const { scroll, vertical } = this;
    const last = (this.reading.element.lastElementChild ?? this.reading.element).getBoundingClientRect();
    const view = scroll.getBoundingClientRect();
    return vertical ? view.left + 40 - last.left : last.bottom + 40 - view.bottom;
  }

  /** Keep the newest line in view: below across, to the left down. */
  toNewest() {
    const rest = this.rest();
    if (rest > 0) this.scroll.scrollBy(this.vertical ? { left: -rest } : { top: rest });
  }

  click(event) {
    const span = event.target.closest("[data-i]");
    if (!getSelection().isCollapsed) return; // something is being marked, not chosen
    if (span?.classList.contains("t")) this.hooks.onToken(Number(span.dataset.i));
    else if (!this.hooks.busy()) this.edit(this.reading.offsetAt(event) ?? this.area.value.length);
  }

  /** @param {KeyboardEvent} event */
  key(event) {
    // Safari sends the Enter that ends a composition after compositionend, as keyCode 229.
    if (event.isComposing || this.composing || event.keyCode === 229) return;
    const { key, shiftKey, target } = event;
    const command = event.ctrlKey || event.metaKey;
    const act = (name) => {
      event.preventDefault();
      this.hooks.command(name);
    };
    if (key === "Escape") {
      if (this.hooks.busy()) act("stop");
      else if (this.editing) act("read");
      else if (target.matches(".t")) this.area.focus({ preventScroll: true });
      return;
    }
    if (command && /^[zy]$/i.test(key)) {
      // In the textarea the browser's own undo comes first; then the tree's. Both can be redone.
      if (this.editing && this.area.value !== this.entered) return;
      const redo = key.toLowerCase() === "y" || shiftKey;
      if (this.editing && redo && !this.hooks.canRedo()) return;
      return act(redo ? "redo" : "undo");
    }
    if (this.editing || event.altKey || command) return;
    if (key === "F2") this.edit(this.area.value.length), event.preventDefault();
    else if (target.matches(".t")) this.tokenKey(event);
    else if (key === "ArrowLeft" || key === "ArrowRight") act(key === "ArrowLeft" ? "before" : "after");
    else if (key.startsWith("Arrow")) {
      this.reading.tokens().at(-1)?.focus();
      event.preventDefault();
    } else if (target !== this.area && (key.length === 1 || key === "Enter" || key === "Backspace")) {
      if (!this.hooks.busy()) this.edit(this.area.value.length); // the key itself goes there
    }
  }

  /** Keys on a token: along the line, across lines, into its alternatives. */
  tokenKey(event) {
    const { key, target } = event;
    const ways = this.vertical
      ? { ArrowUp: "back", ArrowDown: "on", ArrowRight: "up", ArrowLeft: "down" }
      : { ArrowLeft: "back", ArrowRight: "on", ArrowUp: "up", ArrowDown: "down" };
    if (key === "Enter" || key === " ") this.hooks.onToken(Number(target.dataset.i));
    else if (ways[key]) this.reading.beside(target, ways[key], this.vertical)?.focus();
    else {
      if (key.length === 1 && !this.hooks.busy()) this.edit(this.area.value.length);
      return;
    }
    event.preventDefault();
  }
}

/** @returns {boolean} whether this browser's textareas can be written in from top to bottom */
function canStandUpright() {
  const probe = document.createElement("textarea");
  probe.className = "probe";
  probe.rows = 2;
  probe.cols = 30;
  document.body.append(probe);
  const upright = probe.offsetHeight > probe.offsetWidth;
  probe.remove();
  return upright;
}

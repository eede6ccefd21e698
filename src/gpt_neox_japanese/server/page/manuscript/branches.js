/** Where stories part: the alternatives of one token, the tree as a list, three drafts. */

import { make, t } from "../i18n.js";

const hex = (bytes) => bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ");

/** A token by itself: what cannot be seen gets a sign. @param {{text: string, bytes?: number[]}} token */
export const visible = ({ text, bytes = [] }) =>
  text.replace(/\n/g, "↵").replace(/[ \u3000]/g, "␣") || hex(bytes) || "∅";

/** The alternatives of one token. */
export class Alternatives {
  /**
   * @param {(index: number, choice: import("./story.js").Alternative) => void} onChoose
   * @param {(index: number, action: "again" | "edit" | "beside", by?: number) => void} onAction
   */
  constructor(onChoose, onAction) {
    this.onChoose = onChoose;
    this.dialog = document.querySelector("#branches");
    this.list = this.dialog.querySelector("ul");
    this.dialog.addEventListener("keydown", (event) => this.key(event));
    this.dialog.querySelector("footer").addEventListener("click", ({ target }) => {
      this.close();
      if (target.value) onAction(this.index, target.value);
    });
    this.onAction = onAction;
    document.addEventListener("pointerdown", ({ target }) => {
      if (!this.dialog.contains(target)) this.close();
    });
  }

  /**
   * @param {number} index @param {import("./story.js").Piece} piece @param {HTMLElement} span
   * @param {boolean} canChoose whether the model that is there knows these ids
   */
  open(index, piece, span, canChoose) {
    this.close(false);
    this.index = index;
    this.piece = piece;
    this.span = span;
    span.classList.add("open");
    const top = piece.top ?? [];
    const all = top.some(({ id }) => id === piece.id) ? top : [...top, piece];
    this.dialog.querySelector("header").replaceChildren(make("b", { textContent: visible(piece) }),
      `−log p = ${(-piece.logprob).toFixed(2)}`,
      canChoose ? "" : make("div", { textContent: t("ほかの語彙で書かれたかもしれないので選べません。") }));
    this.list.replaceChildren(...all.map((each) => this.row(each, piece, canChoose)));
    this.dialog.show();
    this.place(span);
    (this.list.querySelector("[aria-selected=true]") ?? this.list.firstChild).focus();
  }

  row(each, piece, canChoose) {
    const p = Math.exp(each.logprob);
    const ends = /^<\|.*\|>$/.test(each.text); // a mark of the end, not a word
    const row = make("li", { role: "option", tabIndex: -1, ariaSelected: each.id === piece.id,
      ariaDisabled: ends || !canChoose },
      make("b", { textContent: ends && /end/.test(each.text) ? t("終わり") : visible(each) }),
      make("span", { textContent: `${(100 * p).toFixed(p < 0.1 ? 1 : 0)}%` }),
      make("code", { textContent: `${each.id}  ${hex(each.bytes)}` }));
    row.style.setProperty("--p", p);
    if (canChoose && !ends) row.onclick = () => this.choose(each);
    return row;
  }

  choose(each) {
    this.close();
    this.onChoose(this.index, each);
  }

  /** Beside the token, wherever there is room; on a phone the style sheet puts it at the bottom. */
  place(span) {
    const { style } = this.dialog;
    const at = span.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.dialog;
    let left = at.left;
    let top = at.bottom + 8 + height < innerHeight ? at.bottom + 8 : at.top - height - 8;
    if (getComputedStyle(span).writingMode === "vertical-rl") {
      // Beside it, over the lines that follow: what was read before stays in sight.
      left = at.left > width + 16 ? at.left - width - 8 : at.right + 8;
      top = at.top;
    }
    style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
    style.top = `${Math.max(8, Math.min(top, innerHeight - height - 8))}px`;
  }

  /** @param {boolean} [back] whether the focus goes back to the token */
  close(back = true) {
    if (!this.dialog.open) return;
    this.dialog.close();
    this.span.classList.remove("open");
    if (back) this.span.focus({ preventScroll: true });
  }

  key(event) {
    const { key, target } = event;
    if (key === "Escape") this.close();
    else if (key === "Tab" && target.matches("li")) return;
    else if (key === "ArrowLeft" || key === "ArrowRight") {
      this.onAction(this.index, "beside", key === "ArrowLeft" ? -1 : 1);
    } else if (key === "ArrowDown" || key === "ArrowUp") {
      const rows = [...this.list.children];
      const next = rows.indexOf(target) + (key === "ArrowDown" ? 1 : -1);
      rows.at(next % rows.length).focus();
    } else if (/^[1-9]$/.test(key)) this.list.children[key - 1]?.click();
    else if (key === "Enter" && target.matches("li")) target.click();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

/**
 * The tree as a list of first lines.
 * @param {import("./story.js").Story} story @param {(id: number) => void} onGo
 */
export function drawTree(story, onGo) {
  const list = document.querySelector("#tree ul");
  const focused = list.contains(document.activeElement) && document.activeElement.dataset.id;
  list.replaceChildren(...story.rows().map(({ id, depth, label, here }) => {
    const button = make("button", { textContent: label || "…", onclick: () => onGo(id) });
    button.dataset.id = id;
    if (here) button.ariaCurrent = "true";
    button.style.setProperty("--depth", depth);
    return make("li", {}, button);
  }));
  list.onkeydown = ({ key, target }) => {
    const all = [...list.querySelectorAll("button")];
    const step = { ArrowUp: -1, ArrowDown: 1 }[key];
    if (step) all[all.indexOf(target) + step]?.focus();
    const by = { ArrowLeft: -1, ArrowRight: 1 }[key];
    const fork = by && story.siblings(Number(target.dataset.id));
    if (fork) onGo(fork.ids.at((fork.index + by) % fork.ids.length));
  };
  if (focused) (list.querySelector(`[data-id="${focused}"]`) ?? list.querySelector("button")).focus();
}

/** Three drafts side by side; what is not taken stays in the tree. */
export class Drafts {
  /** @param {(version: import("./story.js").Version | null) => void} onTake null: none of them */
  constructor(onTake) {
    this.onTake = onTake;
    this.section = document.querySelector("#drafts");
    this.box = this.section.querySelector("div");
    this.section.querySelector(":scope > button").onclick = () => this.close(null);
    this.section.addEventListener("keydown", ({ key }) => {
      if (key === "Escape") this.close(null);
    });
  }

  /** @param {import("./story.js").Version[]} versions that are being written */
  open(versions) {
    this.box.replaceChildren(...versions.map((version, i) => make("article", {},
      make("header", {}, `${t("案")} ${"一二三"[i]}`,
        make("button", { textContent: t("これにする"), onclick: () => this.close(version) })),
      make("p", { tabIndex: 0 }))));
    this.section.hidden = false;
    this.versions = versions;
  }

  update() {
    this.box.querySelectorAll("p").forEach((p, i) => {
      p.textContent = this.versions[i].pieces.map((piece) => piece.text).join("");
    });
  }

  hide() {
    this.section.hidden = true;
  }

  close(version) {
    this.hide();
    this.onTake(version);
  }
}

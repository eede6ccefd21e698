/**
 * The reading layer: one span a token, line by line. Lines that did not change keep their elements,
 * so that a long manuscript is not drawn anew with every token.
 *
 * Ruby (漢字《かんじ》) and 縦中横 go across tokens; a token that they cut has several spans with one
 * `data-i`.
 */

/** @typedef {import("./story.js").Piece} Piece */

const RUBY = /[｜|]([^｜|《》\n]+)《([^《》\n]+)》|([\p{Script=Han}々〆ヵヶ]+)《([^《》\n]+)》/gu;
const UPRIGHT = /(?<![0-9A-Za-z.,])[0-9]{1,2}(?![0-9A-Za-z.,])|[!?！？]{2}/g;
const STEPS = [0.5, 0.2, 0.05, 0.01]; // probabilities between the five steps of surprise

/** @param {number | undefined} logprob @returns {number} 0, expected, to 4, a great surprise */
export function surprise(logprob) {
  const step = STEPS.findIndex((p) => Math.exp(logprob ?? 0) >= p);
  return step < 0 ? STEPS.length : step;
}

export class Reading {
  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
    /** @type {string[]} what each line was drawn from */
    this.drawn = [];
  }

  /** @param {Piece[]} pieces @param {number} unread characters that the model is not shown */
  draw(pieces, unread) {
    this.pieces = pieces;
    const lines = linesOf(pieces, unread);
    lines.forEach((line, i) => {
      if (this.drawn[i] === line.key) return;
      const element = document.createElement("div");
      element.className = "line";
      fill(element, line, pieces);
      const old = this.element.children[i];
      if (old) old.replaceWith(element);
      else this.element.append(element);
      this.drawn[i] = line.key;
    });
    while (this.element.children.length > lines.length) this.element.lastChild.remove();
    this.drawn.length = lines.length;
  }

  /** Forget what is drawn: something else wrote into the element. */
  reset() {
    this.drawn = [];
    this.element.replaceChildren();
  }

  /** @param {number} i @returns {HTMLElement | null} the first span of a piece */
  span(i) {
    return this.element.querySelector(`[data-i="${i}"]`);
  }

  /** @returns {HTMLElement[]} the spans of the model's tokens, one each */
  tokens() {
    const all = [...this.element.querySelectorAll(".t")];
    return all.filter((span, i) => span.dataset.i !== all[i - 1]?.dataset.i);
  }

  /**
   * The token beside one: along the line, or the nearest in the next line.
   * @param {HTMLElement} from @param {"back" | "on" | "up" | "down"} way  up: the line before
   * @param {boolean} vertical @returns {HTMLElement | undefined}
   */
  beside(from, way, vertical) {
    const tokens = this.tokens();
    const here = tokens.findIndex((span) => span.dataset.i === from.dataset.i);
    if (way === "back" || way === "on") return tokens[here + (way === "on" ? 1 : -1)];
    const box = (span) => {
      const r = span.getBoundingClientRect();
      return vertical ? { along: r.top + r.height / 2, line: -r.right }
        : { along: r.left + r.width / 2, line: r.top };
    };
    const at = box(from);
    const step = way === "down" ? 1 : -1;
    let best;
    let line = null;
    for (let i = here + step; tokens[i]; i += step) {
      const other = box(tokens[i]);
      if (Math.abs(other.line - at.line) < 8) continue; // still the same line
      line ??= other.line;
      if (Math.abs(other.line - line) >= 8) break;
      if (!best || Math.abs(other.along - at.along) < best.far) {
        best = { far: Math.abs(other.along - at.along), span: tokens[i] };
      }
    }
    return best?.span;
  }

  /** @param {MouseEvent} event @returns {number | null} the character of the text under a click */
  offsetAt(event) {
    const caret = document.caretPositionFromPoint?.(event.clientX, event.clientY);
    const range = caret ? null : document.caretRangeFromPoint?.(event.clientX, event.clientY);
    const node = caret?.offsetNode ?? range?.startContainer;
    const span = node?.parentElement?.closest?.("[data-o]");
    if (!span || node.nodeType !== Node.TEXT_NODE) return null;
    return Number(span.dataset.o) + (caret?.offset ?? range.startOffset);
  }
}

/** The pieces of each line, and a key that says whether it is still the same. */
function linesOf(pieces, unread) {
  const lines = [];
  let line = { text: "", parts: [], key: "", at: 0 };
  let at = 0;
  const add = (i, text) => {
    line.parts.push({ i, start: line.text.length, end: line.text.length + text.length });
    line.text += text;
    const { by, id, logprob } = pieces[i];
    const grey = Math.max(0, Math.min(unread - at, text.length));
    line.key += `${i},${grey},${by === "me" ? "" : `${id},${logprob}`}:${text}\0`;
    at += text.length;
  };
  pieces.forEach((piece, i) => {
    for (const text of piece.text.split(/(?<=\n)/)) {
      add(i, text);
      if (!text.endsWith("\n")) continue;
      lines.push(line);
      line = { text: "", parts: [], key: "", at };
    }
  });
  lines.push(line);
  for (const each of lines) {
    each.key += each.at;
    each.unread = unread;
  }
  return lines;
}

/** Draw one line. */
function fill(element, line, pieces) {
  const rubies = [...line.text.matchAll(RUBY)].map((found) => {
    const [all, marked, reading, plain, plainReading] = found;
    const bar = marked === undefined ? 0 : 1;
    const base = found.index + bar;
    const open = base + (marked ?? plain).length;
    return { start: found.index, base, open, close: open + 1 + (reading ?? plainReading).length,
      end: found.index + all.length };
  });
  const uprights = [...line.text.matchAll(UPRIGHT)].map((found) =>
    ({ start: found.index, end: found.index + found[0].length }));
  const cuts = new Set(uprights.flatMap(({ start, end }) => [start, end]));
  for (const each of rubies) Object.values(each).forEach((at) => cuts.add(at));
  rubies.forEach(({ open }) => cuts.add(open + 1));
  cuts.add(line.unread - line.at); // the boundary may lie within the writer's own words
  const sorted = [...cuts].sort((a, b) => a - b);
  let ruby = null;
  let boxes = {};
  for (const part of line.parts) {
    const inside = sorted.filter((at) => at > part.start && at < part.end);
    const bounds = [part.start, ...inside, part.end];
    for (let n = 1; n < bounds.length; n++) {
      const [start, end] = [bounds[n - 1], bounds[n]];
      const span = spanOf(pieces[part.i], part.i, line, start, end);
      if (uprights.some((each) => each.start === start && each.end === end)) {
        span.classList.add("tcy");
      }
      const found = rubies.find((each) => start >= each.start && start < each.end);
      if (found && found !== ruby) {
        boxes = { ruby: document.createElement("ruby"), rt: document.createElement("rt") };
        boxes.ruby.append(boxes.rt);
        element.append(boxes.ruby);
      }
      ruby = found ?? null;
      if (!found) element.append(span);
      else if (start >= found.base && start < found.open) boxes.rt.before(span);
      else if (start > found.open && start < found.close) boxes.rt.append(span);
      else {
        span.hidden = true; // the marks 《 》 ｜
        boxes.rt.before(span);
      }
    }
  }
}

function spanOf(piece, i, line, start, end) {
  const span = document.createElement("span");
  span.textContent = line.text.slice(start, end);
  span.dataset.i = i;
  span.dataset.o = line.at + start;
  span.className = piece.by === "me" ? "m" : piece.id === undefined ? "w" : "t w";
  if (piece.id !== undefined) {
    span.classList.add(`s${surprise(piece.logprob)}`);
    span.tabIndex = -1;
    span.role = "button";
    if (span.textContent === "\n") span.classList.add("br");
  }
  if (line.at + start < line.unread) span.classList.add("unread");
  return span;
}

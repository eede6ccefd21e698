/** The view of a text's pieces, and of ids as text. */

import { visible } from "../manuscript/branches.js";
import { make, t } from "../i18n.js";

/** @param {import("./api.js").Api} api @returns {(text: string) => void} opens the view */
export function tokensView(api) {
  const $ = (selector) => document.querySelector(selector);
  const text = $("#to-split");
  const ids = $("#to-join");
  let asked = 0; // answers may overtake each other
  let joining = 0;

  async function split() {
    const mine = ++asked;
    const source = text.value;
    const answer = source ? await api.tokenize(source).catch((error) => error) : { pieces: [] };
    if (mine !== asked) return;
    if (answer instanceof Error) return $("#split-note").textContent = answer.message;
    $("#split-note").textContent = t("{} トークン。印は、正規化で形が変わったところ。", answer.pieces.length);
    const characters = [...source];
    const boxes = [];
    let last;
    for (const piece of answer.pieces) {
      const { id, bytes, start, end, normalized } = piece;
      const isByte = bytes.length === 1 && bytes[0] > 127; // one of several of a character
      const decoded = isByte ? "" : new TextDecoder().decode(new Uint8Array(bytes));
      const shown = visible({ text: decoded, bytes });
      const from = visible({ text: characters.slice(start, end).join("") });
      const box = make("span", { className: normalized ? "piece folded" : "piece" },
        make("b", { textContent: normalized && from !== shown ? `${from} → ${shown}` : shown }),
        make("code", { textContent: id }),
        make("code", { textContent: bytes.map((byte) => byte.toString(16).padStart(2, "0")).join(" ") }));
      // The bytes of one character share its place, and a frame.
      if (last && last.start === start && last.end === end && end > start) {
        if (!last.frame) {
          last.frame = make("span", { className: "character", title: from });
          boxes.splice(-1, 1, last.frame);
          last.frame.append(last.box);
        }
        last.frame.append(box);
      } else {
        boxes.push(box);
        last = { start, end, box };
      }
    }
    $("#pieces").replaceChildren(...boxes);
  }

  async function join() {
    const mine = ++joining;
    const numbers = (ids.value.match(/\d+/g) ?? []).map(Number);
    const wrong = ids.value.replace(/[\d\s,[\]]/g, "");
    const text = wrong || !numbers.length ? t("番号をならべてください。")
      : await api.detokenize(numbers).catch((error) => error.message);
    if (mine === joining) $("#joined").textContent = ids.value.trim() ? text : "";
  }

  text.oninput = split;
  ids.oninput = join;
  return (source) => {
    text.value = source;
    $("#tokens").showModal();
    text.focus();
    split();
  };
}

/** What the writer may set, and the last request as code. */

import { make, t } from "./i18n.js";
import { read, write } from "./manuscript/storage.js";

/** name, Japanese, least, most, step, what holds if the checkpoint says nothing */
const CONTROLS = [
  ["length", "長さ", 1, 400, 1, 80],
  ["temperature", "温度", 0, 2, 0.05, 1],
  ["top_p", "top_p", 0.05, 1, 0.05, 1],
  ["top_k", "top_k", 0, 200, 1, 0],
  ["min_p", "min_p", 0, 0.5, 0.01, 0],
  ["repetition_penalty", "反復の抑え", 1, 2, 0.05, 1],
];
const LOOKS = { vertical: false, grid: false, colour: 0, size: 19, theme: "auto", language: "ja", ask: true };
export const COLOURS = ["", "surprise", "authors"];

const $ = (id) => document.getElementById(id);

export class Settings extends EventTarget {
  constructor() {
    super();
    this.looks = { ...LOOKS, ...read("looks", {}) };
    this.writing = { changed: {}, stop: [], seed: null, forget: false, ...read("writing", {}) };
    this.defaults = {};
    for (const name of ["grid", "size", "theme", "language", "ask"]) {
      const field = $(name);
      const value = field.type === "checkbox" ? "checked" : "value";
      field[value] = this.looks[name];
      field.oninput = () => this.look(name, name === "size" ? Number(field.value) : field[value]);
    }
    for (const [name, label, min, max, step] of CONTROLS) {
      const range = make("input", { type: "range", min, max, step, ariaLabel: label });
      const fineness = step === 1 ? 1 : "any"; // whole numbers stay whole
      const number = make("input", { type: "number", min, max, step: fineness, ariaLabel: label });
      range.oninput = number.oninput = ({ target }) => {
        if (target.value !== "" && target.validity.valid) this.change(name, Number(target.value));
      };
      number.onchange = () => this.draw();
      const text = make("span", { textContent: label });
      text.dataset.t = label;
      $("sampling").append(make("label", {}, text, range, number));
      if (name !== "temperature") continue;
      $("sampling").append(make("small", {}, ...["手堅い", "奔放"].map((word) => {
        const end = make("span", { textContent: word });
        end.dataset.t = word;
        return end;
      })));
    }
    $("stops").value = this.writing.stop.join("\n");
    $("stops").oninput = () => this.keep({ stop: $("stops").value.split("\n").filter(Boolean) });
    $("same-seed").checked = this.writing.seed !== null;
    $("seed").value = this.writing.seed ?? "";
    const seed = () => {
      const value = Math.min(2 ** 32 - 1, Math.max(0, Math.floor(Number($("seed").value) || 0)));
      this.keep({ seed: $("same-seed").checked ? value : null });
    };
    $("same-seed").oninput = $("seed").onchange = seed;
    $("forget").checked = this.writing.forget;
    $("forget").oninput = () => this.keep({ forget: $("forget").checked });
    $("defaults").onclick = () => {
      this.keep({ changed: {} });
      this.draw();
    };
    this.draw();
  }

  keep(values) {
    Object.assign(this.writing, values);
    write("writing", this.writing);
  }

  change(name, value) {
    const changed = { ...this.writing.changed, [name]: value };
    if (value === this.value(name, {})) delete changed[name];
    this.keep({ changed });
    this.draw(document.activeElement);
  }

  value(name, changed = this.writing.changed) {
    return changed[name] ?? this.defaults[name] ?? CONTROLS.find(([each]) => each === name)[5];
  }

  /** @param {Element} [but] the field that is being typed in */
  draw(but) {
    [...$("sampling").querySelectorAll("label")].forEach((label, i) => {
      for (const field of label.querySelectorAll("input")) {
        if (field !== but) field.value = this.value(CONTROLS[i][0]);
      }
    });
  }

  /** @param {object} defaults of the checkpoint */
  setDefaults(defaults) {
    this.defaults = defaults ?? {};
    this.draw();
  }

  /** @param {string} name @param {any} value */
  look(name, value) {
    this.looks[name] = value;
    write("looks", this.looks);
    this.dispatchEvent(new Event("look"));
  }

  /** @returns {object} for the writer; what the checkpoint says already is not sent */
  options() {
    const { changed, stop, seed, forget } = this.writing;
    const { length, ...sampling } = changed;
    const used = seed ?? Math.floor(Math.random() * 2 ** 32);
    return { length: this.value("length"), sampling, stop, seed: used, forget };
  }

  /** @param {number} seed of the last request: 同じ種で repeats it */
  sawSeed(seed) {
    if (this.writing.seed === null) $("seed").value = seed;
  }
}

/** @param {object} request @returns {string} the request for a shell */
export function asCurl(request) {
  const json = JSON.stringify({ ...request, stream: undefined }, null, 1).replaceAll("'", "'\\''");
  return `curl ${new URL("v1/completions", document.baseURI)} \\
  -H 'Content-Type: application/json' -H "Authorization: Bearer $API_KEY" \\
  -d '${json}'\n`;
}

/** @param {object} request @returns {string} the request with the openai package */
export function asPython(request) {
  const { stream, top_k, min_p, repetition_penalty, ...own } = request;
  // JSON.stringify leaves out what is undefined; its strings are Python's too.
  const extra = JSON.stringify({ top_k, min_p, repetition_penalty });
  const lines = Object.entries(own).map(([name, value]) => `    ${name}=${JSON.stringify(value)},\n`);
  if (extra !== "{}") lines.push(`    extra_body=${extra},\n`);
  return `import os

from openai import OpenAI

client = OpenAI(
    base_url=${JSON.stringify(new URL("v1", document.baseURI).href)}, api_key=os.environ.get("API_KEY", "none")
)
answer = client.completions.create(
${lines.join("")})
for choice in answer.choices:
    print(choice.text)
`;
}

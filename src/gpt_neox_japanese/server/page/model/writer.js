/** What the model is asked, and how its answer becomes versions of the story. */

import { beginOf, textOf } from "../manuscript/story.js";

/** @typedef {import("../manuscript/story.js").Alternative} Alternative */
/** @typedef {import("../manuscript/story.js").Piece} Piece */
/** @typedef {import("../manuscript/story.js").Story} Story */
/** @typedef {import("../manuscript/story.js").Version} Version */

const ALTERNATIVES = 8; // that are asked for at every token
const PART = /[^]{1,50000}(?:\n|$)|[^]{1,50000}/gu; // the server encodes so much at once
const SENTENCE_END = /[。！？!?」』\n]/;

/** There is nothing to continue. */
export class Empty extends Error {}

/** The context has no room for another token. */
export class Full extends Error {}

/**
 * Events: "model" when it is known, "state" (see `state`), "begin" and "text" with the versions that
 * are being written.
 */
export class Writer extends EventTarget {
  /** @param {import("./api.js").Api} api @param {() => object} options what the settings say */
  constructor(api, options) {
    super();
    this.api = api;
    this.options = options;
    this.model = { id: "", max_model_len: Infinity, vocabulary: "", defaults: {} };
    /** @type {Map<string, {id: number, at: number}[]>} the words of the text that was read last */
    this.encoded = new Map();
    /** @type {object | null} the last request, for the copies as curl and Python */
    this.request = null;
    /** @type {AbortController | null} */
    this.abort = null;
    this.state = { phase: "idle" };
  }

  /** Ask which model answers: another may by now. @param {AbortSignal} [signal] */
  async meetModel(signal) {
    const [model] = await this.api.models(signal);
    if (JSON.stringify(model) === JSON.stringify(this.model)) return;
    this.model = model;
    this.encoded = new Map();
    this.dispatchEvent(new Event("model"));
  }

  /** @returns {string} as pieces keep it: there are many of them */
  get vocabulary() {
    return this.model.vocabulary.slice(0, 12);
  }

  /** @param {Piece} piece @returns {boolean} whether its id means the same to this model */
  knows({ id, vocabulary }) {
    return id !== undefined && (!this.model.id || vocabulary === this.vocabulary);
  }

  get busy() {
    return this.abort !== null;
  }

  stop() {
    this.abort?.abort();
  }

  /** @param {object} change of the state */
  tell(change) {
    Object.assign(this.state, change);
    this.dispatchEvent(new Event("state"));
  }

  /** @returns {number} tokens to write: never so many that there is no room to read */
  get length() {
    return Math.floor(Math.min(this.options().length, this.model.max_model_len / 2));
  }

  // ---- What the model reads ----

  /**
   * The ids of a text, and where each begins. The model's own tokens stay what they are, so that
   * exactly the token that was chosen stands there; the server encodes the writer's words.
   * @param {Piece[]} pieces @param {number} unread characters at the beginning that are left out
   * @param {AbortSignal} [signal] @returns {Promise<{id: number, at: number}[]>}
   */
  async encode(pieces, unread, signal) {
    const tokens = [];
    const known = this.encoded;
    const encoded = new Map();
    for (const { at, words = "", ids = [] } of this.stretches(pieces, unread)) {
      tokens.push(...ids.map((id) => ({ id, at })));
      let start = at;
      for (const part of words.match(PART) ?? []) {
        encoded.set(part, known.get(part) ?? await this.encodeWords(part, signal));
        for (const token of encoded.get(part)) {
          tokens.push({ id: token.id, at: start + token.at });
        }
        start += part.length;
      }
    }
    if (this.encoded === known) this.encoded = encoded; // else of another model
    return tokens.filter((token) => token.at >= unread);
  }

  /**
   * The writer's words, and the model's characters. Tokens that say something else than the
   * manuscript shows are words, too: one that was cut, a mark, bytes that were torn from their
   * character, one of another vocabulary.
   * @param {Piece[]} pieces @param {number} unread pieces wholly before it are left out
   * @yields {{at: number, words?: string, ids?: number[]}} one of the two, and where it begins
   */
  *stretches(pieces, unread) {
    const oneSpace = (text) => text?.replaceAll("\u3000", " "); // see `fullWidth`
    let words = "";
    let end = 0;
    for (const [i, { text }] of pieces.entries()) {
      const at = end;
      end += text.length;
      if (at < unread && end <= unread) continue;
      const tokens = characterAt(pieces, i);
      const said = tokens.every((token) => this.knows(token)) ? spelling(tokens) : null;
      if (oneSpace(said) !== oneSpace(text)) words += text;
      else if (said || i === pieces.length - 1) { // a character, or its first bytes at the end
        if (words) yield { at: at - words.length, words };
        words = "";
        yield { at, ids: tokens.map(({ id }) => id) };
      }
    }
    if (words) yield { at: end - words.length, words };
  }

  async encodeWords(words, signal) {
    if (!this.encoded.has(words)) {
      const { pieces } = await this.api.tokenize(words, signal);
      // The server counts characters, a browser's strings count UTF-16 units.
      const units = [0];
      for (const character of words) units.push(units.at(-1) + character.length);
      this.encoded.set(words, pieces.map(({ id, start }) => ({ id, at: units[start] })));
    }
    return this.encoded.get(words);
  }

  /** @param {Story} story @param {AbortSignal} [signal] @returns {Promise<number[]>} what it reads */
  async prompt(story, signal) {
    const tokens = await this.encode(story.pieces(), story.unread, signal);
    return tokens.map(({ id }) => id);
  }

  /**
   * Let the model read only the end of the story: about half of what it can, from the beginning of
   * a sentence. The manuscript stays whole.
   * @param {Story} story
   */
  async forgetBeginning(story) {
    let pieces;
    let tokens;
    do { // again, if the text was changed meanwhile
      pieces = story.pieces();
      tokens = await this.encode(pieces, story.unread);
    } while (story.pieces() !== pieces);
    const room = Math.max(1, Math.floor((this.model.max_model_len - this.length) / 2));
    const last = tokens.slice(-room);
    const { text } = story;
    const begins = ({ at }) => SENTENCE_END.test(text[at - 1] ?? "\n");
    story.unread = (last.slice(0, room / 2).find(begins) ?? last[0])?.at ?? 0;
  }

  // ---- Writing ----

  /**
   * Continue the story, in one version or in several side by side.
   * @param {Story} story @param {number} n @returns {Promise<Version[]>} those that have text
   */
  async write(story, n) {
    this.abort = new AbortController();
    const { signal } = this.abort;
    const parent = story.current;
    const before = story.pieces();
    /** @type {Version[]} */
    const versions = [];
    const asked = performance.now();
    let first = 0;
    let count = 0;
    let atFirst = 0; // tokens that came together in the first chunk
    this.tell({ phase: "asking", error: null, waiting: 0, first: 0, speed: 0, count, ended: "" });
    try {
      await this.meetModel(signal);
      this.request = await this.body(story, n, signal);
      signal.throwIfAborted(); // words that are encoded already ask nobody
      for (let i = 0; i < n; i++) {
        story.go(parent);
        versions.push(story.addRun());
      }
      if (n > 1) story.go(parent);
      this.dispatchEvent(new CustomEvent("begin", { detail: versions }));
      const extras = { stream: true, logprobs: ALTERNATIVES, token_details: true };
      for await (const chunk of this.api.complete({ ...this.request, ...extras }, signal)) {
        if ("waiting" in chunk) {
          this.tell({ phase: "queued", waiting: chunk.waiting });
          continue;
        }
        for (const { index, token_details: tokens = [], finish_reason: ended } of chunk.choices) {
          const isStopped = ended === "stop" && showStop(tokens, this.request.stop ?? []);
          if (ended) this.tell({ ended: isStopped ? "string" : ended });
          for (const token of tokens) {
            count++;
            // A character has at most four bytes.
            const near = [...before.slice(-4), ...versions[index].pieces];
            const piece = pieceOf({ ...token, vocabulary: this.vocabulary }, near);
            // The mark that ends a text is none of its words.
            if (piece.text || piece.bytes.length === 1) story.append(versions[index], piece);
          }
        }
        if (!count) continue;
        const now = performance.now();
        if (!first) [first, atFirst] = [now, count];
        const [since, tokens] = now - first > 100 ? [first, count - atFirst] : [asked, count];
        const speed = (tokens * 1000) / (now - since);
        this.tell({ phase: "writing", first: first - asked, count, speed });
        this.dispatchEvent(new CustomEvent("text", { detail: versions }));
      }
    } catch (error) {
      if (!signal.aborted) this.tell({ error });
    }
    this.abort.abort(); // whatever ended it, the server's slot is free
    this.abort = null;
    const written = versions.filter(({ pieces }) => pieces.some(({ text }) => text));
    versions.filter((version) => !written.includes(version)).forEach((each) => story.drop(each));
    this.tell({ phase: "idle", waiting: 0 });
    return written;
  }

  /** @returns {Promise<object>} the body of `/v1/completions` */
  async body(story, n, signal) {
    const { sampling, stop, seed, forget } = this.options();
    const limit = this.model.max_model_len;
    let ids = await this.prompt(story, signal);
    if (forget && ids.length + this.length > limit) {
      await this.forgetBeginning(story);
      ids = await this.prompt(story, signal);
    }
    if (!ids.length) throw new Empty();
    if (ids.length >= limit) throw new Full();
    // Words of the writer alone are sent as they are, and the copies as curl and Python read well.
    const plain = !story.unread && story.pieces().every((piece) => piece.id === undefined);
    return {
      model: this.model.id,
      prompt: plain ? story.text : ids,
      max_tokens: Math.min(this.length, limit - ids.length),
      ...sampling,
      ...(stop.length && { stop }),
      seed,
      n,
    };
  }
}

/** @returns {Piece[]} the token at a place, after those that are bytes of the same character */
const characterAt = (pieces, i) => pieces.slice(beginOf(pieces, i), i + 1);

/**
 * @param {Alternative[]} tokens the bytes of one character, or one token of any length
 * @returns {string | null} "" while bytes are missing, null for bytes of no character
 */
function spelling(tokens) {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  try {
    return decoder.decode(new Uint8Array(tokens.flatMap(({ bytes }) => bytes)), { stream: true });
  } catch {
    return null;
  }
}

/**
 * The server does not know the character whose first bytes are in the prompt.
 * @param {Alternative & {vocabulary: string}} token of `token_details`, or one that it names
 * @param {Piece[]} before @returns {Piece}
 */
export function pieceOf({ id, text, bytes, logprob, top, vocabulary }, before) {
  const piece = { by: "model", text, id, bytes, logprob, top, vocabulary };
  if (bytes.length === 1) {
    piece.text ||= spelling(characterAt([...before, piece], before.length)) ?? "";
  }
  piece.text = fullWidth(piece.text, before.at(-1));
  return piece;
}

/**
 * The server leaves a stop string out of the text, but tells its tokens. In the manuscript it
 * stands: without it the next run would only write it again.
 * @param {object[]} tokens the last of a text; the stop string becomes their text
 * @param {string[]} stop @returns {boolean} whether one of them ended the text
 */
function showStop(tokens, stop) {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  const whole = tokens.map(({ bytes }) => decoder.decode(new Uint8Array(bytes), { stream: true })
    .replaceAll("\ufffd", "")); // the server leaves bytes of no character out, too
  const shown = textOf(tokens);
  const found = stop.filter((each) => whole.join("").startsWith(shown + each));
  if (!found.length) return false;
  let left = shown.length + Math.min(...found.map(({ length }) => length));
  tokens.forEach((token, i) => {
    token.text = whole[i].slice(0, left);
    left -= token.text.length;
  });
  return true;
}

/**
 * The tokenizer knows one kind of space; among Japanese it is the full-width one.
 * @param {string} text of a token @param {Piece} [last] the piece before it @returns {string}
 */
function fullWidth(text, last) {
  const near = last?.text.at(-1) ?? "\n";
  return text.replace(/(?<![!-~]) (?![!-~])/g, (space, at) =>
    (at || !/[!-~]/.test(near) ? "\u3000" : space));
}

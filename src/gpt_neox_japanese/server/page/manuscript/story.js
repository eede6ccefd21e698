/**
 * A work is a tree of versions. Each version is a splice of its parent: the parent's pieces up to
 * `from`, its own pieces, and what the parent had from `to` on. So nothing is ever overwritten,
 * undo is a step to the parent, and a fork costs no more than its own words.
 *
 * @typedef {{id: number, text: string, bytes: number[], logprob: number}} Alternative
 * @typedef {{text: string, by: "me" | "model", id?: number, bytes?: number[], logprob?: number,
 *   top?: Alternative[], vocabulary?: string}} Piece  One token, or any stretch of the writer's own
 *   words. Ids are those of a `vocabulary`, which is a fingerprint; old works do not say of which.
 * @typedef {[number, number]} Place  So many whole pieces, and so many UTF-16 units of the next.
 * @typedef {{id: number, parent: number | null, made: "start" | "typed" | "run" | "choice",
 *   from: Place, to: Place | null, pieces: Piece[], unread?: number, next?: number, was?: number}}
 *   Version  `unread` counts the characters at its beginning that the model is not shown, `next` is
 *   the child that was last gone to, `was` the version from which a choice was made.
 */

const PAUSE_MS = 10_000; // typing after a longer pause is a version of its own
const KEPT = 64; // versions whose pieces are remembered: those of all would fill the memory
const STEP = 32; // of versions on a way that was gone, one in so many is remembered for undo

/** @param {Piece[]} pieces @returns {string} */
export const textOf = (pieces) => pieces.map((piece) => piece.text).join("");

/** @param {Piece[]} pieces @returns {number} of the characters of their text */
const lengthOf = (pieces) => pieces.reduce((sum, piece) => sum + piece.text.length, 0);

/**
 * A character may be several tokens of one byte each, of which the last has its text.
 * @param {Piece[]} pieces @param {number} index @returns {number} the first token of its character
 */
export function beginOf(pieces, index) {
  const goesOn = (piece) => piece?.bytes?.[0] >> 6 === 0b10; // as UTF-8 marks all but first bytes
  const isOpen = (piece) => piece?.text === "" && piece.bytes?.length === 1;
  while (goesOn(pieces[index]) && isOpen(pieces[index - 1])) index--;
  return index;
}

/** @param {Piece[]} pieces @param {number} offset @returns {Place} where a character stands */
export function placeOf(pieces, offset) {
  for (let i = 0; i < pieces.length; i++) {
    if (offset < pieces[i].text.length) return offset ? [i, offset] : [beginOf(pieces, i), 0];
    offset -= pieces[i].text.length;
  }
  return [pieces.length, 0];
}

/** Half a token is text without an id: it can be read, but not exchanged. */
const half = (piece, start, end) => ({ by: piece.by, text: piece.text.slice(start, end) });

/** @param {Piece[]} pieces @param {Place} place @returns {Piece[]} what stands before it */
function before(pieces, [count, units]) {
  if (!units) return pieces.slice(0, count);
  return [...pieces.slice(0, beginOf(pieces, count)), half(pieces[count], 0, units)];
}

/** @param {Piece[]} pieces @param {Place | null} place @returns {Piece[]} what stands from it on */
function after(pieces, place) {
  if (!place) return [];
  const [count, units] = place;
  return units ? [half(pieces[count], units), ...pieces.slice(count + 1)] : pieces.slice(count);
}

/**
 * @param {Piece[]} pieces of a version's parent, in a list that may be changed
 * @param {Version} version @returns {Piece[]} the version's own
 */
function spliced(pieces, { from, to, pieces: own }) {
  if (from[1] || to) return before(pieces, from).concat(own, after(pieces, to));
  pieces.splice(from[0]); // nearly always at the end: a list of thousands is not copied
  for (const piece of own) pieces.push(piece);
  return pieces;
}

/** @returns {string} for a work; pages over plain HTTP have no randomUUID */
export const newId = () => crypto.randomUUID?.() ?? String(Date.now() + Math.random());

export class Story {
  /** @param {object} [saved] what `toJSON` gave */
  constructor(saved = {}) {
    this.id = saved.id ?? newId();
    this.title = saved.title ?? "";
    /** @type {Map<number, Version>} */
    this.versions = new Map((saved.versions ?? [{ ...START }]).map((each) => [each.id, each]));
    this.current = saved.current ?? 0;
    this.typedAt = 0;
    /** @type {number[]} versions that were left by undo */
    this.undone = [];
    /** @type {Map<number, Piece[]>} the versions that were asked for last, the latest at the end */
    this.cache = new Map();
    // Works once kept one number for all versions, and some shared their beginning with others.
    for (const [version, pieces] of saved.unread > 0 ? this.walk() : []) {
      if (saved.unread < lengthOf(pieces)) version.unread ??= saved.unread;
    }
    for (const version of this.versions.values()) {
      if (this.versions.get(version.next)?.parent !== version.id) delete version.next;
    }
  }

  /** @returns {object} for JSON.stringify */
  toJSON() {
    const { id, title, current } = this;
    return { format: "neox-ja-story-1", id, title, current, versions: [...this.versions.values()] };
  }

  /** @returns {Version} */
  get version() {
    return this.versions.get(this.current);
  }

  /** @returns {number} characters at the beginning that the model is not shown */
  get unread() {
    return this.version.unread ?? 0;
  }

  set unread(count) {
    if (count) this.version.unread = count;
    else delete this.version.unread;
  }

  /** @param {number} [id] @returns {Piece[]} all pieces of a version */
  pieces(id = this.current) {
    const chain = []; // a loop, for chains are longer than the stack is deep
    let at = id;
    for (; at !== null && !this.cache.has(at); at = this.versions.get(at).parent) {
      chain.push(this.versions.get(at));
    }
    let pieces = this.cache.get(at) ?? [];
    if (chain.length) pieces = [...pieces];
    while (chain.length) {
      const version = chain.pop();
      pieces = spliced(pieces, version);
      if (chain.length % STEP === 1) this.remember(version.id, [...pieces]);
    }
    this.remember(id, pieces);
    return pieces;
  }

  /** @param {number} id @param {Piece[]} pieces of that version */
  remember(id, pieces) {
    this.cache.delete(id);
    this.cache.set(id, pieces);
    if (this.cache.size > KEPT) this.cache.delete(this.cache.keys().next().value);
  }

  /** @returns {Generator<[Version, Piece[]]>} all versions, with pieces in a list that then changes */
  *walk() {
    let pieces = [];
    let last = null;
    for (const version of this.versions.values()) {
      // Most go on where the last one ended.
      const old = version.parent === last ? pieces : [...this.pieces(version.parent)];
      pieces = spliced(old, version);
      last = version.id;
      yield [version, pieces];
    }
  }

  /** @returns {string} */
  get text() {
    return textOf(this.pieces());
  }

  /** @param {number | null} id @returns {Version[]} */
  children(id) {
    return [...this.versions.values()].filter((each) => each.parent === id);
  }

  /**
   * Begin a version after the current one, and go there.
   * @param {Version["made"]} made @param {Place} from @param {Piece[]} pieces
   * @param {Place | null} [to] @returns {Version}
   */
  add(made, from, pieces, to = null) {
    const id = 1 + Math.max(...this.versions.keys());
    const version = { id, parent: this.current, made, from, to, pieces };
    const { unread } = this;
    const start = lengthOf(before(this.pieces(), from));
    this.versions.set(id, version);
    this.jump(id);
    this.unread = stillUnread(unread, { start, end: Infinity, more: 0 });
    return version;
  }

  /** @returns {Version} a run at the end of the text, still empty */
  addRun() {
    return this.add("run", [this.pieces().length, 0], []);
  }

  /**
   * Cut before a token and let `pieces` stand there: a sibling of the version that wrote the token,
   * so that one steps between the two with ← and →.
   * @param {number} index @param {Piece[]} pieces @returns {Version}
   */
  cutAt(index, pieces) {
    const was = this.current;
    let at = this.version;
    const start = ({ from: [count, units] }) => count + (units ? 1 : 0);
    while (at.to === null && at.parent !== null && index < start(at)) at = this.versions.get(at.parent);
    this.current = at.id;
    let version;
    if (at.to !== null || at.parent === null) version = this.add("choice", [index, 0], pieces);
    else {
      const head = this.pieces().slice(start(at), index);
      this.current = at.parent;
      version = this.add("choice", at.from, [...head, ...pieces]);
    }
    version.was = was;
    return version;
  }

  /** @param {Version} version @param {Piece} piece a token that was just written */
  append(version, piece) {
    version.pieces.push(piece);
    this.cache.get(version.id)?.push(piece);
  }

  /** Take a version away that nobody needs: a run that wrote nothing. @param {Version} version */
  drop(version) {
    if (this.current === version.id) this.current = version.parent;
    this.versions.delete(version.id);
    this.cache.delete(version.id);
    const parent = this.versions.get(version.parent);
    if (parent.next === version.id) delete parent.next;
  }

  /** The writer changed the text. @param {string} text @returns {boolean} whether it is new */
  type(text) {
    const previous = this.text;
    if (text === previous) return false;
    const goesOn = this.version.made === "typed" && !this.children(this.current).length
      && Date.now() - this.typedAt < PAUSE_MS;
    const unread = stillUnread(this.unread, changeOf(previous, text));
    const version = goesOn ? this.version : this.add("typed", [0, 0], []);
    this.typedAt = Date.now();
    const old = this.pieces(version.parent);
    const oldText = textOf(old);
    const { start, end, more } = changeOf(oldText, text);
    const words = text.slice(start, end + more);
    version.from = placeOf(old, start);
    version.to = end < oldText.length ? placeOf(old, end) : null;
    version.pieces = words ? [{ by: "me", text: words }] : [];
    this.cache.delete(version.id);
    this.unread = unread;
    return true;
  }

  // ---- Ways through the tree ----

  /** @returns {() => void} goes back to this version, and to what could be done again from it */
  mark() {
    const { current, undone } = this;
    const { next } = this.version;
    return () => {
      this.go(current);
      this.undone = undone;
      if (next !== undefined) this.version.next = next;
    };
  }

  /** @param {number} id where to go on */
  jump(id) {
    this.undone = [];
    this.go(id);
  }

  /** @param {number} id a version; its ancestors remember the way */
  go(id) {
    this.current = id;
    this.typedAt = 0; // what is gone to stays as it is
    for (let at = this.version; at.parent !== null; at = this.versions.get(at.parent)) {
      this.versions.get(at.parent).next = at.id;
    }
  }

  /** @returns {boolean} whether there was a step to take back */
  undo() {
    const { was, parent } = this.version;
    if (parent === null) return false;
    this.undone.push(this.current);
    this.go(was ?? parent);
    return true;
  }

  /** @returns {boolean} whether there was a step to do again */
  redo() {
    const next = this.undone.pop() ?? this.version.next;
    if (next === undefined) return false;
    this.go(next);
    return true;
  }

  get canRedo() {
    return this.undone.length > 0 || this.version.next !== undefined;
  }

  /** Go to a version and on to where its branch was left. @param {number} id */
  goToEnd(id) {
    this.jump(id);
    while (this.redo());
  }

  /**
   * The nearest fork on the way to a version.
   * @param {number} [id] @returns {{ids: number[], index: number} | null} which of them is ours
   */
  siblings(id = this.current) {
    for (let at = this.versions.get(id); at.parent !== null; at = this.versions.get(at.parent)) {
      const ids = this.children(at.parent).map((each) => each.id);
      if (ids.length > 1) return { ids, index: ids.indexOf(at.id) };
    }
    return null;
  }

  /** @param {number} by -1 or 1 @returns {boolean} whether there is a sibling */
  sibling(by) {
    const fork = this.siblings();
    if (!fork) return false;
    this.goToEnd(fork.ids.at((fork.index + by) % fork.ids.length));
    return true;
  }

  /**
   * The tree as a slim list: a row for each stretch between two forks, told by its first words that
   * the stretches beside it do not begin with.
   * @returns {{id: number, depth: number, label: string, here: boolean}[]}
   */
  rows() {
    const ours = new Set();
    for (let at = this.version; at; at = this.versions.get(at.parent)) ours.add(at.id);
    const rows = [];
    const todo = [{ ...this.stretch(0), depth: 0, same: 0 }];
    while (todo.length) {
      const { id, text, below, depth, same } = todo.pop();
      const label = text.slice(same).replace(/^[\s\p{P}]+/u, "").split("\n")[0].slice(0, 40);
      rows.push({ id, depth, label: (same ? "…" : "") + label, here: ours.has(id) });
      const next = below.map((child) => this.stretch(child.id));
      for (const each of next.toReversed()) {
        const lengths = next.map((other) => (other === each ? 0 : commonLength(each.text, other.text)));
        todo.push({ ...each, depth: depth + 1, same: Math.max(0, ...lengths) });
      }
    }
    return rows;
  }

  /** @param {number} id @returns {{id: number, text: string, below: Version[]}} up to the next fork */
  stretch(id) {
    let text = "";
    for (let at = id; ;) {
      text += textOf(this.versions.get(at).pieces);
      const below = this.children(at);
      if (below.length !== 1) return { id, text, below };
      at = below[0].id;
    }
  }
}

/** @param {string} a @param {string} b @returns {number} how far they begin alike */
function commonLength(a, b) {
  let length = 0;
  while (length < a.length && a[length] === b[length]) length++;
  return length;
}

/**
 * @param {string} old @param {string} text
 * @returns {{start: number, end: number, more: number}} from where to where the old text was
 *   changed, and by how much it grew
 */
function changeOf(old, text) {
  const least = Math.min(text.length, old.length);
  let start = commonLength(text, old);
  if (isLow(old, start) || isLow(text, start)) start--; // never through a surrogate pair
  let same = 0;
  while (same < least - start && text.at(-1 - same) === old.at(-1 - same)) same++;
  if (isLow(old, old.length - same) || isLow(text, text.length - same)) same--;
  return { start, end: old.length - same, more: text.length - old.length };
}

/**
 * Where the boundary itself was changed, or the text was cut before it, all is shown again: often
 * it fits, and if not, its beginning can be left unread once more.
 * @param {number} unread @param {{start: number, end: number, more: number}} change of the text
 * @returns {number}
 */
function stillUnread(unread, { start, end, more }) {
  if (start < unread && end <= unread) return unread + more;
  return start > unread || start === end ? unread : 0;
}

const START = { id: 0, parent: null, made: "start", from: [0, 0], to: null, pieces: [] };

/** @param {string} text @param {number} at @returns {boolean} the second half of a pair */
const isLow = (text, at) => at > 0 && (text.charCodeAt(at) & 0xfc00) === 0xdc00;

/**
 * Whether this is a work of ours: files come from anywhere.
 * @param {any} saved @returns {boolean}
 */
export function isStory(saved) {
  const isCount = (value) => Number.isInteger(value) && value >= 0;
  const isPlace = (place) => place.length === 2 && place.every(isCount);
  const isBefore = ([count, units], other) =>
    count < other[0] || (count === other[0] && units <= other[1]);
  const texts = (list) => list.every((each) => typeof each.text === "string"
    && (each.id === undefined || (isCount(each.id) && each.bytes.every(isCount)))
    && (each.top === undefined || (texts(each.top) && each.top.every(({ id }) => isCount(id)))));
  try {
    const { format, title, current, versions } = saved;
    if (format !== "neox-ja-story-1" || typeof title !== "string") return false;
    const seen = new Set();
    for (const { id, parent, was, from, to, pieces } of versions) {
      if (!Number.isSafeInteger(id + 1) || seen.has(id) || !texts(pieces)) return false;
      if (was !== undefined && !seen.has(was)) return false;
      if (id ? !seen.has(parent) : parent !== null) return false; // so that all are one tree
      if (!isPlace(from) || (to !== null && !(isPlace(to) && isBefore(from, to)))) return false;
      seen.add(id);
    }
    if (!seen.has(current)) return false;
    for (const [{ unread = 0 }, pieces] of new Story(saved).walk()) {
      if (unread === 0) continue;
      if (!isCount(unread) || unread >= lengthOf(pieces)) return false;
    }
    return true;
  } catch {
    return false; // something is missing, or of another kind
  }
}

/** What this browser keeps: works and settings in localStorage, the key for this tab only. */

import { Story, isStory, newId } from "./story.js";

const PREFIX = "neox-ja:";
const WORK = `${PREFIX}work:`;

/** @param {string} name @param {any} otherwise @returns {any} */
export function read(name, otherwise) {
  try {
    return JSON.parse(localStorage.getItem(PREFIX + name)) ?? otherwise;
  } catch {
    return otherwise; // storage is forbidden, or somebody else wrote there
  }
}

/** @param {string} name @param {any} value @returns {boolean} whether it is kept */
export function write(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

/** @returns {string} */
export function key() {
  try {
    return sessionStorage.getItem(`${PREFIX}key`) ?? "";
  } catch {
    return memory;
  }
}

let memory = "";

/** @param {string} value */
export function setKey(value) {
  memory = value;
  try {
    sessionStorage.setItem(`${PREFIX}key`, value);
  } catch {
    // then it lives as long as the page
  }
}

/** @returns {{id: string, title: string, saved: number}[]} the works, last saved first */
export function works() {
  return read("works", []).sort((a, b) => b.saved - a.saved);
}

/** @param {string} id @returns {number | undefined} when it was saved last, by whichever tab */
const savedAt = (id) => works().find((each) => each.id === id)?.saved;

/** @param {string} id @returns {Story | null} */
export function load(id) {
  const saved = read(`work:${id}`, null);
  return isStory(saved) ? Object.assign(new Story(saved), { savedAt: savedAt(id) }) : null;
}

/**
 * Another tab may have saved the same work since this one read it: neither version is lost, for this
 * one becomes a work of its own.
 * @param {Story} story @returns {boolean} whether it became another work
 */
export function part(story) {
  const last = savedAt(story.id);
  if (last === undefined || last === story.savedAt) return false;
  story.id = newId();
  story.title = `${nameOf(story)}（2）`;
  return true;
}

/**
 * @param {Story} story
 * @returns {boolean} whether it is kept. Where room is short, alternatives are left out first.
 */
export function save(story) {
  const kept = write(`work:${story.id}`, story)
    || write(`work:${story.id}`, JSON.parse(JSON.stringify(story, (name, value) =>
      (name === "top" ? undefined : value))));
  // Two tabs that save in one millisecond save at two times.
  const saved = Date.now() + Math.random();
  const entry = { id: story.id, title: nameOf(story), saved };
  const others = works().filter((each) => each.id !== story.id);
  if (!kept || !write("works", [entry, ...others])) return false;
  story.savedAt = saved;
  return write("open", story.id);
}

/** @param {Story} story @returns {string} its title, or how it begins */
export function nameOf(story) {
  return story.title || story.text.replace(/^[\s\p{P}]+/u, "").split("\n")[0].slice(0, 20);
}

/** @param {string} id */
export function remove(id) {
  localStorage.removeItem(WORK + id);
  write("works", works().filter((each) => each.id !== id));
}

/** @param {Story} story @param {"txt" | "json"} kind: offers a file to keep */
export function download(story, kind) {
  const content = kind === "txt" ? story.text : JSON.stringify(story);
  const type = kind === "txt" ? "text/plain;charset=utf-8" : "application/json";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = `${nameOf(story).replace(/[\\/:*?"<>|\s]+/g, "_") || "story"}.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/**
 * @param {File} file a .json that was exported here, or any text
 * @returns {Promise<Story | null>} a work of its own; null for what is neither
 */
export async function open(file) {
  try {
    const text = decode(await file.arrayBuffer()).replace(/\r\n?/g, "\n");
    if (!file.name.toLowerCase().endsWith(".json")) {
      const story = new Story({ title: file.name.replace(/\.[^.]*$/, "") });
      story.type(text);
      return story;
    }
    const saved = JSON.parse(text);
    return isStory(saved) ? new Story({ ...saved, id: undefined }) : null;
  } catch {
    return null;
  }
}

/** @param {ArrayBuffer} bytes @returns {string} many Japanese texts are still in Shift_JIS */
function decode(bytes) {
  const text = new TextDecoder().decode(bytes);
  const broken = text.split("\ufffd").length - 1;
  if (broken * 100 <= text.length) return text; // UTF-8, at most damaged in a few places
  return new TextDecoder("shift_jis", { fatal: true }).decode(bytes);
}

/** Puts the desk together. */

import { Api } from "./model/api.js";
import { Alternatives, Drafts, drawTree } from "./manuscript/branches.js";
import { Editor } from "./manuscript/editor.js";
import { make, setLanguage, t } from "./i18n.js";
import { askKey, notice, wait } from "./notices.js";
import { asCurl, asPython, COLOURS, Settings } from "./settings.js";
import * as storage from "./manuscript/storage.js";
import { Story, textOf } from "./manuscript/story.js";
import { tokensView } from "./model/tokens.js";
import { Empty, Full, pieceOf, Writer } from "./model/writer.js";

const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const settings = new Settings();
const dark = matchMedia("(prefers-color-scheme: dark)");
let story = storage.load(storage.read("open", "")) ?? new Story();
let saving = 0; // a timer
let unkept = false; // what changed is not saved yet, or could not be
let changed = false; // in this visit, and in no file yet
let several = false; // three drafts are being written

// ---- The server, and what the writer is told ----

const api = new Api({ key: storage.key, askKey, wait });
const writer = new Writer(api, () => settings.options());

/** @param {Error} error */
function fail(error) {
  if (error.name === "AbortError") return;
  if (error instanceof Empty) notice(t("まず、はじめの一行を書いてください。"));
  else if (error instanceof Full) offerToForget(t("文脈がいっぱいです。"));
  else if (error.code === "model_not_found") notice(t("サーバーのモデルが替わりました。もう一度試してください。"));
  else if (error.status === 0) notice(t("途中で切れました。"));
  else if (error.status) notice(t("サーバーは「{}」と答えました。", error.message));
  else {
    console.error(error);
    notice(t("サーバーにつながりません。"));
  }
}

function offerToForget(text) {
  notice(text, t("はじめを読ませない"), async () => {
    const read = story;
    await writer.forgetBeginning(read).catch(fail);
    if (story === read) touched();
  });
}

/** How much of the context is used; asked when the writer pauses. */
let measuring = 0;
function measure() {
  clearTimeout(measuring);
  const mine = measuring = setTimeout(async () => {
    const limit = writer.model.max_model_len;
    if (limit === Infinity || writer.busy) return;
    const used = (await writer.prompt(story).catch(() => null))?.length;
    if (used === undefined || mine !== measuring || writer.busy) return;
    const meter = $("context");
    Object.assign(meter, { max: limit, high: limit * 0.75, optimum: 0, value: used });
    meter.nextElementSibling.textContent = `${used} / ${limit}`;
    if (used + writer.length > limit && $("notice").hidden && !settings.writing.forget) {
      offerToForget(t("文脈がもうすぐいっぱいです。"));
    }
  }, 500);
}

let unspoken = 0;
/** Say whole sentences to who listens, not every token. @param {string} text of the run */
function speak(text, all = false) {
  const end = all ? text.length : Math.max(...["。", "！", "？", "\n"].map((mark) => text.lastIndexOf(mark))) + 1;
  if (end > unspoken) $("spoken").textContent = text.slice(unspoken, end);
  unspoken = Math.max(end, unspoken);
}

writer.addEventListener("model", () => {
  settings.setDefaults(writer.model.defaults);
  measure();
});
writer.addEventListener("state", () => {
  const { phase, waiting, first, speed, count, error, ended } = writer.state;
  let text = "";
  if (phase === "queued") text = t("{} 番目", waiting);
  else if (phase === "asking") text = t("読んでいます");
  else if (count) text = t("{} トークン/秒・最初のトークン {} ms", speed.toFixed(1), Math.round(first));
  if (phase === "idle" && ended === "stop") text += `・${t("モデルは文章を終えました")}`;
  $("state").firstElementChild.textContent = text;
  root.classList.toggle("writing", phase === "writing" && !several);
  if (phase === "idle" && error) fail(error);
  buttons();
});
writer.addEventListener("begin", ({ detail }) => {
  settings.sawSeed(writer.request.seed);
  if (several) drafts.open(detail);
});
writer.addEventListener("text", ({ detail }) => {
  if (!several) speak(textOf(detail[0].pieces));
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    if (several) drafts.update();
    else editor.show(story);
    count();
  });
});
let frame = 0;

// ---- What the writer does ----

const editor = new Editor({
  busy: () => writer.busy,
  canRedo: () => story.canRedo,
  onType(text) {
    if (story.type(text)) touched(false);
  },
  onToken(index) {
    const piece = story.pieces()[index];
    if (piece?.id === undefined) return;
    alternatives.open(index, piece, editor.reading.span(index), writer.knows(piece));
  },
  command: (name) => commands[name](),
});
const alternatives = new Alternatives(
  (index, choice) => stopped(() => {
    const pieces = story.pieces();
    if (pieces[index] !== alternatives.piece) return; // another text stands there now
    const { top, vocabulary } = pieces[index];
    story.cutAt(index, [pieceOf({ ...choice, top, vocabulary }, pieces.slice(0, index))]);
    touched();
    write();
  }),
  (index, action, by) => {
    if (action === "beside") {
      const span = editor.reading.span(index);
      const step = span && editor.reading.beside(span, by < 0 ? "back" : "on", false);
      if (step) editor.hooks.onToken(Number(step.dataset.i));
      return;
    }
    stopped(() => {
      const pieces = story.pieces();
      if (pieces[index] !== alternatives.piece) return;
      if (action === "edit") editor.edit(textOf(pieces.slice(0, index)).length);
      else {
        story.cutAt(index, []);
        touched();
        write();
      }
    });
  },
);
const drafts = new Drafts((version) => stopped(() => {
  if (version && story.versions.get(version.id) === version) story.goToEnd(version.id);
  editor.reading.element.focus({ preventScroll: true });
  touched();
}));

/**
 * Stop what is being written, and act at the moment when nothing is: others may be waiting too, and
 * begin a run of their own.
 * @param {() => void} act
 */
async function stopped(act) {
  while (running) {
    writer.stop();
    await running;
  }
  act();
}

/** @type {Promise<void> | null} a run, until the story is drawn and about to be kept */
let running = null;
/** @param {number} n versions @param {() => void} back where to go if nothing is written */
function write(n = 1, back = story.mark()) {
  if (running || editor.composing) return;
  drafts.hide();
  notice("");
  several = n > 1;
  unspoken = 0;
  editor.follows = true;
  running = run(n, back).finally(() => {
    running = null;
  });
}
async function run(n, back) {
  if (editor.editing) editor.read(story);
  const versions = await writer.write(story, n);
  if (!versions.length) {
    back();
    drafts.hide();
  }
  if (!several && versions[0]) speak(textOf(versions[0].pieces), true);
  if (several && versions.length) {
    drafts.update();
    drafts.box.querySelector("button").focus();
  }
  several = false;
  touched();
  if (editor.follows) editor.toNewest(); // the last token may have begun a line
}

const step = (move) => () => {
  if (writer.busy || editor.composing || !story[move]()) return;
  if (editor.editing) editor.read(story);
  touched();
};
const commands = {
  continue: () => write(),
  three: () => write(3),
  stop: () => writer.stop(),
  rewrite() {
    if (story.version.made !== "run" || running || editor.composing) return;
    const back = story.mark();
    story.go(story.version.parent);
    write(1, back);
  },
  undo: step("undo"),
  redo: step("redo"),
  before: () => sibling(-1),
  after: () => sibling(1),
  read: () => editor.read(story),
  mode: () => buttons(),
};
function sibling(by) {
  if (!writer.busy && story.sibling(by)) touched();
}
function go(id) {
  const shown = story;
  stopped(() => {
    if (story !== shown || !story.versions.has(id)) return;
    story.goToEnd(id);
    touched();
  });
}

/** Something changed: draw, and keep it. @param {boolean} [draw] */
function touched(draw = true) {
  if (draw) {
    if (editor.editing) editor.read(story);
    else editor.show(story);
  }
  // A token that had the focus may be gone.
  if (document.activeElement === document.body) editor.reading.element.focus({ preventScroll: true });
  changed = unkept = true;
  clearTimeout(saving);
  saving = setTimeout(save, 400);
  count();
  buttons();
  measure();
  if (!$("tree").hidden) drawTree(story, go);
}
function save() {
  clearTimeout(saving);
  const kept = story; // the notice may outlast it on the desk
  const parted = storage.part(kept);
  unkept = !storage.save(kept);
  if (!unkept) {
    if (parted) {
      $("title").value = kept.title;
      notice(t("別のタブでも書かれていました。こちらは別の作品として残します。"));
    }
    return true;
  }
  notice(t("保存できません。.json に書き出してください。"), t("書き出す"), () => {
    storage.download(kept, "json");
    if (story === kept) discard(); // it is kept there
  });
  return false;
}
/** What changed since the last save is not kept. */
function discard() {
  clearTimeout(saving);
  unkept = false;
}
function count() {
  document.title = `${storage.nameOf(story) || t("無題")}｜${t("原稿")}`;
  const characters = [...story.text.replace(/\s/g, "")].length;
  $("count").textContent = t("{} 字・{} 枚", characters.toLocaleString(), (characters / 400).toFixed(1));
}
function buttons() {
  const { busy } = writer;
  $("continue").hidden = busy;
  $("stop").hidden = !busy;
  $("rewrite").disabled = busy || story.version.made !== "run";
  $("three").disabled = busy;
  $("undo").disabled = busy || story.version.parent === null;
  $("redo").disabled = busy || !story.canRedo;
  $("mode").textContent = editor.editing ? t("読む") : t("書く");
  $("mode").disabled = busy;
}

for (const name of ["continue", "stop", "rewrite", "three", "undo", "redo"]) {
  $(name).onclick = () => commands[name]();
}
$("mode").onclick = () => (editor.editing ? editor.read(story) : editor.edit(editor.area.value.length));
$("direction").onclick = () => settings.look("vertical", !settings.looks.vertical);
$("colour").onclick = () => settings.look("colour", (settings.looks.colour + 1) % COLOURS.length);
$("title").oninput = () => {
  story.title = $("title").value;
  touched(false);
};
$("open-tree").onclick = () => {
  $("tree").hidden = !$("tree").hidden;
  $("open-tree").ariaExpanded = String(!$("tree").hidden);
  drawTree(story, go);
};

// ---- Works and settings ----

/**
 * Nothing is being written. What cannot be kept stays on the desk.
 * @param {Story} next the work that lies there from now on
 * @returns {boolean} whether it does
 */
function lay(next) {
  if (unkept && !save()) return false;
  drafts.hide();
  alternatives.close(false);
  story = next;
  storage.write("open", story.id);
  changed = false;
  $("title").value = story.title;
  editor.lay(story.text);
  if (story.pieces().some((piece) => piece.by === "model")) editor.read(story);
  else editor.edit(story.text.length);
  // After a reload keys find the sheet.
  if (document.activeElement === document.body) editor.area.focus({ preventScroll: true });
  count();
  buttons();
  measure();
  drawTree(story, go);
  return true;
}
/** @param {string} id of a work in this browser @param {boolean} [keep] what lies on the desk */
function openWork(id, keep = true) {
  $("settings").close();
  stopped(() => {
    if (unkept && keep && !save()) return; // it may be the same work
    const next = storage.load(id);
    if (!next) return notice(t("この作品は読み込めません。"));
    discard();
    lay(next);
  });
}
function drawWorks() {
  $("works").replaceChildren(...storage.works().map(({ id, title }) => {
    const name = title || t("無題");
    const open = make("button", { textContent: name, onclick: () => openWork(id) });
    if (id === story.id) open.ariaCurrent = "true";
    const remove = make("button", { className: "quiet", textContent: t("消す"), onclick() {
      if (!confirm(t("「{}」を消しますか。", name))) return;
      const act = () => {
        storage.remove(id);
        if (id === story.id) {
          discard(); // or it would come back
          lay(new Story());
        }
        drawWorks();
      };
      if (id === story.id) stopped(act);
      else act();
    } });
    return make("li", {}, open, remove);
  }));
}
$("open-settings").onclick = () => {
  if (unkept) save();
  drawWorks();
  $("settings").showModal();
};
$("new").onclick = () => {
  $("settings").close();
  stopped(() => lay(new Story()));
};
$("import").onclick = () => $("file").click();
$("file").onchange = async () => {
  const [file] = $("file").files;
  const next = file && await storage.open(file);
  $("file").value = "";
  $("settings").close();
  if (!next) return notice(t("この作品は読み込めません。"));
  stopped(() => {
    if (lay(next)) save();
  });
};
for (const kind of ["txt", "json"]) {
  $(`export-${kind}`).onclick = () => {
    storage.download(story, kind);
    changed = false;
  };
}
for (const [id, write] of [["copy-curl", asCurl], ["copy-python", asPython]]) {
  $(id).onclick = async () => {
    const done = writer.request
      && await navigator.clipboard?.writeText(write(writer.request)).then(() => true, () => false);
    $("settings").close();
    notice(done ? t("コピーしました") : writer.request ? write(writer.request) : t("まだ何も送っていません。"));
  };
}
const openTokens = tokensView(api);
$("open-tokens").onclick = () => {
  $("settings").close();
  openTokens([...story.text].slice(-200).join("")); // no half of a pair
};

function look() {
  const { vertical, grid, colour, size, theme, language } = settings.looks;
  if (root.lang !== language || !$("keys").childElementCount) speakLanguage(language);
  root.dataset.theme = theme !== "auto" ? theme : dark.matches ? "dark" : "paper";
  root.classList.toggle("vertical", vertical);
  root.classList.toggle("squares", grid);
  COLOURS.forEach((name, i) => name && root.classList.toggle(name, i === colour));
  root.style.setProperty("--size", `${size}px`);
  $("direction").textContent = t(vertical ? "横書き" : "縦書き");
  $("colour").textContent = t(["色なし", "意外さ", "書き手"][colour]);
  const words = [[], ["ありそう", "", "", "", "意外"], ["自分", "モデル"]][colour];
  $("legend").hidden = !words.length;
  $("legend").replaceChildren(...words.map((word, i) => make("span", {
    className: colour === 1 ? `t s${i}` : "mw"[i], textContent: t(word) || "　" })));
  if (!editor.editing) editor.show(story);
  else editor.mirror();
  editor.toNewest();
}
function speakLanguage(language) {
  setLanguage(language);
  const keys = { "Ctrl / ⌘ + Enter": "続ける", "Ctrl + Shift + Enter": "三案", Esc: "止める・閉じる", "← →": "枝を移る",
    "↑ ↓ Enter": "言葉を選ぶ", F2: "手で書く", "Ctrl + Z / Y": "戻す・進む" };
  $("keys").replaceChildren(...Object.entries(keys).flatMap(([key, what]) =>
    [make("dt", { textContent: key }), make("dd", { textContent: t(what) })]));
  drawWorks();
  count();
  writer.tell({ error: null });
}
settings.addEventListener("look", look);
dark.addEventListener("change", look);
addEventListener("resize", () => editor.pages());
addEventListener("storage", ({ key }) => {
  if (!key?.endsWith(`work:${story.id}`)) return;
  notice(t("別のタブでこの作品が変わりました。"), t("読み直す"), () => openWork(story.id, false));
});
addEventListener("beforeunload", (event) => {
  const kept = !unkept || save();
  if (writer.busy || !kept || (changed && settings.looks.ask)) event.preventDefault();
});
addEventListener("pagehide", () => (unkept || writer.busy) && save());
addEventListener("keydown", (event) => { // wherever the focus is
  const { key, ctrlKey, metaKey, shiftKey, target } = event;
  if (event.isComposing || event.keyCode === 229 || target.closest("dialog")) return;
  if (key === "Escape") writer.stop();
  else if (key === "Enter" && (ctrlKey || metaKey)) {
    event.preventDefault();
    commands[shiftKey ? "three" : "continue"]();
  }
});

look();
lay(story);
writer.meetModel().catch(fail);

/** The one line in which the writer is told something, and what a request has to wait for. */

import { t } from "./i18n.js";
import * as storage from "./manuscript/storage.js";

const $ = (id) => document.getElementById(id);

/** @param {string} text "" for none @param {string} [action] @param {() => void} [run] */
export function notice(text, action = "", run = () => {}) {
  const [button, close] = $("notice").querySelectorAll("button");
  $("notice").hidden = !text;
  $("notice").querySelector("span").textContent = text;
  button.hidden = !action;
  button.textContent = action;
  button.onclick = () => {
    notice("");
    run();
  };
  close.onclick = () => notice("");
}

/** A field for the key; the request goes on when it is given. @returns {Promise<void>} */
export function askKey() {
  const dialog = $("key");
  if (!dialog.open) {
    dialog.returnValue = "";
    $("key-field").value = "";
    dialog.showModal();
  }
  return new Promise((resolve, reject) => {
    dialog.addEventListener("close", () => {
      if (!dialog.returnValue) return reject(new DOMException("", "AbortError"));
      storage.setKey($("key-field").value.trim());
      resolve();
    }, { once: true });
  });
}

let patience = new AbortController(); // of all that wait: there is one notice for them
/**
 * The server says when to come again.
 * @param {number} seconds @param {string} code why @param {AbortSignal} [signal]
 */
export async function wait(seconds, code, signal) {
  const signals = [patience.signal, ...(signal ? [signal] : [])];
  for (let left = seconds; left > 0 && !signals.some(({ aborted }) => aborted); left--) {
    const text = code === "loading" ? t("モデルを読み込んでいます。{} 秒後にもう一度試します。", left)
      : code === "stopping" ? t("サーバーが止まるところです。{} 秒後にもう一度試します。", left)
      : t("混んでいます。{} 秒後にもう一度送ります。", left);
    notice(text, t("やめる"), () => {
      patience.abort();
      patience = new AbortController();
    });
    await new Promise((resolve) => {
      setTimeout(resolve, 1000);
      signals.forEach((each) => each.addEventListener("abort", resolve, { once: true }));
    });
  }
  notice("");
  signals.forEach((each) => each.throwIfAborted());
}

/** Japanese is what the page is written in; English stands here, by the Japanese. */

const ENGLISH = {
  枝: "Tree", 題名: "Title", 無題: "Untitled", 設定: "Settings", 原稿: "Manuscript", 読む: "Read", 書く: "Write",
  "書き出しを、ここに。": "Begin here, in Japanese.", 三案: "Three drafts", 閉じる: "Close", 続ける: "Continue",
  止める: "Stop", 書き直す: "Rewrite", 戻す: "Undo", 進む: "Redo", 文脈: "context", 別の言葉: "Other words",
  ここから書き直す: "Rewrite from here", 手で直す: "Edit by hand", 作品: "Works", 新しい作品: "New", 読み込む: "Import",
  "作品はこのブラウザの中だけに保存されます。文章が渡るのはこのページを出したサーバーだけで、ほかのどこへも送られません。":
    "Works are kept in this browser only. Text goes to the server that gave you this page, and nowhere else.",
  書き方: "Writing", "ここで止まる文字列（一行に一つ）": "Stop at these strings (one a line)", 同じ種で: "Same seed", 種: "Seed",
  "文脈が足りなくなったら、自動的にはじめの方を省く": "When the context is short, let the model skip the beginning",
  既定に戻す: "Defaults", "curl としてコピー": "Copy as curl", "Python としてコピー": "Copy as Python", 見た目: "Looks",
  "原稿用紙（20×20）": "Squared paper (20×20)", 文字の大きさ: "Size", 紙の色: "Paper", 自動: "Automatic", 生成り: "Cream", 白: "White",
  夜: "Night", 書きかけのまま離れるときに確かめる: "Ask before leaving", 道具: "Tools", トークンを見る: "Look at tokens",
  トークン: "Tokens", 文章: "Text", 番号から文章へ: "Ids to text", 鍵: "Key",
  "このサーバーは鍵（API key）を求めています。鍵はこのタブを閉じるまで覚えています。":
    "This server asks for an API key. It is remembered until this tab is closed.",
  開ける: "Open", やめる: "Cancel", 縦書き: "Down", 横書き: "Across", 色なし: "No colour", 意外さ: "Surprise",
  書き手: "Authors", "{} 字・{} 枚": "{} chars · {} sheets", ありそう: "expected", 意外: "surprising", 自分: "mine", モデル: "the model",
  長さ: "Length", 温度: "Temperature", 手堅い: "steady", 奔放: "wild", 反復の抑え: "Repetition", 案: "Draft", これにする: "Take this",
  消す: "Delete", "「{}」を消しますか。": "Delete “{}”?", "{} 番目": "number {} in the queue", 読んでいます: "reading",
  "{} トークン/秒・最初のトークン {} ms": "{} tok/s · first {} ms",
  "保存できません。.json に書き出してください。": "This browser cannot save. Export as .json.", 書き出す: "Export",
  "混んでいます。{} 秒後にもう一度送ります。": "The server is full. Trying again in {} s.", "サーバーにつながりません。": "The server cannot be reached.",
  "モデルを読み込んでいます。{} 秒後にもう一度試します。": "The model is being loaded. Trying again in {} s.",
  "サーバーが止まるところです。{} 秒後にもう一度試します。": "The server is stopping. Trying again in {} s.",
  "途中で切れました。": "The answer broke off.", "まず、はじめの一行を書いてください。": "Write a first line.",
  "文脈がもうすぐいっぱいです。": "The context is nearly full.", "文脈がいっぱいです。": "The context is full.",
  はじめを読ませない: "Skip the beginning", "この作品は読み込めません。": "This is no work of ours.",
  "別のタブでこの作品が変わりました。": "This work was changed in another tab.",
  "別のタブでも書かれていました。こちらは別の作品として残します。": "Another tab wrote in it, too. This one is kept as another work.",
  読み直す: "Reload", コピーしました: "Copied", "まだ何も送っていません。": "Nothing was sent yet.",
  "サーバーは「{}」と答えました。": "The server says: {}", "{} トークン。印は、正規化で形が変わったところ。": "{} tokens. Marked: changed by normalisation.",
  "サーバーのモデルが替わりました。もう一度試してください。": "The server has another model now. Try again.",
  "ほかの語彙で書かれたかもしれないので選べません。": "Perhaps written with another vocabulary: none can be chosen.",
  "番号をならべてください。": "Give ids.", モデルは文章を終えました: "the model ended the text", 言葉を選ぶ: "choose a token", 枝を移る: "other branches",
  止める・閉じる: "stop, close", 手で書く: "edit", 戻す・進む: "undo, redo", 終わり: "end",
};

let language = "ja";

/**
 * @param {string} japanese with {} for each value @param {...(string | number)} values
 * @returns {string} in the language of the page
 */
export function t(japanese, ...values) {
  const text = language === "en" ? ENGLISH[japanese] ?? japanese : japanese;
  return text.replaceAll("{}", () => values.shift());
}

/** @param {"ja" | "en"} name: shows the whole page in it */
export function setLanguage(name) {
  language = name;
  document.documentElement.lang = name;
  for (const element of document.querySelectorAll("[data-t]")) {
    element.dataset.t ||= element.textContent;
    element.textContent = t(element.dataset.t);
  }
  for (const name of ["ariaLabel", "placeholder"]) {
    const attribute = name === "ariaLabel" ? "aria-label" : name;
    for (const element of document.querySelectorAll(`[${attribute}]`)) {
      const original = (element.dataset[name] ??= element.getAttribute(attribute));
      element.setAttribute(attribute, t(original));
    }
  }
}

/** @param {string} tag @param {object} [properties] @param {...(Node | string)} children */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** The server's routes. URLs are relative, so that a proxy may serve the page under any path. */

/** An answer that is no success. */
export class Refused extends Error {
  /** @param {number} status @param {string} message @param {string} [code] */
  constructor(status, message, code = "") {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/**
 * What a stream of server-sent events holds, however the network cuts it.
 * @param {ReadableStream<Uint8Array>} stream
 * @yields {{comment: string} | {data: string}}
 */
export async function* events(stream) {
  let rest = "";
  let data = [];
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      rest += value;
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith(":")) yield { comment: line.slice(1).trim() };
        else if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
        else if (line === "" && data.length) {
          yield { data: data.join("\n") };
          data = [];
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {}); // whoever stops reading frees the server's slot
  }
}

export class Api {
  /**
   * @param {object} hooks
   * @param {() => string} hooks.key  the key, or ""
   * @param {() => Promise<void>} hooks.askKey  asks for it; rejects if the writer gives none
   * @param {(seconds: number, code: string, signal?: AbortSignal) => Promise<void>} hooks.wait
   *   waits until the server may take it; `code` says why it did not
   */
  constructor(hooks) {
    this.hooks = hooks;
  }

  /**
   * Send until it is taken: a key is asked for, a model that loads and a full queue are waited for.
   * @param {string} path @param {object} [body] @param {AbortSignal} [signal]
   * @returns {Promise<Response>}
   */
  async send(path, body, signal) {
    for (;;) {
      const key = this.hooks.key();
      if (/[^\x20-\xff]/.test(key)) { // no header can hold it
        await this.hooks.askKey();
        continue;
      }
      const response = await fetch(path, {
        method: body ? "POST" : "GET",
        headers: {
          ...(body && { "Content-Type": "application/json" }),
          ...(key && { Authorization: `Bearer ${key}` }),
        },
        body: body && JSON.stringify(body),
        signal,
      });
      if (response.ok) return response;
      const { status } = response;
      const { message = `HTTP ${status}`, code = "" } =
        (await response.json().catch(() => null))?.error ?? {};
      if (status === 401) {
        if (this.hooks.key() === key) await this.hooks.askKey(); // or it was given meanwhile
      } else if (status === 429 || (status === 503 && response.headers.has("Retry-After"))) {
        await this.hooks.wait(Number(response.headers.get("Retry-After")) || 1, code, signal);
      } else throw new Refused(status, message, code);
    }
  }

  /** @param {string} path @param {object} [body] @param {AbortSignal} [signal] @returns {Promise<any>} */
  async json(path, body, signal) {
    return (await this.send(path, body, signal)).json();
  }

  /** @param {AbortSignal} [signal] @returns {Promise<any[]>} see `ModelInfo` in /openapi.json */
  async models(signal) {
    return (await this.json("v1/models", undefined, signal)).data;
  }

  /** @param {string} text @param {AbortSignal} [signal] @returns {Promise<any>} */
  tokenize(text, signal) {
    return this.json("tokenize", { prompt: text }, signal);
  }

  /** @param {number[]} tokens @returns {Promise<string>} */
  async detokenize(tokens) {
    return (await this.json("detokenize", { tokens })).prompt;
  }

  /**
   * @param {object} body of `/v1/completions` @param {AbortSignal} signal
   * @yields {{waiting: number} | {choices: any[], usage?: any}}
   */
  async *complete(body, signal) {
    const response = await this.send("v1/completions", body, signal);
    for await (const event of events(response.body)) {
      if ("comment" in event) {
        const found = /^waiting (\d+)/.exec(event.comment);
        if (found) yield { waiting: Number(found[1]) };
      } else if (event.data === "[DONE]") return;
      else {
        const chunk = JSON.parse(event.data);
        if (chunk.error) throw new Refused(500, chunk.error.message);
        yield chunk;
      }
    }
    throw new Refused(0, "the stream broke off"); // without [DONE] the text is not whole
  }
}

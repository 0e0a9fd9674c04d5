// SPDX-License-Identifier: Apache-2.0
// The server's API: server-sent events over fetch, and errors in words.

// Takes text in pieces cut anywhere and hands over the data of each event (WHATWG HTML, 9.2.6).
class EventParser {
    constructor(onData) {
        this.onData = onData;
        this.line = "";
        this.data = [];
        this.skipNewline = false; // the last piece ended in CR
    }

    push(piece) {
        let text = piece;
        if (this.skipNewline && text.startsWith("\n")) {
            text = text.slice(1);
        }
        if (piece !== "") {
            this.skipNewline = text.endsWith("\r");
        }
        const lines = text.split(/\r\n|\r|\n/);
        lines[0] = this.line + lines[0];
        this.line = lines.pop();
        lines.forEach((line) => this.take(line));
    }

    take(line) {
        if (line === "") {
            if (this.data.length > 0) {
                const data = this.data.join("\n");
                this.data = [];
                this.onData(data);
            }
        } else if (line.startsWith("data:")) {
            this.data.push(line.slice(line[5] === " " ? 6 : 5));
        } // comments, and fields that do not matter here
    }
}

// kind: "network" (no answer, or it broke off), "http" (a status), "answer" (an error within)
export class ApiError extends Error {
    constructor(kind, message, { status = 0, retryAfter = 0 } = {}) {
        super(message);
        this.kind = kind;
        this.status = status;
        this.retryAfter = retryAfter;
    }
}

const UNREACHABLE = "The server cannot be reached. It may be restarting, or the network is down.";
const BROKEN = "The connection broke before the answer was complete.";

function wordsFor(status, detail, retryAfter) {
    const wait = retryAfter > 0 ? ` Try again in ${retryAfter} s.` : " Try again in a moment.";
    const words = {
        401: "The server asks for an API key.",
        403: "The server refuses this request.",
        404: "The server does not know this route or this model.",
        413: "The conversation is too large for the server.",
        429: `The server is busy.${wait}`,
        503: `The server is not ready.${wait}`,
    }[status] ?? (status >= 500 ? "The server failed." : "The server did not accept the request.");
    return detail ? `${words} It says: ${detail}` : words;
}

async function errorOf(response) {
    let detail = "";
    try {
        const error = JSON.parse((await response.text()).slice(0, 20000)).error;
        detail = typeof error === "string" ? error : error?.message ?? "";
    } catch {
        // no JSON: the status says it
    }
    const seconds = parseInt(response.headers.get("retry-after") ?? "", 10);
    const retryAfter = seconds > 0 ? seconds : 0;
    const message = wordsFor(response.status, String(detail), retryAfter);
    return new ApiError("http", message, { status: response.status, retryAfter });
}

async function request(path, options, key) {
    const headers = { ...options.headers };
    if (key) {
        headers.Authorization = `Bearer ${key}`;
    }
    let response;
    try {
        response = await fetch(path, { ...options, headers, cache: "no-store", redirect: "error" });
    } catch (error) {
        if (error.name === "AbortError") {
            throw error;
        }
        throw new ApiError("network", UNREACHABLE);
    }
    if (!response.ok) {
        throw await errorOf(response);
    }
    return response;
}

export async function listModels(key) {
    const response = await request("v1/models", {}, key);
    const { data } = await response.json();
    return Array.isArray(data) ? data.map((model) => String(model.id)) : [];
}

function takeCalls(calls, deltas) {
    for (const delta of deltas) {
        const index = Number.isInteger(delta.index) && delta.index >= 0 && delta.index < 1000
            ? delta.index : Math.max(0, calls.length - 1);
        while (calls.length <= index) {
            calls.push({ id: "", name: "", arguments: "" });
        }
        const call = calls[index];
        call.id ||= delta.id ?? "";
        call.name += delta.function?.name ?? "";
        call.arguments += delta.function?.arguments ?? "";
    }
}

// Adds what one chunk brings to the message. Returns whether it brought part of the answer.
function takeChunk(message, chunk) {
    if (chunk.error) {
        const words = typeof chunk.error === "string" ? chunk.error : chunk.error.message;
        throw new ApiError("answer", `The server could not finish the answer. It says: ${words}`);
    }
    if (chunk.usage) {
        message.promptTokens = chunk.usage.prompt_tokens;
        message.cachedTokens = chunk.usage.prompt_tokens_details?.cached_tokens ?? 0;
        message.tokens = chunk.usage.completion_tokens;
    }
    message.model = chunk.model ?? message.model;
    const choice = chunk.choices?.[0];
    if (!choice) {
        return false;
    }
    const { delta = {} } = choice;
    const reasoning = delta.reasoning_content ?? delta.reasoning ?? "";
    const content = delta.content ?? "";
    message.reasoning += reasoning;
    message.content += content;
    if (Array.isArray(delta.tool_calls)) {
        takeCalls(message.toolCalls, delta.tool_calls);
    }
    message.finish = choice.finish_reason ?? message.finish;
    return reasoning !== "" || content !== "" || Array.isArray(delta.tool_calls);
}

// Streams the answer to body into message, calling onDelta() after each chunk that adds to it.
// Throws ApiError, or AbortError when the signal stops it; message keeps what had come.
export async function streamChat(body, message, { key, signal, onDelta }) {
    const begun = performance.now();
    const response = await request("v1/chat/completions", {
        method: "POST", signal, body: JSON.stringify(body),
        headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
    }, key);
    let done = false;
    let first = 0;
    const parser = new EventParser((data) => {
        if (data === "[DONE]") {
            done = true;
        } else if (!done && takeChunk(message, JSON.parse(data))) {
            const now = performance.now();
            first ||= now;
            message.firstMs = first - begun;
            message.answerMs = now - first;
            if (message.content !== "" || message.toolCalls.length > 0) {
                message.thoughtMs ??= message.reasoning === "" ? undefined : now - first;
            }
            onDelta();
        }
    });
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    try {
        for (;;) {
            const { value, done: ended } = await reader.read();
            parser.push(ended ? decoder.decode() : decoder.decode(value, { stream: true }));
            if (ended || done) {
                break;
            }
        }
    } catch (error) {
        if (error instanceof ApiError || error.name === "AbortError") {
            throw error;
        }
        throw new ApiError("network", error instanceof SyntaxError
            ? "The server sent something this page does not understand." : BROKEN);
    } finally {
        reader.cancel().catch(() => {});
    }
    if (!done) {
        throw new ApiError("network", BROKEN);
    }
}

// SPDX-License-Identifier: Apache-2.0
// Messages as DOM nodes. What a button of theirs does is the caller's: `act` has a function each.
import { GrowingText } from "./markdown.js";

const MIN_ANSWER_MS = 20; // what came faster came in one piece, and says nothing of the speed

export function element(tag, className = "", text = "") {
    const made = document.createElement(tag);
    made.className = className;
    made.textContent = text;
    return made;
}

export function button(text, onClick, className = "quiet") {
    const made = element("button", className, text);
    made.type = "button";
    made.addEventListener("click", onClick);
    return made;
}

export function iconButton(name, label, onClick) {
    const made = button("", onClick, "icon");
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
    svg.setAttribute("aria-hidden", "true");
    use.setAttribute("href", `#i-${name}`);
    svg.append(use);
    made.append(svg);
    made.setAttribute("aria-label", label);
    return made;
}

// Over plain HTTP from elsewhere there is no navigator.clipboard.
async function copyText(text) {
    if (navigator.clipboard) {
        return navigator.clipboard.writeText(text);
    }
    const area = element("textarea", "unseen");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    return undefined;
}

export async function copyFrom(pressed, text) {
    try {
        await copyText(text);
        pressed.textContent = "Copied";
    } catch {
        pressed.textContent = "Not copied";
    }
    setTimeout(() => { pressed.textContent = "Copy"; }, 1500);
}

function pretty(json) {
    try {
        return JSON.stringify(JSON.parse(json), null, 2);
    } catch {
        return json; // not complete, or no JSON
    }
}

function callView(call) {
    const box = element("details", "call");
    const summary = element("summary", "", "Calls ");
    summary.append(element("code", "", call.name));
    const pre = element("pre");
    pre.append(element("code", "", pretty(call.arguments)));
    box.open = true;
    box.append(summary, pre);
    return box;
}

function seconds(ms) {
    return ms < 9950 ? (ms / 1000).toFixed(1) : String(Math.round(ms / 1000));
}

// "34 tokens, 42 tokens/s, first after 0.2 s"
function figures(message) {
    const parts = [];
    if (message.tokens !== undefined) {
        parts.push(message.tokens === 1 ? "1 token" : `${message.tokens} tokens`);
        if (message.tokens > 1 && message.answerMs >= MIN_ANSWER_MS) {
            const speed = (message.tokens - 1) / message.answerMs * 1000;
            parts.push(`${speed < 10 ? speed.toFixed(1) : Math.round(speed)} tokens/s`);
        }
    }
    if (message.firstMs !== undefined) {
        parts.push(`first after ${seconds(message.firstMs)} s`);
    }
    if (message.promptTokens !== undefined) {
        const cached = message.cachedTokens > 0 ? ` (${message.cachedTokens} cached)` : "";
        parts.push(`prompt ${message.promptTokens}${cached}`);
    }
    const ends = { length: "cut at the longest answer", stopped: "stopped" };
    if (ends[message.finish]) {
        parts.push(ends[message.finish]);
    }
    return parts.join(" · ");
}

// An answer, which may still grow. update() after the message changed, finish() when it is whole.
export class AnswerView {
    constructor(message, act) {
        this.message = message;
        this.act = act;
        this.node = element("article", "message assistant");
        this.node.setAttribute("aria-label", "Answer");
        this.fold = element("details", "reasoning");
        this.summary = element("summary");
        const thought = element("div", "text");
        this.fold.append(this.summary, thought);
        this.text = element("div", "text");
        this.calls = element("div", "calls");
        this.foot = element("div", "foot");
        this.node.append(this.fold, this.text, this.calls, this.foot);
        this.thought = new GrowingText(thought);
        this.answer = new GrowingText(this.text);
        this.node.classList.add("running");
        this.node.setAttribute("aria-busy", "true");
        this.update();
    }

    update() {
        const { message } = this;
        const thinking = message.reasoning !== "" && message.thoughtMs === undefined &&
            this.node.classList.contains("running");
        this.fold.hidden = message.reasoning === "";
        this.fold.classList.toggle("thinking", thinking);
        this.summary.textContent = thinking ? "Thinking …" :
            `Thought for ${seconds(message.thoughtMs ?? message.answerMs ?? 0)} s`;
        this.thought.update(message.reasoning);
        this.answer.update(message.content);
        if (this.calls.childElementCount !== message.toolCalls.length) {
            this.calls.replaceChildren(...message.toolCalls.map(callView));
        }
    }

    // last: the conversation ends with it.
    finish(last) {
        const { message, act } = this;
        this.node.classList.remove("running");
        this.node.removeAttribute("aria-busy");
        this.update();
        this.foot.replaceChildren();
        if (message.error) {
            const alert = element("div", "problem", message.error);
            alert.setAttribute("role", "alert");
            this.foot.append(alert);
        }
        this.foot.append(element("span", "figures", figures(message)));
        if (message.content !== "") {
            const copy = button("Copy", () => copyFrom(copy, message.content));
            this.foot.append(copy);
        }
        if (last) {
            this.foot.append(button(message.error ? "Try again" : "Regenerate", act.regenerate));
        }
        if (last && message.toolCalls.length > 0 && !message.error) {
            this.foot.append(resultForm(message, act.giveResults));
        }
    }
}

// Where what the called functions return is written.
function resultForm(message, giveResults) {
    const form = element("form", "results");
    const areas = message.toolCalls.map((call) => {
        const label = element("label", "", `What ${call.name} returns`);
        const area = element("textarea", "code");
        area.rows = 2;
        label.append(area);
        form.append(label);
        return area;
    });
    const send = element("button", "main", "Send results");
    send.type = "submit";
    form.append(send);
    form.addEventListener("submit", (event) => {
        event.preventDefault();
        giveResults(areas.map((area) => area.value));
    });
    return form;
}

function editor(message, act, done) {
    const form = element("form", "editor");
    const area = element("textarea");
    area.value = message.content;
    area.rows = Math.min(12, message.content.split("\n").length + 1);
    area.setAttribute("aria-label", "Edit your message");
    const send = element("button", "main", "Send");
    send.type = "submit";
    const row = element("div", "row");
    row.append(button("Cancel", done), send);
    form.append(area, row);
    form.addEventListener("submit", (event) => {
        event.preventDefault();
        if (area.value.trim() !== "") {
            act.edit(message, area.value);
        }
    });
    area.addEventListener("keydown", (event) => {
        if (event.key === "Escape") {
            event.stopPropagation();
            done();
        } else if (isSend(event)) {
            event.preventDefault();
            form.requestSubmit();
        }
    });
    return form;
}

export function isSend(event) {
    return event.key === "Enter" && !event.shiftKey && !event.isComposing;
}

export function userView(message, act) {
    const node = element("article", "message user");
    node.setAttribute("aria-label", "You");
    const foot = element("div", "foot");
    const edit = button("Edit", () => {
        const form = editor(message, act, () => {
            form.replaceWith(text, foot);
            edit.focus();
        });
        foot.remove();
        text.replaceWith(form);
        form.querySelector("textarea").focus();
    });
    const copy = button("Copy", () => copyFrom(copy, message.content));
    const text = element("div", "text", message.content);
    foot.append(copy, edit);
    node.append(text, foot);
    return node;
}

export function resultView(message) {
    const node = element("details", "message call");
    const summary = element("summary", "", "Result of ");
    summary.append(element("code", "", message.name));
    const pre = element("pre");
    pre.append(element("code", "", pretty(message.content)));
    node.append(summary, pre);
    return node;
}

// SPDX-License-Identifier: Apache-2.0
// Markdown, as models write it, to DOM nodes. Text only ever becomes text nodes, and an attribute
// is set only for a link whose scheme is known, so nothing in an answer can become markup.
//
// Two steps: parseBlocks() takes lines apart into blocks (a tree), buildBlock() makes nodes of one
// block. Left out on purpose: raw HTML (shown as it is written), code by indentation (models indent
// for other reasons), link definitions, pictures (shown as links; the page loads nothing foreign).
import { colour } from "./highlight.js";

const MAX_DEPTH = 16; // of quotes and lists within each other
const MAX_INLINE_DEPTH = 32; // of emphasis within emphasis
const FENCE = /^( {0,3})(`{3,}|~{3,})[ \t]*(.*?)[ \t]*$/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*?))??(?:[ \t]+#+)?[ \t]*$/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:([ \t]+)(.*)|[ \t]*)$/;
const UNDERLINE = /^ {0,3}(={2,}|-{2,})[ \t]*$/;
const DELIMITER_ROW = /^ {0,3}\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;
const MATH_OPEN = /^ {0,3}(\$\$|\\\[)/;

const isBlank = (line) => /^[ \t]*$/.test(line);
const indentOf = (line) => line.match(/^ */)[0].length;
const expandTabs = (line) => line.replace(/^[ \t]+/, (space) => space.replace(/\t/g, "    "));

function openFence(line) {
    const match = FENCE.exec(line);
    return match && !(match[2][0] === "`" && match[3].includes("`")) ? match : null;
}

function cellsOf(line) {
    const inner = line.trim().replace(/^\|/, "").replace(/(^|[^\\])\|$/, "$1");
    return inner.split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/\\\|/g, "|"));
}

function startsTable(lines, i) {
    return i + 1 < lines.length && lines[i].includes("|") && lines[i + 1].includes("-") &&
        DELIMITER_ROW.test(lines[i + 1]) &&
        cellsOf(lines[i]).length === cellsOf(lines[i + 1]).length;
}

// Whether the line ends a paragraph that stands above it.
function interrupts(lines, i) {
    const line = lines[i];
    const item = ITEM.exec(line);
    return openFence(line) !== null || HEADING.test(line) || RULE.test(line) || QUOTE.test(line) ||
        openMath(line) !== null || startsTable(lines, i) ||
        (item !== null && item[4] !== undefined &&
            (!/^\d/.test(item[2]) || /^1[.)]/.test(item[2])));
}

// Each of these takes lines from i on and returns [block, next i].
function takeFence(lines, i) {
    const [, indent, fence, info] = openFence(lines[i]);
    const close = new RegExp(`^ {0,3}\\${fence[0]}{${fence.length},}[ \\t]*$`);
    const strip = new RegExp(`^ {0,${indent.length}}`);
    const text = [];
    let next = i + 1;
    let closed = false;
    while (next < lines.length && !closed) {
        closed = close.test(lines[next]);
        if (!closed) {
            text.push(lines[next].replace(strip, ""));
        }
        next++;
    }
    const language = info.split(/\s/)[0];
    return [{ kind: "code", language, text: text.join("\n"), closed }, next];
}

// What follows the opening sign of a formula that is a block, or null where it is part of a text.
// The line alone decides, so that what comes later changes nothing before it.
function openMath(line) {
    const open = MATH_OPEN.exec(line);
    if (!open) {
        return null;
    }
    const close = open[1] === "$$" ? "$$" : "\\]";
    const rest = line.trim().slice(2);
    const end = rest.indexOf(close);
    return end < 0 || end + 2 === rest.length ? { close, rest } : null;
}

// Up to its closing sign, a blank line or the end.
function takeMath(lines, i) {
    const { close, rest } = openMath(lines[i]);
    const text = [];
    let line = rest;
    let next = i + 1;
    while (!line.includes(close) && next < lines.length && !isBlank(lines[next])) {
        text.push(line);
        line = lines[next++];
    }
    text.push(line.replace(close, ""));
    return [{ kind: "math", text: text.join("\n").trim() }, next];
}

function takeQuote(lines, i, depth) {
    const inner = [];
    let next = i;
    while (next < lines.length) {
        if (QUOTE.test(lines[next])) {
            inner.push(lines[next].replace(QUOTE, ""));
        } else if (next > i && !isBlank(lines[next]) && !isBlank(inner[inner.length - 1]) &&
                   !interrupts(lines, next)) {
            inner.push(lines[next]);
        } else {
            break;
        }
        next++;
    }
    return [{ kind: "quote", blocks: parseBlocks(inner, depth + 1) }, next];
}

const sameList = (a, b) => (/\d/.test(a) ? /\d/.test(b) && a.slice(-1) === b.slice(-1) : a === b);

// One item: its lines without their indent. Ends before a line that belongs to no item of its own.
function takeItem(lines, i) {
    const [, indent, marker, gap = " ", first = ""] = ITEM.exec(lines[i]);
    const content = indent.length + marker.length + (gap.length > 4 ? 1 : gap.length);
    const child = Math.min(content, indent.length + 2); // models indent by two under "1."
    const inner = [first];
    let next = i + 1;
    while (next < lines.length) {
        const line = lines[next];
        const deep = indentOf(line);
        if (isBlank(line)) {
            let after = next;
            while (after < lines.length && isBlank(lines[after])) {
                after++;
            }
            if (after === lines.length || indentOf(lines[after]) < child) {
                break;
            }
            inner.push(""); // one for all of them
            next = after - 1;
        } else if (deep >= child) {
            inner.push(line.slice(Math.min(deep, content)));
        } else if (!isBlank(inner[inner.length - 1]) && !interrupts(lines, next) &&
                   !ITEM.test(line)) {
            inner.push(line);
        } else {
            break;
        }
        next++;
    }
    return [inner, next];
}

function takeList(lines, i, depth) {
    const marker = ITEM.exec(lines[i])[2];
    const list = {
        kind: "list", ordered: /\d/.test(marker), start: parseInt(marker, 10), loose: false,
        items: [],
    };
    let next = i;
    while (next < lines.length) {
        const [inner, end] = takeItem(lines, next);
        const blocks = parseBlocks(inner, depth + 1);
        const task = /^\[([ xX])\][ \t]+/.exec(inner[0]);
        if (task && blocks.length > 0 && blocks[0].kind === "paragraph") {
            blocks[0].text = blocks[0].text.slice(task[0].length);
            list.items.push({ blocks, task: task[1] !== " " });
        } else {
            list.items.push({ blocks });
        }
        list.loose ||= blocks.some((b, k) => k > 0 && b.kind === "paragraph");
        next = end;
        let after = end;
        while (after < lines.length && isBlank(lines[after])) {
            after++;
        }
        const item = after < lines.length ? ITEM.exec(lines[after]) : null;
        if (!item || RULE.test(lines[after]) || !sameList(marker, item[2])) {
            break;
        }
        list.loose ||= after > end;
        next = after;
    }
    return [list, next];
}

function takeTable(lines, i) {
    const alignment = cellsOf(lines[i + 1]).map((cell) =>
        cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : "");
    const rows = [];
    let next = i + 2;
    while (next < lines.length && !isBlank(lines[next]) &&
           (lines[next].includes("|") || !interrupts(lines, next))) {
        const cells = cellsOf(lines[next]);
        rows.push(alignment.map((_, k) => cells[k] ?? ""));
        next++;
    }
    return [{ kind: "table", alignment, head: cellsOf(lines[i]), rows }, next];
}

function takeParagraph(lines, i) {
    const text = [lines[i].trimStart()];
    let next = i + 1;
    while (next < lines.length && !isBlank(lines[next])) {
        const underline = UNDERLINE.exec(lines[next]);
        if (underline) {
            const level = underline[1][0] === "=" ? 1 : 2;
            return [{ kind: "heading", level, text: text.join("\n").trimEnd() }, next + 1];
        }
        if (interrupts(lines, next)) {
            break;
        }
        text.push(lines[next].trimStart());
        next++;
    }
    return [{ kind: "paragraph", text: text.join("\n").trimEnd() }, next];
}

function takeBlock(lines, i, depth) {
    const line = lines[i];
    const heading = HEADING.exec(line);
    if (openFence(line)) {
        return takeFence(lines, i);
    }
    if (heading) {
        return [{ kind: "heading", level: heading[1].length, text: heading[2] ?? "" }, i + 1];
    }
    if (RULE.test(line)) {
        return [{ kind: "rule" }, i + 1];
    }
    if (openMath(line)) {
        return takeMath(lines, i);
    }
    if (depth < MAX_DEPTH && QUOTE.test(line)) {
        return takeQuote(lines, i, depth);
    }
    if (depth < MAX_DEPTH && ITEM.test(line)) {
        return takeList(lines, i, depth);
    }
    return startsTable(lines, i) ? takeTable(lines, i) : takeParagraph(lines, i);
}

// Blocks in order, each with the number of its first line.
function parseBlocks(lines, depth = 0) {
    const blocks = [];
    let i = 0;
    while (i < lines.length) {
        if (isBlank(lines[i])) {
            i++;
            continue;
        }
        const [block, next] = takeBlock(lines, i, depth);
        block.first = i;
        blocks.push(block);
        i = next;
    }
    return blocks;
}

const linesOf = (text) => text.replace(/\r\n?/g, "\n").split("\n").map(expandTabs);

// ---- Inline text: a list of tokens, in which pairs of delimiters become opens and closes.

const SPECIAL = /[\\`*_~[\]!<&\n$]|https?:\/\//g;
// "](href)", "](<href>)", each perhaps with a title
const HREF = "<([^<>\\n]*)>|((?:[^\\s()\\\\]|\\\\.|\\([^\\s()]*\\))*)";
const LINK_TITLE = `"[^"]*"|'[^']*'|\\([^()]*\\)`;
const LINK_TARGET = new RegExp(`\\]\\(\\s*(?:${HREF})(?:\\s+(?:${LINK_TITLE}))?\\s*\\)`, "y");
const ESCAPABLE = /[!-/:-@[-`{-~]/;
const SPACE = /^\s?$/u;
const PUNCTUATION = /^[\p{P}\p{S}]$/u;
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00a0" };

function safeHref(href) {
    const known = /^(?:https?:\/\/[^\s/]|mailto:[^\s])[^\s\u0000-\u001f\u007f]*$/i;
    return known.test(href) ? href : null;
}

class Inline {
    constructor(text) {
        this.text = text;
        this.at = 0;
        this.tokens = [];
        this.last = null; // of the list of delimiters
        this.order = 0;
        this.brackets = [];
        this.noCode = new Set(); // lengths of backtick runs known not to be closed
    }

    literal(text) {
        const last = this.tokens[this.tokens.length - 1];
        if (last && last.kind === "text") {
            last.text += text;
        } else if (text) {
            this.tokens.push({ kind: "text", text });
        }
    }

    parse() {
        const { text } = this;
        while (this.at < text.length) {
            SPECIAL.lastIndex = this.at;
            const match = SPECIAL.exec(text);
            const end = match ? match.index : text.length;
            this.literal(text.slice(this.at, end));
            this.at = end;
            if (match) {
                this.special(match[0]);
            }
        }
        this.pair(null);
        return this.tokens;
    }

    special(what) {
        const { text, at } = this;
        const known = {
            "\\": () => this.escape(), "`": () => this.code(), "\n": () => this.lineBreak(),
            "*": () => this.delimiter(), "_": () => this.delimiter(), "~": () => this.delimiter(),
            "[": () => this.openBracket(1), "]": () => this.closeBracket(), "<": () => this.angle(),
            "!": () => text[at + 1] === "[" && this.openBracket(2),
            "&": () => this.entity(), "$": () => this.dollar(),
        }[what] ?? (() => this.bareLink());
        if (!known()) {
            this.literal(text[at]);
            this.at = at + 1;
        }
    }

    // Up to a closing sequence, or false. Nothing is looked for that is known to be missing.
    verbatim(kind, from, close) {
        const end = this.noCode.has(close) ? -1 : this.text.indexOf(close, from);
        if (end < 0) {
            this.noCode.add(close);
            return false;
        }
        this.tokens.push({ kind, text: this.text.slice(from, end) });
        this.at = end + close.length;
        return true;
    }

    escape() {
        const next = this.text[this.at + 1];
        if ((next === "(" && this.verbatim("math", this.at + 2, "\\)")) ||
            (next === "[" && this.verbatim("math", this.at + 2, "\\]"))) {
            return true;
        }
        if (next === "\n") {
            this.at++;
            return this.lineBreak();
        }
        if (next === undefined || !ESCAPABLE.test(next)) {
            return false;
        }
        this.literal(next);
        this.at += 2;
        return true;
    }

    code() {
        const { text, at } = this;
        const run = /`+/y;
        run.lastIndex = at;
        const ticks = run.exec(text)[0];
        if (!this.noCode.has(ticks)) {
            const ends = /`+/g;
            ends.lastIndex = at + ticks.length;
            for (let end = ends.exec(text); end; end = ends.exec(text)) {
                if (end[0].length === ticks.length) {
                    const inner = text.slice(at + ticks.length, end.index).replace(/\n/g, " ");
                    const padded = /^ .*[^ ].* $|^ [^ ] $/.test(inner);
                    this.tokens.push({ kind: "code", text: padded ? inner.slice(1, -1) : inner });
                    this.at = end.index + ticks.length;
                    return true;
                }
            }
            this.noCode.add(ticks);
        }
        this.literal(ticks);
        this.at = at + ticks.length;
        return true;
    }

    dollar() {
        if (this.text.startsWith("$$", this.at)) {
            return this.verbatim("math", this.at + 2, "$$");
        }
        // Prices are no formulas: one has a sign only formulas have, and no space at its ends.
        const formula = /\$(?![\s$])([^$\n]{1,400}?)(?<!\s)\$(?![\d$])/y;
        formula.lastIndex = this.at;
        const match = formula.exec(this.text);
        if (!match || !/[\\^_=]|^[A-Za-z]$/.test(match[1])) {
            return false;
        }
        this.tokens.push({ kind: "math", text: match[1] });
        this.at += match[0].length;
        return true;
    }

    // Each line of an answer stays a line: models break them where they mean to.
    lineBreak() {
        const last = this.tokens[this.tokens.length - 1];
        if (last && last.kind === "text") {
            last.text = last.text.replace(/ +$/, "");
        }
        this.tokens.push({ kind: "break" });
        this.at++;
        return true;
    }

    entity() {
        const match = /&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([a-z]{2,4}));/y;
        match.lastIndex = this.at;
        const found = match.exec(this.text);
        if (!found) {
            return false;
        }
        const [, decimal, hex, name] = found;
        const code = name ? 0 : parseInt(decimal ?? hex, decimal ? 10 : 16);
        const bad = code === 0 || code > 0x10ffff || (code >= 0xd800 && code < 0xe000);
        const text = name ? ENTITIES[name] : bad ? "\ufffd" : String.fromCodePoint(code);
        if (text === undefined) {
            return false;
        }
        this.literal(text);
        this.at += found[0].length;
        return true;
    }

    link(href, label) {
        this.tokens.push({ kind: "open", tag: "a", href });
        this.tokens.push({ kind: "text", text: label });
        this.tokens.push({ kind: "close" });
        this.brackets.forEach((bracket) => { bracket.active = false; }); // no link within a link
    }

    angle() {
        const match = /<((?:https?:\/\/|mailto:)[^\s<>]{1,2000}|[\w.+-]{1,64}@[\w.-]{1,255})>/iy;
        match.lastIndex = this.at;
        const found = match.exec(this.text);
        const isAddress = found && !/^[a-z]+:/i.test(found[1]);
        const href = found && safeHref(isAddress ? `mailto:${found[1]}` : found[1]);
        if (!href) {
            return false;
        }
        this.link(href, found[1]);
        this.at += found[0].length;
        return true;
    }

    bareLink() {
        const { text, at } = this;
        if (at > 0 && /[\p{L}\p{N}_]/u.test(text[at - 1])) {
            return false;
        }
        const found = /https?:\/\/[^\s<>"'`|\\\]]{1,2000}/y;
        found.lastIndex = at;
        let href = found.exec(text)?.[0] ?? "";
        for (;;) { // without what ends the sentence, and without a bracket opened before
            const count = (c) => href.split(c).length - 1;
            const shorter = href.replace(/[.,;:!?*_~]+$/, "");
            if (shorter.endsWith(")") && count(")") > count("(")) {
                href = shorter.slice(0, -1);
            } else if (shorter !== href) {
                href = shorter;
            } else {
                break;
            }
        }
        const label = this.brackets.some(({ active }) => active) && text.indexOf("](", at) >= 0;
        if (!safeHref(href) || label) { // of a link that the whole of [..] becomes
            return false;
        }
        this.link(href, href);
        this.at += href.length;
        return true;
    }

    delimiter() {
        const { text, at } = this;
        const run = /\*+|_+|~+/y;
        run.lastIndex = at;
        const mark = run.exec(text)[0];
        const before = at > 0 ? Array.from(text.slice(Math.max(0, at - 2), at)).pop() : "";
        const end = at + mark.length;
        const after = end < text.length ? String.fromCodePoint(text.codePointAt(end)) : "";
        const left = !SPACE.test(after) &&
            (!PUNCTUATION.test(after) || SPACE.test(before) || PUNCTUATION.test(before));
        const right = !SPACE.test(before) &&
            (!PUNCTUATION.test(before) || SPACE.test(after) || PUNCTUATION.test(after));
        const under = mark[0] === "_";
        const token = {
            kind: "delimiter", char: mark[0], length: mark.length, left: mark.length,
            open: left && (!under || !right || PUNCTUATION.test(before)),
            close: right && (!under || !left || PUNCTUATION.test(after)),
            opens: [], closes: 0, order: this.order++, previous: this.last, next: null,
        };
        if (mark[0] === "~" && mark.length > 2) {
            token.open = token.close = false;
        }
        if (this.last) {
            this.last.next = token;
        }
        this.last = token;
        this.tokens.push(token);
        this.at = end;
        return true;
    }

    unchain(token) {
        if (token.previous) {
            token.previous.next = token.next;
        }
        if (token.next) {
            token.next.previous = token.previous;
        } else if (this.last === token) {
            this.last = token.previous;
        }
    }

    // Pairs the delimiters after `bottom`, innermost first, as CommonMark does, and forgets them.
    pair(bottom) {
        const floors = new Map(); // what was looked for in vain, and from where on
        let closer = this.firstAfter(bottom);
        while (closer) {
            const { next } = closer;
            if (!closer.close) {
                closer = next;
                continue;
            }
            const key = `${closer.char}${closer.open}${closer.length % 3}`;
            const opener = this.openerOf(closer, bottom, floors.get(key) ?? -1);
            if (!opener) {
                floors.set(key, closer.previous ? closer.previous.order : -1);
                if (!closer.open) {
                    this.unchain(closer);
                }
                closer = next;
                continue;
            }
            const strong = closer.left >= 2 && opener.left >= 2;
            const count = strong ? 2 : 1;
            opener.opens.unshift(closer.char === "~" ? "del" : strong ? "strong" : "em");
            opener.left -= count;
            closer.left -= count;
            closer.closes++;
            opener.next = closer; // what lies between finds no partner any more
            closer.previous = opener;
            if (opener.left === 0) {
                this.unchain(opener);
            }
            if (closer.left === 0) {
                this.unchain(closer);
                closer = next;
            }
        }
        this.last = bottom;
        if (bottom) {
            bottom.next = null;
        }
    }

    firstAfter(bottom) {
        let first = bottom ? bottom.next : this.last;
        while (!bottom && first && first.previous) {
            first = first.previous;
        }
        return first;
    }

    openerOf(closer, bottom, floor) {
        for (let o = closer.previous; o && o !== bottom && o.order > floor; o = o.previous) {
            const odd = (o.close || closer.open) && (o.length + closer.length) % 3 === 0 &&
                !(o.length % 3 === 0 && closer.length % 3 === 0);
            const fits = o.char === "~" ? o.left === closer.left : !odd;
            if (o.open && o.char === closer.char && fits) {
                return o;
            }
        }
        return null;
    }

    openBracket(length) {
        const token = { kind: "text", text: this.text.substr(this.at, length) };
        this.tokens.push(token, { kind: "text", text: "" }); // so that no text is added to it
        this.brackets.push({ token, bottom: this.last, active: true });
        this.at += length;
        return true;
    }

    closeBracket() {
        const bracket = this.brackets.pop();
        if (!bracket) {
            return false;
        }
        LINK_TARGET.lastIndex = this.at;
        const match = bracket.active ? LINK_TARGET.exec(this.text) : null;
        const href = match && safeHref((match[1] ?? match[2]).replace(/\\([!-/:-@[-`{-~])/g, "$1"));
        if (!href) {
            return false;
        }
        this.pair(bracket.bottom);
        Object.assign(bracket.token, { kind: "open", tag: "a", href });
        this.tokens.push({ kind: "close" });
        this.brackets.forEach((outer) => { outer.active = false; });
        this.at += match[0].length;
        return true;
    }
}

function openElement(token) {
    const element = document.createElement(token.tag);
    if (token.tag === "a") {
        element.href = token.href;
        element.target = "_blank";
        element.rel = "noopener noreferrer";
    }
    return element;
}

function buildInline(parent, text) {
    const stack = [parent];
    let skipped = 0; // opens beyond the deepest level
    const open = (token) => {
        if (stack.length > MAX_INLINE_DEPTH) {
            skipped++;
            return;
        }
        const element = openElement(token);
        stack[stack.length - 1].append(element);
        stack.push(element);
    };
    const close = () => (skipped > 0 ? skipped-- : stack.pop());
    for (const token of new Inline(text).parse()) {
        const top = stack[stack.length - 1];
        if (token.kind === "text") {
            top.append(token.text);
        } else if (token.kind === "code" || token.kind === "math") {
            const element = document.createElement(token.kind === "code" ? "code" : "span");
            if (token.kind === "math") {
                element.className = "math";
            }
            element.textContent = token.text;
            top.append(element);
        } else if (token.kind === "break") {
            top.append(document.createElement("br"));
        } else if (token.kind === "open") {
            open(token);
        } else if (token.kind === "close") {
            close();
        } else {
            for (let i = 0; i < token.closes; i++) {
                close();
            }
            stack[stack.length - 1].append(token.char.repeat(token.left));
            token.opens.forEach((tag) => open({ tag }));
        }
    }
    parent.normalize();
    return parent;
}

// ---- Blocks to nodes

function withInline(tag, text) {
    return buildInline(document.createElement(tag), text);
}

// <figure> with the language, a button that copies, and the code. view.js hears the button.
function buildCode(block) {
    const figure = document.createElement("figure");
    figure.className = "code";
    const caption = document.createElement("figcaption");
    const label = document.createElement("span");
    label.textContent = block.language || "text";
    const copy = document.createElement("button");
    copy.type = "button";
    copy.className = "copy-code";
    copy.textContent = "Copy";
    copy.setAttribute("aria-label", `Copy this ${block.language || "text"}`);
    caption.append(label, copy);
    const pre = document.createElement("pre");
    const code = document.createElement("code");
    pre.append(code);
    figure.append(caption, pre);
    fillCode(code, block);
    return figure;
}

function fillCode(code, block) {
    if (block.closed) {
        code.replaceChildren(...colour(block.text, block.language));
    } else {
        code.textContent = block.text;
    }
}

function buildList(block) {
    const list = document.createElement(block.ordered ? "ol" : "ul");
    if (block.ordered && block.start !== 1) {
        list.start = block.start;
    }
    for (const item of block.items) {
        const li = document.createElement("li");
        let into = li;
        if (item.task !== undefined) {
            li.className = "task";
            const box = document.createElement("span");
            box.className = item.task ? "box done" : "box";
            box.setAttribute("role", "img");
            box.setAttribute("aria-label", item.task ? "done" : "to do");
            into = document.createElement("div");
            li.append(box, into);
        }
        for (const inner of item.blocks) {
            if (inner.kind === "paragraph" && !block.loose) {
                buildInline(into, inner.text);
            } else {
                into.append(buildBlock(inner));
            }
        }
        list.append(li);
    }
    return list;
}

function buildRow(cells, tag, alignment) {
    const row = document.createElement("tr");
    cells.forEach((cell, k) => {
        const element = withInline(tag, cell);
        if (alignment[k]) {
            element.className = alignment[k];
        }
        row.append(element);
    });
    return row;
}

function buildTable(block) {
    const wrap = document.createElement("div");
    wrap.className = "table";
    const table = document.createElement("table");
    const head = document.createElement("thead");
    const body = document.createElement("tbody");
    head.append(buildRow(block.head, "th", block.alignment));
    body.append(...block.rows.map((cells) => buildRow(cells, "td", block.alignment)));
    table.append(head, body);
    wrap.append(table);
    return wrap;
}

function buildBlock(block) {
    switch (block.kind) {
    case "code":
        return buildCode(block);
    case "heading": // below the page's own two levels
        return withInline(`h${Math.min(6, block.level + 2)}`, block.text);
    case "rule":
        return document.createElement("hr");
    case "math": {
        const math = document.createElement("div");
        math.className = "math";
        math.textContent = block.text;
        return math;
    }
    case "quote": {
        const quote = document.createElement("blockquote");
        quote.append(...block.blocks.map(buildBlock));
        return quote;
    }
    case "list":
        return buildList(block);
    case "table":
        return buildTable(block);
    default:
        return withInline("p", block.text);
    }
}

export function render(text) {
    const fragment = document.createDocumentFragment();
    fragment.append(...parseBlocks(linesOf(text)).map(buildBlock));
    return fragment;
}

// Text that grows. update() takes the whole text so far and touches only the blocks that may still
// change: from the last one on, or the one before it while the line that begins the last one is not
// complete (two lines for a table: until then it may turn out to belong to its predecessor). After
// the last update() the nodes are those that render() makes.
export class GrowingText {
    constructor(parent) {
        this.parent = parent;
        this.settled = 0; // characters whose blocks are final
        this.open = []; // {block, node} after them
        this.raw = "";
    }

    update(text) {
        // A carriage return at the end may be half of a line's end.
        const whole = text.replace(/\r$/, "").replace(/\r\n?/g, "\n");
        if (!whole.startsWith(this.raw.slice(0, this.settled))) {
            this.parent.replaceChildren();
            Object.assign(this, { settled: 0, open: [] });
        }
        this.raw = whole;
        const source = whole.slice(this.settled).split("\n");
        const blocks = parseBlocks(source.map(expandTabs));
        this.show(blocks);
        this.settle(source, blocks);
    }

    show(blocks) {
        const kept = Math.min(this.open.length, blocks.length);
        const next = blocks.map((block, i) => {
            const old = i < kept ? this.open[i] : null;
            if (old && this.same(old.block, block)) {
                return { block, node: old.node };
            }
            if (old && this.extended(old, block)) {
                return { block, node: old.node };
            }
            const node = buildBlock(block);
            if (old) {
                old.node.replaceWith(node);
            } else {
                this.parent.append(node);
            }
            return { block, node };
        });
        this.open.slice(blocks.length).forEach(({ node }) => node.remove());
        this.open = next;
    }

    same(a, b) {
        return a.kind === b.kind && (a.kind === "paragraph" || a.kind === "code") &&
            a.text === b.text && a.language === b.language && a.closed === b.closed;
    }

    // Code only grows at its end, so its node stays and so does the focus on its button.
    extended({ block: old, node }, block) {
        if (old.kind !== "code" || block.kind !== "code" || old.language !== block.language) {
            return false;
        }
        const code = node.querySelector("code");
        const first = code.firstChild;
        // What seemed to be the closing fence may have been the beginning of a longer line.
        const grows = !old.closed && !block.closed && first && block.text.startsWith(old.text);
        if (grows) {
            first.appendData(block.text.slice(old.text.length));
        } else {
            fillCode(code, block);
        }
        return true;
    }

    settle(source, blocks) {
        const last = blocks[blocks.length - 1];
        const deciding = last?.kind === "table" ? 2 : 1; // lines that make it what it is
        const keep = !last ? 0 : last.first + deciding < source.length ? 1 : 2;
        const final = blocks.length - keep;
        if (final > 0) {
            const lines = source.slice(0, blocks[final].first);
            this.settled += lines.reduce((sum, line) => sum + line.length + 1, 0);
            this.open.splice(0, final);
            this.open.forEach(({ block }) => { block.first -= lines.length; });
        }
    }
}

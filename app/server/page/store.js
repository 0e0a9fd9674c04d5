// SPDX-License-Identifier: Apache-2.0
// What the browser keeps: conversations and settings in localStorage, the key in sessionStorage.
// A storage that is disabled or full costs persistence and nothing else: everything is held here
// first, and onTrouble is told once what is not kept.

const PREFIX = "myelin.";
const CONVERSATION = `${PREFIX}c.`;
const ID = /^[a-z0-9]{8,40}$/;
const MAX_TITLE = 80;

const text = (value) => (typeof value === "string" ? value : "");
const number = (value) => (Number.isFinite(value) ? value : undefined);

export function newId() {
    const bytes = crypto.getRandomValues(new Uint8Array(10));
    return Array.from(bytes, (byte) => byte.toString(36).padStart(2, "0")).join("");
}

export function titleOf(content) {
    const line = content.trim().split("\n", 1)[0].replace(/\s+/g, " ");
    return line.length > 60 ? `${line.slice(0, 59).trimEnd()}…` : line;
}

function cleanCall(call) {
    return { id: text(call?.id), name: text(call?.name), arguments: text(call?.arguments) };
}

// A message with only the fields we know, each of its type; null when it is none.
function cleanMessage(from) {
    if (!from || !["user", "assistant", "tool"].includes(from.role)) {
        return null;
    }
    const message = { role: from.role, content: text(from.content) };
    if (from.role === "tool") {
        return { ...message, callId: text(from.callId), name: text(from.name) };
    }
    if (from.role === "assistant") {
        for (const name of ["reasoning", "finish", "model", "error"]) {
            message[name] = text(from[name]);
        }
        for (const name of ["thoughtMs", "firstMs", "answerMs", "promptTokens", "cachedTokens",
                            "tokens"]) {
            message[name] = number(from[name]);
        }
        message.toolCalls = Array.isArray(from.toolCalls) ? from.toolCalls.map(cleanCall) : [];
    }
    return message;
}

function cleanConversation(from) {
    if (!from || typeof from !== "object" || !Array.isArray(from.messages)) {
        return null;
    }
    const messages = from.messages.map(cleanMessage).filter(Boolean);
    return {
        id: ID.test(from.id) ? from.id : newId(),
        title: text(from.title).slice(0, MAX_TITLE) || "Untitled",
        created: number(from.created) ?? Date.now(),
        updated: number(from.updated) ?? Date.now(),
        messages,
    };
}

function storageOf(name) {
    try {
        const storage = window[name];
        storage.setItem(`${PREFIX}probe`, "1");
        storage.removeItem(`${PREFIX}probe`);
        return storage;
    } catch (error) {
        // A full storage can still be read, and what is in it deleted.
        return error?.name === "QuotaExceededError" ? window[name] : null;
    }
}

export class Store {
    constructor(onTrouble) {
        this.storage = storageOf("localStorage");
        this.session = storageOf("sessionStorage");
        this.onTrouble = onTrouble;
        this.told = false;
        this.values = new Map(); // settings that no storage took
        this.conversations = new Map();
        this.load();
    }

    trouble(message) {
        if (!this.told) {
            this.told = true;
            this.onTrouble(message);
        }
    }

    load() {
        if (!this.storage) {
            this.trouble("This browser keeps nothing for this page: conversations last until the " +
                "page is closed.");
            return;
        }
        for (let i = 0; i < this.storage.length; i++) {
            const key = this.storage.key(i);
            if (key.startsWith(CONVERSATION)) {
                this.loadOne(key.slice(CONVERSATION.length));
            }
        }
    }

    loadOne(id) {
        try {
            const stored = JSON.parse(this.storage.getItem(CONVERSATION + id));
            const conversation = cleanConversation(stored);
            if (conversation && conversation.id === id) {
                this.conversations.set(id, conversation);
            }
        } catch {
            // not ours, or damaged: left alone
        }
    }

    write(storage, key, value) {
        try {
            storage.setItem(key, value);
            return true;
        } catch {
            return false;
        }
    }

    list() {
        return [...this.conversations.values()].sort((a, b) => b.updated - a.updated);
    }

    get(id) {
        return this.conversations.get(id) ?? null;
    }

    create(title) {
        const now = Date.now();
        return { id: newId(), title, created: now, updated: now, messages: [] };
    }

    save(conversation) {
        this.conversations.set(conversation.id, conversation);
        if (this.storage && !this.write(this.storage, CONVERSATION + conversation.id,
                                        JSON.stringify(conversation))) {
            this.trouble("The browser's storage for this page is full: what is new is not kept. " +
                "Delete conversations you no longer need.");
        }
    }

    remove(id) {
        this.conversations.delete(id);
        try {
            this.storage?.removeItem(CONVERSATION + id);
        } catch {
            // then it was not kept either
        }
        this.told = false; // there is room again; tell when it is full once more
    }

    setting(name, fallback) {
        if (this.values.has(name)) {
            return this.values.get(name);
        }
        try {
            return JSON.parse(this.storage.getItem(PREFIX + name)) ?? fallback;
        } catch {
            return fallback;
        }
    }

    setSetting(name, value) {
        this.values.set(name, value);
        if (this.storage) {
            this.write(this.storage, PREFIX + name, JSON.stringify(value));
        }
    }

    get key() {
        return this.values.get("key") ?? this.session?.getItem(`${PREFIX}key`) ?? "";
    }

    set key(value) {
        this.values.set("key", value);
        if (this.session) {
            this.write(this.session, `${PREFIX}key`, value);
        }
    }
}

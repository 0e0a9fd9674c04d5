// SPDX-License-Identifier: Apache-2.0
// The page: joins what is kept, what is shown and what is asked of the server.
import { ApiError, listModels, streamChat } from "./api.js";
import { applySettings, bindPanel } from "./fields.js";
import { Store, titleOf } from "./store.js";
import { AnswerView, button, copyFrom, element, iconButton, isSend, resultView, userView }
    from "./view.js";

const POLL_MS = 2000; // between questions whether the server is there
const NOTICE_MS = 8000;
const NEAR_END = 60; // pixels from the end at which the view follows what comes
const MAX_QUESTION_HEIGHT = 240;
const drawer = matchMedia("(max-width: 46rem)"); // as in style.css
const NEW_TITLE = "New conversation";

const find = (id) => document.getElementById(id);
const log = find("log");
const question = find("question");
const store = new Store((words) => notify(words));
const settings = store.setting("settings", {});
let chat = null; // the conversation shown; null: one that has not begun
let running = null; // {chat, message, view, control}: the answer that comes
let model = "";
let following = true;

// ---- Words for the reader

let noticeTimer = 0;

function hideNotice() {
    find("notice").hidden = true;
}

function notify(words, undo = null) {
    const notice = find("notice");
    const [text, press] = notice.children;
    text.textContent = words;
    press.hidden = !undo;
    press.onclick = () => {
        hideNotice();
        undo();
    };
    notice.hidden = false;
    clearTimeout(noticeTimer);
    noticeTimer = setTimeout(hideNotice, NOTICE_MS);
}

function announce(words) {
    find("live").textContent = words;
}

// ---- The view

function follow() {
    if (following) {
        log.scrollTop = log.scrollHeight;
    }
    find("to-end").hidden = following;
}

function noteScroll() {
    following = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END;
    find("to-end").hidden = following;
}

function viewOf(message, last) {
    if (message.role === "user") {
        return userView(message, act);
    }
    if (message.role === "tool") {
        return resultView(message);
    }
    const view = new AnswerView(message, act);
    if (running?.message === message) {
        running.view = view;
    } else {
        view.finish(last);
    }
    return view.node;
}

function show() {
    const messages = chat?.messages ?? [];
    const title = chat?.title ?? NEW_TITLE;
    find("messages").replaceChildren(...messages.map((message, i) =>
        viewOf(message, i + 1 === messages.length)));
    find("welcome").hidden = messages.length > 0;
    find("title").textContent = title;
    document.title = chat ? `${title} – Myelin` : "Myelin";
    following = true;
    follow();
    showList();
    showRunning();
}

function showRunning() {
    const here = running !== null && running.chat === chat;
    const focused = [find("send"), find("stop")].includes(document.activeElement);
    find("stop").hidden = !here;
    find("send").hidden = here;
    if (focused) {
        question.focus();
    }
}

// ---- The list of conversations

function showList() {
    find("conversations").replaceChildren(...store.list().map(rowOf));
}

function rowOf(conversation) {
    const row = element("li");
    const open = button(conversation.title, () => openChat(conversation), "open");
    if (conversation === chat) {
        open.setAttribute("aria-current", "true");
    }
    const { title } = conversation;
    row.append(open, iconButton("rename", `Rename ${title}`, () => rename(row, conversation)),
               iconButton("delete", `Delete ${title}`, () => remove(conversation)));
    return row;
}

function rename(row, conversation) {
    const input = element("input");
    let done = false;
    const end = (keep) => {
        if (!done) {
            done = true;
            if (keep && input.value.trim() !== "") {
                conversation.title = titleOf(input.value);
                store.save(conversation);
            }
            find("title").textContent = chat?.title ?? NEW_TITLE;
            showList();
        }
    };
    input.value = conversation.title;
    input.maxLength = 80;
    input.setAttribute("aria-label", "New title");
    input.addEventListener("blur", () => end(true));
    input.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === "Escape") {
            event.stopPropagation();
            end(event.key === "Enter");
            find("new").focus();
        }
    });
    row.replaceChildren(input);
    input.select();
}

function remove(conversation) {
    if (running?.chat === conversation) {
        running.control.abort();
    }
    store.remove(conversation.id);
    if (conversation === chat) {
        chat = null;
    }
    show();
    find("new").focus();
    notify(`“${conversation.title}” is deleted.`, () => {
        store.save(conversation);
        openChat(conversation);
    });
}

function openChat(conversation) {
    chat = conversation;
    setSidebar(false);
    show();
    question.focus();
}

function setSidebar(open) {
    document.body.classList.toggle("sidebar-open", open);
    find("open-sidebar").setAttribute("aria-expanded", String(open));
    document.querySelector("main").inert = open;
    if (open) {
        find("close-sidebar").focus();
    }
}

// ---- Asking

function apiMessage(message) {
    const { role, content } = message;
    if (role === "tool") {
        return { role, content, tool_call_id: message.callId };
    }
    const made = { role, content };
    if (role === "assistant" && message.reasoning) {
        made.reasoning_content = message.reasoning;
    }
    if (role === "assistant" && message.toolCalls.length > 0) {
        made.tool_calls = message.toolCalls.map(({ id, name, arguments: text }) => ({
            id, type: "function", function: { name, arguments: text },
        }));
    }
    return made;
}

function requestOf(conversation) {
    const said = conversation.messages.filter((message) => message.role !== "assistant" ||
        message.content !== "" || message.toolCalls.length > 0);
    const messages = said.map(apiMessage);
    const system = (settings.system ?? "").trim();
    if (system !== "") {
        messages.unshift({ role: "system", content: system });
    }
    const body = { messages, stream: true, stream_options: { include_usage: true } };
    return applySettings(model ? { model, ...body } : body, settings);
}

function emptyAnswer() {
    return { role: "assistant", content: "", reasoning: "", toolCalls: [], finish: "", model: "",
             error: "" };
}

// Takes what has come into the view, once a frame at most.
function refresher(job) {
    let waits = false;
    return () => {
        if (!waits) {
            waits = true;
            requestAnimationFrame(() => {
                waits = false;
                if (running === job) {
                    job.view?.update();
                    follow();
                }
            });
        }
    };
}

async function answer() {
    const body = requestOf(chat);
    const job = { chat, message: emptyAnswer(), view: null, control: new AbortController() };
    running?.control.abort();
    running = job;
    chat.messages.push(job.message);
    chat.updated = Date.now();
    store.save(chat);
    show();
    announce("Answering");
    let words = "The answer is complete";
    try {
        await streamChat(body, job.message, {
            key: store.key, signal: job.control.signal, onDelta: refresher(job),
        });
    } catch (error) {
        words = "Stopped";
        if (error.name === "AbortError") {
            job.message.finish = "stopped";
        } else {
            job.message.error = error instanceof ApiError ? error.message : String(error);
        }
        if (error.status === 401 && job.chat === chat) {
            askForKey(() => act.regenerate());
        }
    }
    end(job, words);
}

function end(job, words) {
    const current = running === job;
    if (current) {
        running = null;
    }
    if (store.get(job.chat.id)) { // it may have been deleted
        store.save(job.chat);
    }
    if (job.chat === chat) {
        job.view?.finish(chat.messages[chat.messages.length - 1] === job.message);
        follow();
    }
    if (current) {
        showRunning();
        announce(words);
    }
}

// Drops the messages from number `from` on.
function cut(from) {
    running?.control.abort();
    chat.messages.length = from;
}

function ask(content) {
    if (!chat) {
        chat = store.create(titleOf(content));
    }
    chat.messages.push({ role: "user", content });
    answer();
}

// What the buttons of messages do.
const act = {
    regenerate() {
        cut(chat.messages.length - 1);
        answer();
    },
    edit(message, content) {
        cut(chat.messages.indexOf(message));
        ask(content);
        question.focus();
    },
    giveResults(results) {
        const { toolCalls } = chat.messages[chat.messages.length - 1];
        toolCalls.forEach(({ id, name }, i) => {
            chat.messages.push({ role: "tool", callId: id, name, content: results[i] });
        });
        answer();
        question.focus();
    },
};

function stop() {
    if (running?.chat === chat) {
        running?.control.abort();
    }
}

function submit() {
    const content = question.value;
    if (content.trim() === "" || (running && running.chat === chat)) {
        return;
    }
    question.value = "";
    fitQuestion();
    ask(content);
}

function fitQuestion() {
    question.style.height = "auto";
    question.style.height = `${Math.min(question.scrollHeight, MAX_QUESTION_HEIGHT)}px`;
}

// ---- The key, the model and the theme

let afterKey = null;

function askForKey(then) {
    const field = find("key-field");
    afterKey = then;
    find("key-note").textContent = store.key
        ? "The server does not know the key it was given." : "It is kept until this tab is closed.";
    field.value = "";
    if (!find("key").open) {
        find("key").showModal();
    }
}

async function findModel() {
    const label = find("model");
    try {
        [model = ""] = await listModels(store.key);
        label.textContent = model;
    } catch (error) {
        if (error.status === 401) {
            label.textContent = "needs a key";
            askForKey(findModel);
            return;
        }
        label.textContent = error.status === 503 ? "not ready yet" : "not reachable";
        setTimeout(findModel, POLL_MS);
    }
}

const systemDark = matchMedia("(prefers-color-scheme: dark)");

function isDark() {
    const { theme } = document.documentElement.dataset;
    return theme ? theme === "dark" : systemDark.matches;
}

function showTheme() {
    find("theme").lastElementChild.textContent = isDark() ? "Light colours" : "Dark colours";
}

function switchTheme() {
    const theme = isDark() ? "light" : "dark";
    const { dataset } = document.documentElement;
    if ((theme === "dark") === systemDark.matches) { // what the system says: follow it again
        delete dataset.theme;
    } else {
        dataset.theme = theme;
    }
    store.setSetting("theme", dataset.theme ?? null);
    showTheme();
}

// ---- Wiring

function bindSettings() {
    const panel = find("settings");
    const keep = () => store.setSetting("settings", settings);
    const refresh = bindPanel(panel, find("fields"), settings, keep);
    const radios = [...panel.querySelectorAll("[name=thinking]")];
    const showThinking = () => radios.forEach((radio) => {
        radio.checked = radio.value === (settings.thinking ?? "auto");
    });
    radios.forEach((radio) => radio.addEventListener("change", () => {
        settings.thinking = radio.value;
        keep();
    }));
    find("reset").addEventListener("click", () => {
        Object.keys(settings).forEach((name) => delete settings[name]);
        keep();
        refresh();
        showThinking();
    });
    showThinking();
    find("open-settings").addEventListener("click", () => panel.showModal());
    find("close-settings").addEventListener("click", () => panel.close());
    panel.addEventListener("click", (event) => event.target === panel && panel.close());
}

function bindKey() {
    const dialog = find("key");
    find("key-cancel").addEventListener("click", () => dialog.close());
    dialog.querySelector("form").addEventListener("submit", (event) => {
        event.preventDefault();
        store.key = find("key-field").value.trim();
        dialog.close();
        if (afterKey !== findModel) {
            findModel();
        }
        afterKey();
    });
}

function bindKeys() {
    question.addEventListener("keydown", (event) => {
        if (isSend(event)) {
            event.preventDefault();
            submit();
        }
    });
    document.addEventListener("keydown", (event) => {
        if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
            if (document.body.classList.contains("sidebar-open")) {
                setSidebar(false);
                find("open-sidebar").focus();
            } else {
                stop();
            }
        }
    });
}

function begin() {
    find("composer").addEventListener("submit", (event) => {
        event.preventDefault();
        submit();
    });
    question.addEventListener("input", fitQuestion);
    find("stop").addEventListener("click", stop);
    find("new").addEventListener("click", () => openChat(null));
    find("open-sidebar").addEventListener("click", () => setSidebar(true));
    find("close-sidebar").addEventListener("click", () => {
        setSidebar(false);
        find("open-sidebar").focus();
    });
    drawer.addEventListener("change", () => setSidebar(false));
    find("shade").addEventListener("click", () => setSidebar(false));
    find("theme").addEventListener("click", switchTheme);
    find("to-end").addEventListener("click", () => log.scrollTo({ top: log.scrollHeight }));
    systemDark.addEventListener("change", showTheme);
    log.addEventListener("scroll", noteScroll, { passive: true });
    log.addEventListener("click", ({ target }) => {
        if (target.classList.contains("copy-code")) {
            copyFrom(target, target.closest("figure").querySelector("code").textContent);
        }
    });
    addEventListener("pagehide", () => running && store.save(running.chat));
    bindSettings();
    bindKey();
    bindKeys();
    showTheme();
    [chat = null] = store.list();
    show();
    findModel();
}

begin();

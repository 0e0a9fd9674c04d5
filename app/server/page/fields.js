// SPDX-License-Identifier: Apache-2.0
// The parameters of a request: one table, from which the panel is made and the request filled.

const FIELDS = [
    { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05,
      hint: "0 always takes the likeliest token; more is livelier" },
    { name: "top_p", label: "Top p", min: 0, max: 1, step: 0.01,
      hint: "keeps the likeliest tokens that together have this share" },
    { name: "top_k", label: "Top k", min: 0, max: 1000000, step: 1, integer: true,
      hint: "keeps so many of the likeliest; 0 keeps all" },
    { name: "min_p", label: "Min p", min: 0, max: 1, step: 0.01,
      hint: "keeps tokens at least this likely next to the best" },
    { name: "presence_penalty", label: "Presence penalty", min: -2, max: 2, step: 0.1,
      hint: "above 0 avoids tokens that were there" },
    { name: "frequency_penalty", label: "Frequency penalty", min: -2, max: 2, step: 0.1,
      hint: "above 0 avoids them the more often they were" },
    { name: "max_tokens", label: "Longest answer", min: 1, max: 10000000, step: 1, integer: true,
      hint: "in tokens, reasoning included" },
    { name: "seed", label: "Seed", min: 0, max: 9007199254740991, step: 1, integer: true,
      hint: "the same seed and question give the same answer" },
];

// The list of tools a text holds, undefined when it is empty. Throws words for the reader.
function parseTools(source) {
    if (source.trim() === "") {
        return undefined;
    }
    let tools;
    try {
        tools = JSON.parse(source);
    } catch (error) {
        throw new Error(`This is not JSON: ${error.message}`);
    }
    if (!Array.isArray(tools) || !tools.every((tool) => tool?.type === "function" &&
                                               typeof tool.function?.name === "string")) {
        throw new Error('This is no list of {"type": "function", "function": {"name": …}}.');
    }
    return tools.length > 0 ? tools : undefined;
}

function parseNumber(field, source) {
    if (source.trim() === "") {
        return undefined;
    }
    const value = Number(source);
    const fits = value >= field.min && value <= field.max &&
        (!field.integer || Number.isInteger(value));
    if (!fits) {
        throw new Error(field.integer && !Number.isInteger(value)
            ? "This is no whole number." : `This is not between ${field.min} and ${field.max}.`);
    }
    return value;
}

// settings: strings by name, as the panel has them. What is not valid is left out of the request.
export function applySettings(body, settings) {
    for (const field of FIELDS) {
        try {
            const value = parseNumber(field, settings[field.name] ?? "");
            if (value !== undefined) {
                body[field.name] = value;
            }
        } catch {
            // marked in the panel
        }
    }
    if (settings.thinking === "on" || settings.thinking === "off") {
        body.chat_template_kwargs = { enable_thinking: settings.thinking === "on" };
    }
    try {
        const tools = parseTools(settings.tools ?? "");
        if (tools) {
            body.tools = tools;
        }
    } catch {
        // marked in the panel
    }
    return body;
}

function showProblem(input, note, hint, check) {
    try {
        check(input.value);
        input.removeAttribute("aria-invalid");
        note.textContent = hint;
        note.classList.remove("problem");
    } catch (error) {
        input.setAttribute("aria-invalid", "true");
        note.textContent = error.message;
        note.classList.add("problem");
    }
}

// Fills `grid` with a labelled input for each number and joins all inputs to the settings.
// changed() is called after each change.
export function bindPanel(panel, grid, settings, changed) {
    const refresh = [];
    const join = (input, note, hint, check) => {
        const show = () => {
            input.value = settings[input.name] ?? "";
            showProblem(input, note, hint, check);
        };
        input.addEventListener("input", () => {
            settings[input.name] = input.value;
            showProblem(input, note, hint, check);
            changed();
        });
        refresh.push(show);
        show();
    };
    for (const field of FIELDS) {
        const row = document.createElement("div");
        row.className = "field";
        const label = document.createElement("label");
        const input = document.createElement("input");
        const note = document.createElement("p");
        label.textContent = field.label;
        label.htmlFor = input.id = `field-${field.name}`;
        note.id = `note-${field.name}`;
        input.setAttribute("aria-describedby", note.id);
        Object.assign(input, {
            name: field.name, type: "text", inputMode: field.integer ? "numeric" : "decimal",
            placeholder: "default", autocomplete: "off", spellcheck: false,
        });
        input.addEventListener("keydown", (event) => step(event, field));
        row.append(label, input, note);
        grid.append(row);
        join(input, note, field.hint, (source) => parseNumber(field, source));
    }
    for (const area of panel.querySelectorAll("textarea")) {
        const note = panel.querySelector(`#note-${area.name}`);
        join(area, note, note.textContent, area.name === "tools" ? parseTools : () => {});
    }
    return () => refresh.forEach((show) => show());
}

// The arrows count a number up and down.
function step(event, field) {
    const sign = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!sign || event.altKey || event.ctrlKey || event.metaKey) {
        return;
    }
    event.preventDefault();
    const size = field.step * (event.shiftKey ? 10 : 1);
    const value = Number(event.target.value || 0) + sign * size;
    const next = Math.min(field.max, Math.max(field.min, value));
    event.target.value = String(Number(next.toFixed(6)));
    event.target.dispatchEvent(new Event("input", { bubbles: true }));
}

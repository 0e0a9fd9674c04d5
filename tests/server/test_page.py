# SPDX-License-Identifier: Apache-2.0
"""The chat page, used in a browser."""
import json
import pathlib
import sys
import tempfile
import unittest

import browser
from api import Server, WEATHER

# An answer's first piece comes, and its rest does not, however fast the server is.
HOLD = r"""window.real = window.fetch; window.fetch = async (path, options) => {
    const reader = (await window.real(path, options)).body.getReader();
    const decoder = new TextDecoder();
    const ended = new Promise((_, fail) => options.signal.addEventListener('abort', () =>
        fail(new DOMException('stopped', 'AbortError'))));
    let seen = '';
    return new Response(new ReadableStream({ async start(to) {
        let piece = null;
        while (piece === null) {
            seen += decoder.decode((await reader.read()).value, { stream: true });
            piece = /^[^]*?"content":"[^"][^\n]*\n\n/.exec(seen);
        }
        to.enqueue(new TextEncoder().encode(piece[0]));
        await ended;
    } }));
}; 0"""
TAGS = ("p a br em strong del code pre span div figure figcaption button table thead tbody tr th "
        "td ul ol li blockquote").split()
GREETING = "Say hello to Rose."
ANSWERS = "document.querySelectorAll('.assistant:not(.running)').length"
LAST = "[...document.querySelectorAll('.assistant')].pop()"
TEXT = f"{LAST}.querySelector(':scope > .text').textContent"
PRESS_LAST = f"[...{LAST}.querySelectorAll('button')].pop().click()"
HOSTILE = """\
<img src=x onerror="window.hurt = 1"> <script>window.hurt = 1</script>

[a](javascript:window.hurt=1) [b](JaVaScRiPt:window.hurt=1) [c](data:text/html,x) \
[d](vbscript:x) [e](&#106;avascript:window.hurt=1) <javascript:window.hurt=1> \
[f](java\tscript:x) [g](//evil.example) ![h](https://evil.example/x.png) [i](https://good.example/)

| <b>x</b> | `<i>` |
|---|---|
| <svg onload=window.hurt=1> | [j](javascript:x) |

```"><img src=x onerror=window.hurt=1>
</code></pre><img src=x onerror=window.hurt=1>"""


def setUpModule():
    WithPage.browser = browser.Browser()


def tearDownModule():
    WithPage.browser.close()


class WithPage(unittest.TestCase):
    maxDiff = None
    OPTIONS = ()
    browser = None  # one for all
    EXPECTED_ERRORS = ()  # words of what the console may say

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.OPTIONS)
        cls.origin = f"http://127.0.0.1:{cls.server.port}"

    @classmethod
    def tearDownClass(cls):
        code = cls.server.stop()
        assert code == 0, f"the server ended with {code}: {cls.server.said}"

    def setUp(self):
        page = self.browser
        page.size(1200, 800)
        page.open("about:blank")
        page.call("Storage.clearDataForOrigin", origin=self.origin, storageTypes="all")
        page.events.clear()
        page.open(self.origin + "/")

    def tearDown(self):
        """Whatever happened: nothing went elsewhere, and nobody complained."""
        page = self.browser
        for sent in page.take_events("Network.requestWillBeSent"):
            url = sent["request"]["url"]
            self.assertTrue(url.startswith((self.origin + "/", "data:")), url)
        said = [event["entry"]["text"] for event in page.take_events("Log.entryAdded")]
        said += [str(event["args"]) for event in page.take_events("Runtime.consoleAPICalled")]
        said += [str(event) for event in page.take_events("Runtime.exceptionThrown")]
        said = [text for text in said if not any(word in text for word in self.EXPECTED_ERRORS)]
        self.assertEqual(said, [])

    def setting(self, **values):
        """Fills the panel as a reader would."""
        page = self.browser
        page.click("#open-settings")
        for name, value in values.items():
            if name == "thinking":
                page.click(f"[name=thinking][value={value}]")
                continue
            page.js(f"(() => {{ const field = document.getElementById('field-{name}');"
                    f"field.value = {json.dumps(value)};"
                    "field.dispatchEvent(new Event('input', {bubbles: true})) })()")
        page.click("#close-settings")

    def send(self, text):
        self.browser.js("document.getElementById('question').focus()")
        self.browser.type(text)
        self.browser.key("Enter")

    def ask(self, text, answers=1):
        """Sends it and gives the answer's text when it is complete."""
        self.send(text)
        self.browser.until(f"{ANSWERS} === {answers} && document.getElementById('stop').hidden")
        return self.answer()

    def answer(self):
        return self.browser.js(TEXT)

    def sent(self):
        """The bodies that were sent to the route of chats."""
        return [json.loads(event["request"]["postData"])
                for event in self.browser.take_events("Network.requestWillBeSent")
                if event["request"]["url"].endswith("/v1/chat/completions")]

    def stored(self):
        return self.browser.js("Object.keys(localStorage).filter(k => k.startsWith('myelin.c.'))"
                               ".map(k => JSON.parse(localStorage[k]))")

    def greedy(self, messages, **more):
        body = {"messages": messages, "temperature": 0, **more}
        answer = self.server.post("/v1/chat/completions", body)
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json["choices"][0]["message"]


class Page(WithPage):
    def test_an_answer_is_the_apis(self):
        page = self.browser
        self.setting(temperature="0", thinking="off", system="Answer in a line.", top_p="2")
        self.assertEqual(page.js("document.getElementById('field-top_p').ariaInvalid"), "true")
        text = self.ask(GREETING)
        messages = [{"role": "system", "content": "Answer in a line."},
                    {"role": "user", "content": GREETING}]
        self.assertEqual(text, self.greedy(messages, enable_thinking=False)["content"])
        self.assertEqual(self.sent(), [{
            "model": "demo", "messages": messages, "stream": True,
            "stream_options": {"include_usage": True}, "temperature": 0,
            "chat_template_kwargs": {"enable_thinking": False}}])
        self.assertRegex(page.js(f"{LAST}.querySelector('.figures').textContent"),
                         r"^\d+ tokens (· \d+ tokens/s )?· first after \d+\.\d s · prompt \d+")
        self.assertEqual(page.js("document.getElementById('model').textContent"), "demo")
        self.assertEqual(page.js("document.title"), f"{GREETING} – Myelin")

    def test_reasoning_is_folded(self):
        page = self.browser
        self.setting(temperature="0", thinking="on")
        text = self.ask(GREETING)
        wanted = self.greedy([{"role": "user", "content": GREETING}], enable_thinking=True)
        self.assertEqual(text, wanted["content"])
        fold = f"{LAST}.querySelector('details.reasoning')"
        self.assertFalse(page.js(f"{fold}.open || {fold}.hidden"))
        self.assertRegex(page.js(f"{fold}.querySelector('summary').textContent"),
                         r"^Thought for \d+\.\d s$")
        self.assertEqual(page.js(f"{fold}.querySelector('.text').textContent"),
                         wanted["reasoning_content"])

    def test_stop_and_regenerate(self):
        page = self.browser
        self.setting(temperature="0", thinking="off")
        whole = self.ask(GREETING)
        for way in ("#stop", "Escape"):
            page.js(HOLD)
            page.js(PRESS_LAST)  # regenerate
            page.until(f"{TEXT} !== '' && "
                       f"{LAST}.classList.contains('running')")
            self.assertFalse(page.js("document.getElementById('stop').hidden"))
            self.assertTrue(page.js("document.getElementById('send').hidden"))
            if way == "Escape":
                page.key("Escape")
            else:
                page.click(way)
            page.until(f"{ANSWERS} === 1")
            part = self.answer()
            self.assertTrue(whole.startswith(part), part)
            self.assertIn("stopped", page.js(f"{LAST}.querySelector('.figures').textContent"))
            self.assertEqual(self.stored()[0]["messages"][1]["content"].strip(), part.strip())
            page.js("window.fetch = window.real; 0")
        page.js(PRESS_LAST)
        page.until(f"{ANSWERS} === 1 && {TEXT} === "
                   f"{json.dumps(whole)}")
        self.assertEqual(len(self.stored()[0]["messages"]), 2)

    def test_edit(self):
        page = self.browser
        self.setting(temperature="0", thinking="off")
        self.ask(GREETING)
        self.ask("What color is snow?", 2)
        self.assertEqual([m["role"] for m in self.sent()[-1]["messages"]],
                         ["user", "assistant", "user"])
        page.js("[...document.querySelector('.user').querySelectorAll('button')].pop().click()")
        self.assertEqual(page.js("document.activeElement.value"), GREETING)
        page.key("Escape")
        self.assertEqual(page.js("document.activeElement.textContent"), "Edit")
        page.key("Enter")
        page.js("document.activeElement.value = ''")
        page.type("Say hello to Hugo.")
        page.key("Enter")
        page.until(f"{ANSWERS} === 1 && document.getElementById('stop').hidden")
        wanted = self.greedy([{"role": "user", "content": "Say hello to Hugo."}],
                             enable_thinking=False)
        self.assertEqual(self.answer(), wanted["content"])
        self.assertEqual(len(self.stored()[0]["messages"]), 2)

    def test_tools(self):
        page = self.browser
        self.setting(temperature="0", thinking="on", tools=json.dumps([WEATHER]))
        self.ask("What is the weather in Paris?")
        call = f"{LAST}.querySelector('.call')"
        self.assertEqual(page.js(f"{call}.querySelector('summary code').textContent"),
                         "get_weather")
        self.assertEqual(json.loads(page.js(f"{call}.querySelector('pre').textContent")),
                         {"city": "Paris"})
        page.js(f"{LAST}.querySelector('textarea').focus()")
        page.type('{"weather": "sunny"}')
        page.click(".results [type=submit]")
        page.until(f"{ANSWERS} === 2 && document.getElementById('stop').hidden")
        sent = self.sent()[-1]["messages"]
        self.assertEqual([message["role"] for message in sent], ["user", "assistant", "tool"])
        self.assertEqual(sent[2], {"role": "tool", "content": '{"weather": "sunny"}',
                                   "tool_call_id": sent[1]["tool_calls"][0]["id"]})
        self.assertNotEqual(self.answer(), "")

    def test_copy(self):
        page = self.browser
        page.call("Browser.grantPermissions", origin=self.origin,
                  permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        page.js("""localStorage['myelin.c.aaaaaaaa'] = JSON.stringify({id: 'aaaaaaaa', messages:
            [{role: 'assistant', content: '*a*\\n```c\\nint x = 1;\\n```'}]})""")
        page.call("Page.reload")
        page.until("document.readyState === 'complete' && "
                   "document.querySelector('.copy-code') !== null")
        for selector, text in ((".copy-code", "int x = 1;"),
                               (".foot button", "*a*\n```c\nint x = 1;\n```")):
            page.click(selector)
            page.until(f"document.querySelector('{selector}').textContent === 'Copied'")
            self.assertEqual(page.js("navigator.clipboard.readText()"), text)

    def test_conversations_last(self):
        page = self.browser
        self.setting(temperature="0", thinking="off", system="Be kind.")
        text = self.ask(GREETING)
        page.click("#new")
        self.assertFalse(page.js("document.getElementById('welcome').hidden"))
        self.ask("What color is snow?")
        titles = "[...document.querySelectorAll('#conversations .open')].map(b => b.textContent)"
        self.assertEqual(page.js(titles), ["What color is snow?", GREETING])
        page.click("#theme")
        theme = page.js("document.documentElement.dataset.theme")
        self.assertIn(theme, ("light", "dark"))
        page.call("Page.reload")
        page.until("document.readyState === 'complete' && "
                   "document.querySelectorAll('#conversations .open').length === 2")
        self.assertEqual(page.js("document.documentElement.dataset.theme"), theme)
        self.assertEqual(page.js("document.getElementById('field-system').value"), "Be kind.")
        page.click("#conversations li:last-child .open")
        self.assertEqual(self.answer(), text)
        page.click("#conversations li:last-child [aria-label^=Rename]")
        page.type("Greetings")
        page.key("Enter")
        self.assertEqual(page.js(titles), ["What color is snow?", "Greetings"])
        page.click("#conversations li:last-child [aria-label^=Delete]")
        self.assertEqual(page.js(titles), ["What color is snow?"])
        self.assertEqual(len(self.stored()), 1)
        page.click("#notice button")
        self.assertEqual(page.js(titles), ["What color is snow?", "Greetings"])
        self.assertEqual(len(self.stored()), 2)

    def test_what_is_kept_may_be_damaged(self):
        page = self.browser
        page.js("localStorage['myelin.c.aaaaaaaa'] = '{'; localStorage['myelin.c.bbbbbbbb'] = "
                "JSON.stringify({id: 'bbbbbbbb', title: 7, messages: [null, {role: 'king'}, "
                "{role: 'user', content: 'Well?'}, {role: 'assistant', toolCalls: 5, tokens: 183, "
                "answerMs: 5200, firstMs: 12345, promptTokens: 9, cachedTokens: 8}]});"
                "localStorage['myelin.settings'] = '{\"temperature\": 3'")
        page.call("Page.reload")
        page.until("document.readyState === 'complete' && "
                   "document.querySelector('.assistant') !== null")
        self.assertEqual(page.js("document.querySelector('.user .text').textContent"), "Well?")
        self.assertEqual(page.js(f"{LAST}.querySelector('.figures').textContent"),
                         "183 tokens · 35 tokens/s · first after 12 s · prompt 9 (8 cached)")
        self.setting(temperature="0", thinking="off")
        self.assertNotEqual(self.ask(GREETING, 2), "")

    def test_keyboard_alone(self):
        page = self.browser
        page.js("document.activeElement.blur()")
        for _ in range(12):
            page.key("Tab")
            if page.js("document.activeElement.id") == "question":
                break
        self.assertEqual(page.js("document.activeElement.id"), "question")
        page.type("Say hello")
        page.key("Enter", shift=True)
        page.type("to Rose.")
        self.assertEqual(page.js("document.activeElement.value"), "Say hello\nto Rose.")
        page.key("Enter")
        page.until(f"{ANSWERS} === 1 && document.getElementById('stop').hidden")
        self.assertEqual(page.js("document.activeElement.id"), "question")
        self.assertEqual(self.sent()[0]["messages"][0]["content"], "Say hello\nto Rose.")
        self.assertEqual(page.js("document.getElementById('live').textContent"),
                         "The answer is complete")

    def test_everything_has_a_name(self):
        page = self.browser
        self.setting(temperature="0", thinking="off")
        self.ask(GREETING)
        nameless = page.js("""[...document.querySelectorAll('button, input, textarea, dialog, nav')]
            .filter(e => !(e.getAttribute('aria-label') || e.textContent.trim() ||
                           e.labels?.length || e.getAttribute('aria-labelledby')))
            .map(e => e.outerHTML)""")
        self.assertEqual(nameless, [])
        self.assertEqual(page.js("[...document.querySelectorAll('main, nav, h1')].length"), 3)

    def test_narrow(self):
        page = self.browser
        self.setting(temperature="0", max_tokens="60")
        self.ask(f"{'long' * 60} {GREETING}")
        page.js("import('./page/markdown.js').then(m => document.querySelector('.assistant .text')"
                ".append(m.render('| a | b |\\n|-|-|\\n| ' + 'x'.repeat(90) + ' | y |\\n\\n```c\\n'"
                " + 'y'.repeat(200) + '\\n```\\n\\n# ' + 'z'.repeat(90))))")
        for width in (320, 390, 768):
            page.size(width, 640)
            wide = page.js(f"""[...document.querySelectorAll('body, main, #log, .message, header')]
                .filter(e => e.scrollWidth > Math.max(e.clientWidth, 1) || e.clientWidth > {width})
                .map(e => e.className + e.tagName)""")
            self.assertEqual(wide, [], width)
        page.size(1200, 800)
        self.assertEqual(page.js("""['sidebar', 'log'].map((id) => {
            const box = document.getElementById(id).getBoundingClientRect();
            return [box.left, box.right];
        })"""), [[0, 272], [272, 1200]])
        page.size(320, 640)
        hidden = "getComputedStyle(document.getElementById('sidebar')).visibility"
        page.until(f"{hidden} === 'hidden'")
        page.click("#open-sidebar")
        page.until(f"{hidden} === 'visible'")
        page.key("Escape")
        page.until(f"{hidden} === 'hidden'")
        self.assertEqual(page.js("document.activeElement.id"), "open-sidebar")

    def test_contrast(self):
        """Text against its ground, in both colours: WCAG's 4.5 : 1."""
        page = self.browser
        for scheme in ("light", "dark"):
            page.scheme(scheme)
            poor = page.js("""(() => {
                const style = getComputedStyle(document.documentElement);
                const light = (name) => {
                    const hex = style.getPropertyValue('--' + name).trim().slice(1);
                    const part = (i) => {
                        const c = parseInt(hex.slice(i, i + 2), 16) / 255;
                        return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
                    };
                    return 0.2126 * part(0) + 0.7152 * part(2) + 0.0722 * part(4);
                };
                const pairs = [['on-accent', 'accent']];
                for (const ground of ['ground', 'side', 'raised', 'bubble', 'code'])
                    pairs.push(['text', ground], ['muted', ground]);
                for (const ground of ['ground', 'raised'])
                    pairs.push(['accent', ground], ['problem', ground]);
                for (const name of ['comment', 'string', 'number', 'word', 'call'])
                    pairs.push([name, 'code']);
                return pairs.filter(([a, b]) => {
                    const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
                    return !((high + 0.05) / (low + 0.05) >= 4.5);
                }).map((pair) => pair.join(' on '));
            })()""")
            self.assertEqual(poor, [], scheme)


class Modules(WithPage):
    EXPECTED_ERRORS = ("Failed to load resource",)

    def rendered(self, text):
        return self.browser.js(f"""import('./page/markdown.js').then(({{ render }}) => {{
            const box = document.createElement('div');
            box.append(render({json.dumps(text)}));
            return box.innerHTML;
        }})""")

    def test_markdown(self):
        for text, wanted in (
                ("a *b* **c** `d` ~~e~~", "<p>a <em>b</em> <strong>c</strong> <code>d</code> "
                                          "<del>e</del></p>"),
                ("# T\n\nx\ny", "<h3>T</h3><p>x<br>y</p>"),
                ("- a\n- b\n  1. c", "<ul><li>a</li><li>b<ol><li>c</li></ol></li></ul>"),
                ("> q", "<blockquote><p>q</p></blockquote>"),
                ("snake_case_name 2 * 3 * 4", "<p>snake_case_name 2 * 3 * 4</p>"),
                ("<b>&amp;", "<p>&lt;b&gt;&amp;</p>"),
                ("[x](https://a.example)", '<p><a href="https://a.example" target="_blank" '
                                           'rel="noopener noreferrer">x</a></p>')):
            self.assertEqual(self.rendered(text), wanted)
        code = self.rendered("```py\nif x:\n  <y>\n```\nafter")
        self.assertIn('<button type="button" class="copy-code" aria-label="Copy this py">', code)
        self.assertTrue(code.endswith("</figure><p>after</p>"))
        self.assertIn("x:\n  &lt;y&gt;</code>", code)

    def test_hostile_markdown(self):
        page = self.browser
        for text in (HOSTILE, HOSTILE.replace("```", "~~~~"), "> - " * 3 + HOSTILE):
            found = page.js(f"""import('./page/markdown.js').then(async (markdown) => {{
                const {{ render, GrowingText }} = markdown;
                const text = {json.dumps(text)};
                const box = document.createElement('div');
                document.body.append(box);
                box.append(render(text));
                const whole = box.innerHTML;
                const bad = [...box.querySelectorAll('*')].filter((e) =>
                    !{TAGS}.includes(e.localName) ||
                    [...e.attributes].some((a) => !/^(class|href|target|rel|type|aria-label)$/
                        .test(a.name)));
                const links = [...box.querySelectorAll('a')].map((a) => a.protocol + a.host);
                box.replaceChildren();
                const growing = new GrowingText(box);
                for (let i = 1; i <= text.length; i++) growing.update(text.slice(0, i));
                const same = box.innerHTML === whole;
                await new Promise((done) => setTimeout(done, 20));
                box.remove();
                return {{ bad: bad.map((e) => e.outerHTML), links: [...new Set(links)], same,
                          hurt: window.hurt ?? 0 }};
            }})""")
            self.assertEqual(found["bad"], [])
            self.assertEqual(found["links"], ["https:evil.example", "https:good.example"])
            self.assertTrue(found["same"], "grown is not as rendered")
            self.assertEqual(found["hurt"], 0)

    def test_growing_text_ends_as_the_whole(self):
        """Texts of what decides where blocks end, cut anywhere."""
        different = self.browser.js("""import('./page/markdown.js').then((markdown) => {
            const { render, GrowingText } = markdown;
            const sets = [['$$', '\\n', '- x', 'a', '\\n\\n', '```', '> q'],
                ['\\\\[', '\\\\]', '\\n', '# h', 'a', '1. b', '\\n\\n'],
                ['a|b', '\\n', '--|--', '- x', '> q', '  ', '\\n\\n', 'a'],
                ['```', '~~~', 'js', '\\n', '"s"', '- ', '  ', '> ', '\\n\\n'],
                ['- a', '\\n', '  ', '1. b', '\\n\\n', '===', '---', 'b', '* c', '\\r', '\\t']];
            let seed = 1;
            const pick = (n) => {
                seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
                return (seed >>> 8) % n;
            };
            const different = [];
            for (let round = 0; round < 4000; round++) {
                const set = sets[round % sets.length];
                const parts = Array.from({ length: 1 + pick(12) }, () => set[pick(set.length)]);
                const text = parts.join('');
                const whole = document.createElement('div');
                const grown = document.createElement('div');
                const growing = new GrowingText(grown);
                whole.append(render(text.replace(/\\r$/, '')));
                for (let at = 0; at < text.length;) {
                    at = Math.min(text.length, at + 1 + pick(4));
                    growing.update(text.slice(0, at));
                }
                if (grown.innerHTML !== whole.innerHTML) different.push(text);
            }
            return different.slice(0, 5);
        })""")
        self.assertEqual(different, [])

    def test_a_fence_that_goes_on(self):
        """What looks like the closing fence may be the beginning of a longer line."""
        code = self.browser.js("""import('./page/markdown.js').then(({ GrowingText }) => {
            const box = document.createElement('div');
            const growing = new GrowingText(box);
            for (const text of ['```js\\nlet a = 1;\\n```', '```js\\nlet a = 1;\\n```x',
                                '```js\\nlet a = 1;\\n```x\\ny']) growing.update(text);
            return box.querySelector('code').textContent;
        })""")
        self.assertEqual(code, "let a = 1;\n```x\ny")

    def test_markdown_takes_time_in_line_with_length(self):
        for text in ("*a " * 20000, "[" * 20000, "`" * 20001 + "a", "> " * 20000, "- " * 20000,
                     "**a**_" * 10000, "|" * 20000 + "\n" + "|-" * 20000, "<" * 20000,
                     "![a](" * 8000, "$a" * 20000, "\n" * 20000, "a\n\n" * 10000,
                     "- a" + "\n" * 40000 + "  b", "\\[a\n" * 20000):
            spent = self.browser.js(f"""import('./page/markdown.js').then(({{ render }}) => {{
                const begun = performance.now();
                render({json.dumps(text)});
                return performance.now() - begun;
            }})""")
            self.assertLess(spent, 5000, text[:20])

    def test_streams_cut_anywhere(self):
        """A stream whose every byte comes by itself, and every kind of line end."""
        chunk = {"choices": [{"delta": {"content": "Grüße 👋\r\n"}}]}
        events = [": silence", "data: " + json.dumps(chunk, ensure_ascii=False),
                  "event: x\ndata:" + json.dumps(chunk, ensure_ascii=False)]
        for line_end in ("\n", "\r\n", "\r"):
            text = "".join(f"{event}\n\n" for event in [*events, "data: [DONE]"])
            stream = list(text.replace("\n", line_end).encode())
            for step in (1, 2, 7, len(stream)):
                got = self.browser.js(f"""import('./page/api.js').then(async (api) => {{
                    const bytes = {json.dumps(stream)};
                    const whole = window.fetch;
                    let at = 0;
                    window.fetch = async () => new Response(new ReadableStream({{ pull(to) {{
                        to.enqueue(new Uint8Array(bytes.slice(at, at + {step})));
                        at += {step};
                        if (at >= bytes.length) to.close();
                    }} }}));
                    const message = {{ content: '', reasoning: '', toolCalls: [] }};
                    try {{
                        await api.streamChat({{}}, message, {{ onDelta() {{}} }});
                    }} finally {{
                        window.fetch = whole;
                    }}
                    return message.content;
                }})""")
                self.assertEqual(got, "Grüße 👋\r\n" * 2, (line_end, step))

    def test_errors_are_words_and_can_be_tried_again(self):
        page = self.browser
        self.setting(temperature="0", thinking="off")
        for answer, words in (
                ("new Response('{\"error\": {\"message\": \"full\"}}', {status: 429, "
                 "headers: {'Retry-After': '3'}})", "busy. Try again in 3 s. It says: full"),
                ("new Response('<h1>', {status: 502})", "The server failed."),
                ("new Response('data: {\"choices\": []}\\n\\n')", "broke before"),
                ("new Response('data: {\"error\": {\"message\": \"no memory\"}}\\n\\n')",
                 "could not finish the answer. It says: no memory"),
                ("new Response('data: {\\n\\n')", "does not understand"),
                ("Promise.reject(new TypeError('x'))", "cannot be reached")):
            page.call("Page.reload")
            page.until("document.readyState === 'complete' && "
                       "document.getElementById('model').textContent === 'demo'")
            page.click("#new")
            page.js(f"window.real = window.fetch; window.fetch = async () => {answer}; 0")
            self.ask(GREETING)
            self.assertIn(words, page.js(f"{LAST}.querySelector('[role=alert]').textContent"))
            page.js("window.fetch = window.real; 0")
            page.js(PRESS_LAST)
            page.until(f"{ANSWERS} === 1 && {TEXT} !== ''")
            self.assertIsNone(page.js(f"{LAST}.querySelector('[role=alert]')?.textContent"))


class WithKey(WithPage):
    EXPECTED_ERRORS = ("401 (Unauthorized)",)

    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory()
        cls.addClassCleanup(directory.cleanup)
        keys = pathlib.Path(directory.name) / "keys"
        keys.write_text("the-key\n")
        cls.OPTIONS = ("--api-key-file", keys)
        super().setUpClass()

    def test_the_key_is_asked_for(self):
        page = self.browser
        for key in ("wrong", "the-key"):
            page.until("document.getElementById('key').open")
            self.assertEqual(page.js("document.activeElement.id"), "key-field")
            page.type(key)
            page.key("Enter")
            if key == "wrong":
                page.until("document.getElementById('key-note').textContent.includes('not know')")
        page.until("document.getElementById('model').textContent === 'demo'")
        self.setting(temperature="0", thinking="off")
        self.assertNotEqual(self.ask(GREETING), "")
        self.assertIsNone(page.js(f"{LAST}.querySelector('[role=alert]')?.textContent"))
        page.call("Page.reload")
        page.until("document.readyState === 'complete' && "
                   "document.getElementById('model').textContent === 'demo'")
        self.assertFalse(page.js("document.getElementById('key').open"))
        self.assertNotIn("the-key", page.js("JSON.stringify(localStorage)"))


if __name__ == "__main__":
    if browser.CHROMIUM is None:
        print("there is no chromium")
        sys.exit(77)
    unittest.main()

# SPDX-License-Identifier: Apache-2.0
"""The templates compare_jinja.py renders."""

VARIABLES = {"s": "Hello World", "u": "Zażółć ß ŉ 🎉", "n": 7, "z": 0, "f": 2.5, "t": True,
             "none_value": None, "l": [3, 1, 2], "e": [], "d": {"b": 1, "a": "x", "items": 5},
             "w": "  pad\n", "words": ["Ab", "aa", "B", "b"], "lines": "one\n\ntwo\r\nthree",
             "objects": [{"k": "v", "n": 2}, {"k": "w", "n": 1}, {"n": 3}],
             "floats": [0.1, 1e16, 1e-5, 123456789.0, 1e22, -0.0], "q": "it's \"q\" \\ \n\x7f",
             "nested": {"p": {"q": [1, {"r": None}]}}}

PIECES = {
    "atoms": ["s", "u", "n", "z", "f", "t", "none_value", "l", "e", "d", "w", "words", "lines",
              "objects", "missing", "'lit'", "\"a\\n\\u00e9\"", "3", "-1", "2.5", "true", "none",
              "[1, 'a', none]", "(1, 2)", "{'k': 1, 2: 'v'}", "nested.p", "q", "floats", "''",
              "range(4)", "'x' 'y'", "0x1F", "1_000", "1e3", "()"],
    "iterables": ["l", "e", "s", "d", "words", "range(3)", "d.items()", "objects", "missing",
                  "l | sort", "d | items", "[(1, 2), (3, 4)]", "words | map('upper')", "u"],
    "binary": ["+", "-", "*", "/", "//", "%", "~", "==", "!=", "<", "<=", ">", ">=", "and", "or",
               "in", "not in", "~", "+", "=="],
    "postfix": [".strip()", "[0]", "[-1]", "[::-1]", "[1:]", "[:2]", "[1:3]", "[::2]", "[5]",
                ".k", "['k']", ".items()", ".keys() | list", ".get('a')", ".get('zz', 4)",
                ".split()", ".split('l')", ".split('l', 1)", ".rsplit(' ', 1)", ".upper()",
                ".lower()", ".title()", ".capitalize()", ".startswith('H')", ".endswith(('d', ''))",
                ".replace('l', 'L')", ".replace('l', 'L', 1)", ".lstrip()", ".rstrip('d\\n')",
                ".splitlines()", ".find('o')", ".count('l')", ".join(['a', 'b'])", ".nope",
                ".nope()", ".p.q", "[n]", "[-3:-1]", "[::-2]", ".values() | list", "()", ".b",
                ".partition('l')", ".index('l')", "[missing]", "['a']", ".a.b", ".append(1)"],
    "filters": ["upper", "lower", "length", "trim", "tojson", "string", "list", "first", "last",
                "join(', ')", "default('D')", "default('D', true)", "int", "float", "abs", "sort",
                "reverse | list", "title", "capitalize", "unique | list", "replace('l', 'L')",
                "tojson(indent=2)", "map('upper') | list", "map(attribute='k') | list",
                "select | list", "reject('none') | list", "selectattr('k') | list",
                "selectattr('n', 'gt', 1) | list", "rejectattr('k', 'defined') | list", "sum",
                "min", "max", "round", "round(1)", "indent(2)", "indent(2, true, true)",
                "dictsort", "items | list", "count", "sort(attribute='n')", "sort(reverse=true)",
                "join(attribute='k')", "d", "int(5)", "select('string') | list", "e", "safe",
                "tojson(sort_keys=true)", "tojson(separators=(',', ':'))",
                "map('default', 'x') | list", "sum(attribute='n')", "tojson(ensure_ascii=true)"],
    "tests": ["defined", "undefined", "none", "string", "number", "integer", "float", "mapping",
              "sequence", "iterable", "boolean", "true", "false", "eq 3", "equalto('lit')", "in l",
              "in [1, 7]", "odd", "even", "divisibleby 3", "gt 2", "lower", "upper", "ne 1",
              "callable", "sameas none", "le(7)"],
}

CASES = []
for a in PIECES["atoms"]:
    CASES.append("{{ " + a + " }}|{{ " + a + " | tojson }}")
    CASES.append("{{ [" + a + "] }}|{{ " + a + " is iterable }}{{ " + a + " is sequence }}")
for p in PIECES["postfix"]:
    for a in ["s", "l", "d", "nested"]:
        CASES.append("{{ " + a + p + " }}")
for p in PIECES["filters"]:
    for a in ["s", "l", "objects", "missing", "f"]:
        CASES.append("{{ " + a + " | " + p + " }}")
for p in PIECES["tests"]:
    CASES.append("{% for x in [n, f, s, l, d, none, true, 3, 'lit'] %}"
                 "{{ x is " + p + " }}{{ x is not " + p + " }} {% endfor %}")
for p in PIECES["binary"]:
    for pair in ["n {} 2", "s {} 'l'", "l {} [3]", "f {} n", "missing {} missing", "n {} missing",
                 "-7 {} 2", "'a' {} 3", "1 {} l"]:
        CASES.append("{{ " + pair.format(p) + " }}")
CASES += [
    "a\n", "a\n\n", "\n", "", "a\r\nb\rc\r\n", "  {% if t %}  \n x\n  {% endif %}\ny",
    "a  {%- if t -%}  \n b {%- endif %}\nc", "a\n  {%+ if t %}b{%+ endif +%}\nc",
    "  {# c #}\nx  {# c #}\ny", " {#- c -#} \nx", "{#+ c +#}\nx", "  {{ s }}\n{{- s -}}\n z",
    "{% raw %}\n {{ x }} {% endraw %}\nq", " {%- raw -%} {{ x }} {%- endraw -%} q",
    "x {% raw %}{% if %}{% endraw %}", "{% raw %}", "{# never", "{{ 'never }}", "{% if t %}",
    "{{ }}", "{% %}", "{{ a b }}", "{% endif %}", "{% include 'x' %}", "{{ s | nope }}",
    "{{ s is nope }}", "{% set x %}a{{ s }}{% endset %}{{ x }}", "{% set x | upper %}a{% endset %}{{ x }}",
    "{% set x, y = 1, 2 %}{{ x }}{{ y }}", "{% set x = 1, %}{{ x }}", "{% set (x, y) = l[:2] %}{{ x + y }}",
    "{% set x = 1 %}{% for i in l %}{% set x = i %}{{ x }}{% endfor %}{{ x }}",
    "{% set x = 1 %}{% if t %}{% set x = 2 %}{% endif %}{{ x }}",
    "{% for i in l %}{{ x }}{% set x = i %}{{ x }}{% endfor %}", "{% for s in l %}{{ s }}{% endfor %}{{ s }}",
    "{% for i in l %}{{ s }}{% endfor %}{% set s = 5 %}{{ s }}",
    "{{ s }}{% for i in l %}{{ s }}{% endfor %}{% set s = 5 %}{{ s }}",
    "{% macro m() %}{{ s }}{{ y }}{% endmacro %}{% set y = 1 %}{{ m() }}{% set y = 2 %}{{ m() }}",
    "{% macro m(a, b=a, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}{{ m(1, c=2) }}{{ m(b=2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(q=2) }}",
    "{% macro m(a, b=1, c) %}{% endmacro %}", "{% macro m(n) %}{{ n }}{% if n %}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(5) }}",
    "{% for i in l %}{% macro m() %}{{ i }}{% endmacro %}{{ m() }}{% endfor %}{{ m }}",
    "{% set ns = namespace(a=1, b='x') %}{% for i in l %}{% set ns.a = ns.a + i %}{% endfor %}{{ ns.a }}{{ ns.c }}{{ ns['b'] }}",
    "{% set n.a = 1 %}", "{% set ns = namespace(d) %}{{ ns.a }}{{ ns }}", "{% set ns = namespace() %}{% set ns.x, ns.y = 1, 2 %}{{ ns.x }}{{ ns.y }}",
    "{% for i in l %}{{ loop.index }}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.cycle('a', 'b') }}{{ loop.changed(i) }}{{ loop.depth }}\n{% endfor %}",
    "{% for i in l if i > 1 %}{{ i }}{{ loop.length }}{{ loop.last }}{% else %}none{% endfor %}",
    "{% for i in l if i > 9 %}{{ i }}{% else %}none{{ i }}{% endfor %}", "{% for i in e %}{% else %}empty{% endfor %}",
    "{% for i in range(9) %}{% if i == 2 %}{% continue %}{% endif %}{% if i == 5 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in l %}{{ i }}{% break %}{% else %}E{% endfor %}", "{{ [s | safe] }}{{ '<' + (s | safe) }}",
    "{% for i in l %}{{ i }}{% if i == 1 %}{% break %}{% endif %}{% else %}E{% endfor %}", "{% break %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "{% for k, v in l %}{% endfor %}",
    "{% for a, (b, c) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %}", "{% for x in d | dictsort %}{{ x }}{% endfor %}",
    "{% for i in l %}{% for j in l %}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% for i in l %}{{ loop }}{% endfor %}", "{% for x in n %}{% endfor %}", 
    "{% with a = 1, b = s %}{{ a }}{{ b }}{% endwith %}{{ a }}", "{% with %}{% set s = 1 %}{{ s }}{% endwith %}{{ s }}",
    "{% generation %}a{{ s }}{% endgeneration %}", "{{ raise_exception('no ' ~ s) }}", "{% if false %}{{ raise_exception('x') }}{% endif %}ok",
    "{{ 1 < 2 < 3 }}{{ 1 < 3 < 2 }}{{ 1 == 1 in [1] }}", "{{ 2 ** 3 ** 2 }}{{ -2 ** 2 }}{{ 2 ** -1 }}", "{{ 7 // 2 }}{{ -7 // 2 }}{{ -7 % 3 }}{{ 7 % -3 }}{{ 7.5 // 2 }}{{ -7.5 % 2 }}",
    "{{ 1 / 0 }}", "{{ 1 % 0 }}", "{{ 10 / 4 }}{{ 10 / 5 }}", "{{ not t }}{{ not missing }}{{ t and n }}{{ z or s }}",
    "{{ 'a' if t }}{{ 'a' if z }}{{ 'a' if z else 'b' }}", "{{ ('a' if z).x }}", "{{ missing.x }}", "{{ missing['x'] }}", "{{ missing() }}", "{{ none.x }}|{{ n.x }}|{{ none.x.y }}",
    "{{ missing + 1 }}", "{{ missing == none }}{{ missing == nope }}{{ missing in [1] }}", "{{ missing | length }}{{ missing | list }}{{ missing ~ 'x' }}",
    "{{ d['items'] }}{{ d.b }}{{ d['zz'] }}", "{{ d.keys() }}{{ d.values() }}{{ d.items() }}", "{{ 'k' in d }}{{ 'b' in d }}{{ 1 in l }}",
    "{{ {'a': 1, 'a': 2, 1: 3, 1.0: 4, true: 5} }}", "{{ {l: 1} }}", "{{ dict(a=1, b=2) }}{{ dict({'x': 1}, y=2) }}{{ dict([(1, 2)]) }}", "{{ (1,) }}{{ () }}{{ (1, 2)[0] }}",
    "{{ '%s-%d%%' % (s, n) }}{{ '%s' % n }}", "{{ 'ab' * 3 }}{{ 3 * [1] }}{{ 'a' * -1 }}", "{{ u[::-1] }}{{ u | length }}{{ u[3:6] }}{{ u | upper }}{{ u | lower }}{{ u | title }}{{ u.title() }}",
    "{{ '\\x41\\u00e9\\U0001F389\\n\\101\\q\\'' }}", "{{ 'a' \"b\" 'c' }}", "{{ '\\é' }}", "{{ '\\u12' }}", "{{ q }}{{ [q] }}{{ q | tojson }}", "{{ floats }}{{ floats | tojson }}",
    "{{ range(5) }}{{ range(1, 9, 3) | list }}{{ range(5)[1:3] }}{{ range(9, 0, -2) | list }}{{ range(3) == range(3) }}", "{{ range(1000000) }}", "{{ range(3) | length }}{{ 2 in range(3) }}",
    "{{ objects | map(attribute='k', default='-') | join(',') }}", "{{ objects | sort(attribute='n') | map(attribute='n') | list }}", "{{ words | sort }}{{ words | sort(case_sensitive=true) }}{{ words | unique | list }}{{ words | sort(reverse=true) }}",
    "{{ l | sort | first }}{{ l | last }}{{ l | min }}{{ l | max }}{{ l | sum }}", "{{ nested | tojson(indent=2) }}", "{{ {} | tojson(indent=2) }}{{ [[]] | tojson(indent=4) }}", "{{ {1: 2, none: 3, true: 4, 2.5: 5} | tojson }}",
    "{{ lines | indent }}|{{ lines | indent(2, first=true) }}|{{ lines | indent('> ', blank=true) }}", "{{ lines.splitlines() }}{{ lines.splitlines(true) }}", "{{ w.strip() }}|{{ w | trim }}|{{ w.lstrip() }}|{{ w.rstrip() }}|{{ 'xxaxx'.strip('x') }}",
    "{{ ' a b  c '.split() }}{{ 'a,b,c'.split(',', 1) }}{{ 'a b c'.split(none, 1) }}{{ 'a,b,c'.rsplit(',', 1) }}{{ ' a b c '.rsplit(none, 1) }}{{ 'a,b'.split(sep=',') }}{{ 'a'.split('') }}",
    "{{ '12' | int }}{{ '1.9' | int }}{{ 'x' | int }}{{ 'x' | int(9) }}{{ '0x1f' | int(0, 16) }}{{ 1.9 | int }}{{ '2.5' | float }}{{ none | int }}{{ ' 5 ' | int }}{{ '1_0' | int }}", "{{ 2.5 | round }}{{ 3.5 | round }}{{ 2.567 | round(2) }}{{ 2.1 | round(0, 'ceil') }}{{ 7 | round }}{{ 2.9 | round(method='floor') }}",
    "{{ l.append(4) }}", "{{ d.update({}) }}", "{{ s.__class__ }}", "{{ s.nope() }}", "{{ s | join('-') }}", "{{ d | join('-') }}", "{{ d | length }}{{ d | list }}{{ d | first }}", "{{ s is string and n is number }}{{ n is divisibleby 7 }}{{ 3 is in [3] }}",
    "{{ a.b.c is defined }}", "{{ nested.p.q[1].r is none }}{{ nested['p']['q'][0] }}{{ nested.p.q.1.r }}{{ l.0 }}", "{% if l %}1{% elif s %}2{% else %}3{% endif %}{% if e %}1{% elif s %}2{% else %}3{% endif %}", "{{ 0.1 + 0.2 }}{{ 1e100 }}{{ 1.0 }}{{ 1e16 }}{{ 123456789012345678 }}",
    "{{ l[1:] + [4] }}{{ l[-1] }}{{ l[9] }}{{ l[::0] }}", "{{ 'abc'[1] }}{{ 'abc'[-1] }}{{ 'abc'[9] }}{{ 'abc'['x'] }}", "{{ \"it's\" }}{{ [\"it's\"] }}{{ ['\"'] }}{{ ['\\'\"'] }}", "{{ ['\\x00\\u200b\\xad é \\u3000'] }}",
    "{%- for m in objects -%}\n  {{- m.k }}\n  {%- if not loop.last %}, {% endif %}\n{%- endfor %}\nend", "{% set x = namespace %}{{ x is callable }}", "{% for i in l %}{% set i = 5 %}{{ i }}{% endfor %}",
    "{% macro m(x) %}{% set x = 2 %}{{ x }}{% endmacro %}{{ m(1) }}{{ m(3) }}", "{% set x %}{% set s = 1 %}{{ s }}{% endset %}{{ x }}{{ s }}", "{% if t %}{% macro m() %}in{% endmacro %}{% endif %}{{ m() }}", "{{ m() }}{% macro m() %}late{% endmacro %}",
    "{% for x in words | map('lower') | unique %}{{ x }}{{ loop.last }}{% endfor %}", "{{ words | select('equalto', 'B') | list }}{{ words | reject('in', ['B']) | list }}", "{{ objects | selectattr('k', 'equalto', 'v') | list | length }}", "{{ l | map('string') | join }}",
    "{{ (l | map('string')) is iterable }}{{ (l | map('string')) is sequence }}{{ l | select | length }}", "{{ s|upper ~ '!' }}{{ -n|abs }}{{ (-n)|abs }}", "{{ 1 if t else 2 if z else 3 }}", "{{ s.upper().lower()[0:2].title() }}", "{{ [1, 2] == [1, 2] }}{{ {'a': 1} == {'a': 1} }}{{ (1, 2) == [1, 2] }}{{ 1 == 1.0 }}{{ true == 1 }}{{ '1' == 1 }}", "{{ [1, 2] < [1, 3] }}{{ 'a' < 'b' }}{{ 'a' < 1 }}",
]

CHAT_TEMPLATES = [
    # plain ChatML
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' "
    "}}{% endif %}",
    # turns in brackets, strict alternation
    "{%- if messages and messages[0]['role'] == 'system' %}\n    {%- set system = "
    "messages[0]['content'] %}\n    {%- set rest = messages[1:] %}\n{%- else %}\n    {%- set rest = "
    "messages %}\n{%- endif %}\n{{- bos_token }}\n{%- for m in rest %}\n    {%- if (m['role'] == "
    "'user') != (loop.index0 % 2 == 0) %}\n        {{- raise_exception('roles must alternate') }}\n"
    "    {%- endif %}\n    {%- if m['role'] == 'user' %}\n        {%- if loop.last and system is "
    "defined %}\n            {{- '[INST] ' + system + '\\n\\n' + m['content'] + '[/INST]' }}\n"
    "        {%- else %}\n            {{- '[INST] ' + m['content'] + '[/INST]' }}\n        {%- endif "
    "%}\n    {%- else %}\n        {{- ' ' + m['content'] | trim + eos_token }}\n    {%- endif %}\n"
    "{%- endfor %}",
    # headers, tools as indented JSON, a date
    "{{- bos_token }}\n{%- if not date is defined %}\n    {%- set date = '26 Jul 2024' %}\n{%- endif "
    "%}\n{%- if not tools is defined %}\n{%- set tools = none %}\n{%- endif %}\n{%- set ns = "
    "namespace(first=true) %}\n<|h|>system<|e|>\n\nToday: {{ date }}\n{% if tools is not none %}\n"
    "{%- for t in tools %}\n{{- t | tojson(indent=4) }}\n{{- '\\n\\n' }}\n{%- endfor %}\n{%- endif %}"
    "\n{%- for message in messages %}\n{%- if not (message.role == 'tool' or 'tool_calls' in message)"
    " %}\n{{- '<|h|>' + message['role'] + '<|e|>\\n\\n'+ message['content'] | trim + '<|eot|>' }}\n"
    "{%- elif 'tool_calls' in message %}\n{%- if message.tool_calls | length != 1 %}{{- "
    "raise_exception('one call only') }}{%- endif %}\n{%- set call = (message.tool_calls[0].function "
    "if message.tool_calls[0].function else message.tool_calls[0]) %}\n{{- '{\"name\": \"' + call.name "
    "+ '\", \"parameters\": ' }}{{- call.arguments | tojson }}{{- '}' }}\n{%- else %}\n{%- if "
    "message.content is mapping or message.content is iterable %}{{- message.content | tojson }}"
    "{%- else %}{{- message.content }}{%- endif %}\n{%- endif %}\n{%- endfor %}",
    # calls and parameters as XML, macros over mappings
    "{%- macro extra(obj, keys) %}\n    {%- if obj is mapping %}\n        {%- for key in obj if key "
    "not in keys %}\n            {%- if obj[key] is mapping or (obj[key] is sequence and obj[key] is "
    "not string) %}\n                {{- '\\n<' ~ key ~ '>' ~ (obj[key] | tojson | safe) ~ '</' ~ key "
    "~ '>' }}\n            {%- else %}\n                {{- '\\n<' ~ key ~ '>' ~ (obj[key] | string) ~"
    " '</' ~ key ~ '>' }}\n            {%- endif %}\n        {%- endfor %}\n    {%- endif %}\n"
    "{%- endmacro %}\n{%- if tools is iterable and tools | length > 0 %}\n    {{- '<tools>' }}\n    "
    "{%- for tool in tools %}\n        {%- if tool.function is defined %}\n            {%- set tool = "
    "tool.function %}\n        {%- endif %}\n        {{- '\\n<name>' ~ tool.name ~ '</name>' }}\n"
    "        {%- if tool.description is defined %}{{- '<d>' ~ (tool.description | trim) ~ '</d>' }}"
    "{%- endif %}\n        {%- for name, fields in tool.parameters.properties | items %}\n            "
    "{{- '\\n<p>' ~ name }}{{- extra(fields, ['description']) }}\n        {%- endfor %}\n        {%- "
    "set handled = ['type', 'properties'] %}\n        {{- extra(tool.parameters, handled) }}\n    {%- "
    "endfor %}\n{%- endif %}\n{%- for message in messages %}\n    {%- if message.tool_calls is defined"
    " and message.tool_calls is iterable %}\n        {%- for c in message.tool_calls %}\n            "
    "{%- if c.function is defined %}{%- set c = c.function %}{%- endif %}\n            {{- '\\n<f=' + "
    "c.name + '>\\n' }}\n            {%- if c.arguments is defined %}\n                {%- for k, v in "
    "c.arguments|items %}\n                    {%- set v = v | tojson | safe if v is mapping or (v is "
    "sequence and v is not string) else v | string %}\n                    {{- '<' + k + '>' + v }}\n"
    "                {%- endfor %}\n            {%- endif %}\n        {%- endfor %}\n    {%- elif "
    "loop.previtem and loop.previtem.role == 'tool' and not loop.last and loop.nextitem.role != 'user'"
    " %}\n        {{- '\\n' }}\n    {%- endif %}\n    {{- message.content }}\n{%- endfor %}",
    # thoughts kept after the last question only, reverse search
    "{%- set ns = namespace(multi=true, last=messages|length - 1) %}\n{%- for message in "
    "messages[::-1] %}\n    {%- set index = (messages|length - 1) - loop.index0 %}\n    {%- if ns.multi"
    " and message.role == \"user\" and message.content is string and "
    "not(message.content.startswith('<tool_response>') and message.content.endswith("
    "'</tool_response>')) %}\n        {%- set ns.multi = false %}\n        {%- set ns.last = index %}\n"
    "    {%- endif %}\n{%- endfor %}\n{%- for message in messages %}\n    {%- if message.content is "
    "string %}\n        {%- set content = message.content %}\n    {%- else %}\n        {%- set content"
    " = '' %}\n    {%- endif %}\n    {%- set thought = '' %}\n    {%- if '</think>' in content %}\n"
    "        {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip("
    "'\\n') %}\n        {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n    {%- endif"
    " %}\n    {%- if loop.index0 > ns.last and (loop.last or thought) %}{{- thought.strip('\\n') }}{%- "
    "endif %}\n    {{- '|' + message.role + ':' + content }}\n    {%- if loop.first or "
    "(messages[loop.index0 - 1].role != \"tool\") %}{{- '#' }}{%- endif %}\n{%- endfor %}\n{%- if "
    "enable_thinking is defined and enable_thinking is false %}{{- '!' }}{%- endif %}",
    # other names for roles, content in parts
    "{{ bos_token }}{% if messages and messages[0]['role'] == 'system' %}{% set first = "
    "messages[0]['content'] + '\\n\\n' if messages[0]['content'] is string else "
    "messages[0]['content'][0]['text'] %}{% set loop_messages = messages[1:] %}{% else %}{% set first "
    "= '' %}{% set loop_messages = messages %}{% endif %}{% for message in loop_messages %}\n{% set "
    "role = 'model' if message['role'] == 'assistant' else message['role'] %}\n{{ '<turn>' + role + "
    "'\\n' + (first if loop.first else '') }}\n{% if message['content'] is string %}\n{{ "
    "message['content'] | trim }}\n{% elif message['content'] is iterable %}\n{% for item in "
    "message['content'] %}{% if item['type'] == 'image' %}<img>{% elif item.type == 'text' %}{{ "
    "item['text'] | trim }}{% endif %}{% endfor %}\n{% else %}\n{{ raise_exception('bad content') }}\n"
    "{% endif %}\n{{ '<end>\\n' }}{% endfor %}{% if add_generation_prompt %}{{'<turn>model\\n'}}{% "
    "endif %}",
]

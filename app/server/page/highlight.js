// SPDX-License-Identifier: Apache-2.0
// A little colour for code: comments, strings, numbers and the words most languages reserve. It
// knows families of languages and no grammar, which is enough to find one's way in a short answer.

const C_WORDS = "auto bool boolean break case catch char class const continue default delete do " +
    "double else enum export extends extern final finally float for func function go goto if " +
    "implements import in inline instanceof int interface let long namespace new null nullptr of " +
    "package private protected public return short signed sizeof static struct super switch this " +
    "throw throws try type typedef typeof union unsigned using var virtual void volatile while " +
    "async await yield true false fn impl match mod mut pub ref self trait use where unsafe " +
    "crate loop move dyn val fun object override defer chan map range select undefined template typename";
const PY_WORDS = "and as assert async await break class continue def del elif else except False " +
    "finally for from global if import in is lambda None nonlocal not or pass raise return True " +
    "try while with yield match case self begin end do then module require unless until nil " +
    "local function true false";
const SH_WORDS = "if then else elif fi for while until do done case esac in function return " +
    "local export set unset echo cd exit source alias sudo";
const SQL_WORDS = "select from where and or not insert into values update set delete create " +
    "table drop alter add join left right inner outer full on as group by order having limit offset " +
    "distinct union all null is in like between exists primary key foreign references index view " +
    "default case when then else end with int integer text varchar boolean date timestamp";

const words = (list) => new Set(list.split(" "));
const STRING = `"(?:\\\\.|[^"\\\\\\n])*"?|'(?:\\\\.|[^'\\\\\\n])*'?`;
const NUMBER = "\\b(?:0[xX][\\da-fA-F_]+|0[bB][01_]+|\\d[\\d_]*(?:\\.\\d+)?(?:[eE][+-]?\\d+)?)\\w*";
const WORD = "[A-Za-z_$][\\w$]*";
const family = (comment, string, list, flags = "g") => ({
    pattern: new RegExp(`(${comment})|(${string})|(${NUMBER})|(${WORD})`, flags),
    words: words(list), anyCase: flags.includes("i"),
});
const C_LIKE = family("\\/\\/[^\\n]*|\\/\\*[^]*?(?:\\*\\/|$)",
                      `${STRING}|\`(?:\\\\.|[^\`\\\\])*\`?`,
                      C_WORDS);
const HASH = family("#[^\\n]*", `"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|${STRING}`, PY_WORDS);
const SHELL = family("(?<![^\\s;])#[^\\n]*", STRING, SH_WORDS);
const SQL = family("--[^\\n]*|\\/\\*[^]*?(?:\\*\\/|$)", "'(?:''|[^'])*'?", SQL_WORDS, "gi");
const FAMILIES = new Map([
    ...("c h cpp c++ cc cxx hpp cs csharp java js javascript jsx ts typescript tsx go rust rs " +
        "kotlin kt swift scala dart php css scss json jsonc json5 cuda glsl objc zig mjs")
        .split(" ").map((name) => [name, C_LIKE]),
    ..."python py python3 ruby rb yaml yml toml ini r julia elixir nim cmake makefile perl lua"
        .split(" ").map((name) => [name, HASH]),
    ..."bash sh shell zsh console dockerfile fish".split(" ").map((name) => [name, SHELL]),
    ..."sql sqlite postgresql mysql".split(" ").map((name) => [name, SQL]),
]);
const MAX_LENGTH = 50000; // characters; longer code stays plain

function span(name, text) {
    const element = document.createElement("span");
    element.className = name;
    element.textContent = text;
    return element;
}

// The code as a list of strings and elements whose text is the code.
export function colour(text, language) {
    const rules = FAMILIES.get(language.toLowerCase());
    if (!rules || text.length > MAX_LENGTH) {
        return [text];
    }
    const out = [];
    let at = 0;
    for (const match of text.matchAll(rules.pattern)) {
        const [all, comment, string, number, word] = match;
        const reserved = word && rules.words.has(rules.anyCase ? word.toLowerCase() : word);
        const called = word && !reserved && text[match.index + all.length] === "(";
        const name = comment ? "t-comment" : string ? "t-string" : number ? "t-number" :
            reserved ? "t-word" : called ? "t-call" : "";
        if (name) {
            out.push(text.slice(at, match.index), span(name, all));
            at = match.index + all.length;
        }
    }
    out.push(text.slice(at));
    return out.filter((part) => part !== "");
}

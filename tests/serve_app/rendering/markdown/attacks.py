"""Markdown that tries to become script, made of well-known patterns, some thousand of it."""

from collections.abc import Iterator
from itertools import product

URLS = (
    *(
        "javascript:alert(1)",
        "JaVaScRiPt:alert(1)",
        "java\tscript:alert(1)",
        " javascript:alert(1)",
    ),
    *("java&#115;cript:alert(1)", "&#106;avascript:alert(1)", "javascript&colon;alert(1)"),
    *("&#x6A&#x61&#x76&#x61&#x73&#x63&#x72&#x69&#x70&#x74&#x3A&#x61lert(1)", "\x01javascript:1"),
    *("javascript&#58;alert(1)", "java&NewLine;script:alert(1)", "java&Tab;script:alert(1)"),
    *("vbscript:msgbox(1)", "data:text/html;base64,PHNjcmlwdD4=", "data:image/svg+xml,<svg/>"),
    *("data:text/html,<script>alert(1)</script>", "file:///etc/passwd", "blob:https://e.org/1"),
    *("//evil.example/x", "/v1/sessions", "x.html", "#a", "?q", "\\\\evil", "view-source:x"),
    *('https://e.org/"onmouseover=alert(1)//', "https://e.org/'><img src=x onerror=alert(1)>"),
    *("https://e.org/`onclick=alert(1)", "HTTPS://e.org", "feed:javascript:alert(1)", "ws://e.org"),
    *("javascript://e.org/%0Aalert(1)", "https:javascript:alert(1)", "mailto:a@b?x=<script>"),
)
PLACES = (
    *("[a]({})", "[a](<{}>)", '[a]({} "t")', "![a]({})", "![a](<{}>)", "<{}>", "[![a]({})]({})"),
    *("[a]: {}\n\n[a]", "[a][1]\n\n[1]: <{}>", "- [a]({})", "> [a]({})", "|[a]({})|\n|-|\n|b|"),
    *("$\\href{{{}}}{{x}}$", "$$\\href{{{}}}{{x}}$$", "# [a]({})", "**[a]({})**", "{}", "`{}`"),
)
HTML = (
    *("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "<svg onload=alert(1)>"),
    *(
        "<svg><script>alert(1)</script></svg>",
        "<iframe src=javascript:alert(1)>",
        "<base href=//e>",
    ),
    *(
        "<a href=javascript:alert(1)>x</a>",
        "<form action=//e><button>x</button></form>",
        "<!--x-->",
    ),
    *("<math><mtext><script>alert(1)</script></mtext></math>", "<style>*{color:red}</style>"),
    *("<math href='javascript:alert(1)'>x</math>", "<math><maction actiontype=statusline>x"),
    *("<math><annotation-xml encoding='text/html'><script>alert(1)</script></annotation-xml>"),
    *('<math><mtext><table><mglyph><style><!--</style><img title="--&gt;&lt;img src=1>">'),
    *('<svg></p><style><a id="</style><img src=1 onerror=alert(1)>">', "<body onload=alert(1)>"),
    *(
        "<object data=javascript:alert(1)>",
        "<embed src=//e>",
        "<meta http-equiv=refresh content=0>",
    ),
    *(
        "<link rel=stylesheet href=//e>",
        "<input autofocus onfocus=alert(1)>",
        "<b onclick=alert(1)>",
    ),
    *(
        "<details open ontoggle=alert(1)>",
        "<video><source onerror=alert(1)>",
        "<x style=color:red>",
    ),
    *("<a xlink:href=javascript:alert(1)>", '<noscript><p title="</noscript><img src=x>">'),
    *(
        "</code></pre></div><script>alert(1)</script>",
        "</math><img src=x>",
        '"><img src=x>',
        "<img ",
    ),
    *(
        "<plaintext>",
        "<textarea><script>",
        "<title><img src=x>",
        "<template><img src=x></template>",
    ),
    *(
        "&lt;script&gt;alert(1)&lt;/script&gt;",
        "&#60;img src=x onerror=alert(1)&#62;",
        "<\0script>x",
    ),
)
HOMES = (
    *(
        "{}",
        "a {} b",
        "# {}",
        "- {}",
        "> {}",
        "| {} |\n|---|\n| {} |",
        "*{}*",
        "[{}](https://e.org)",
    ),
    *('[a](https://e.org "{}")', "![{}](https://e.org/p.png)", "`{}`", "```\n{}\n```", "    {}"),
    *(
        "```{}\nx\n```",
        "```python {}\nx\n```",
        "```html\n{}\n```",
        "~~~{}\nx\n~~~",
        "$`{}`$",
        "${}$",
    ),
    *("$\\text{{{}}}$", "$$\n\\text{{{}}}\n$$", "\\({}\\)", "\\[\n{}\n\\]", "$\\style{{{}}}{{x}}$"),
    *(
        "$\\class{{{}}}{{x}}$",
        "$\\unicode{{{}}}$",
        "$\\operatorname{{{}}}$",
        "$\\color{{{}}}{{x}}$",
    ),
    *("$\\rule{{{}}}{{{}}}$", "$\\mathbf{{{}}}$", "$\\hspace{{{}}}$", "$\\tag{{{}}}$", "$\\{}$"),
    *("$\\begin{{array}}{{{}}}x\\end{{array}}$", "$\\begin{{{}}}x\\end{{{}}}$", "$x_{{{}}}$"),
    *("<sup><|{}|></sup>", "<sup><|1|>{}</sup>", "<sup><|1{}|></sup>", "<sup>{}<|1|></sup>"),
)
OTHERS = (
    *(
        "<sup><|99999999999|></sup>",
        "<sup><|-1|></sup>",
        "<sup><|1 onclick=x|></sup>",
        "<sup>1</sup>",
    ),
    *("<a@b.c>", "<javascript:alert(1)>", '<https://e.org/"onclick="x>', "<data:text/html,x>"),
    *(
        "$\\rule{9999em}{9999em}$",
        "$\\hspace{99999px}$",
        "$\\Huge\\Huge\\Huge x$",
        "$\\unicode{x3c}$",
    ),
    *("$\\unicode{60}\\unicode{x3C}script$", "$\\mathchoice{a}{b}{c}{d}$", "$\\require{html}$"),
    *(
        "```../../etc/passwd\nx\n```",
        "```__import__('os')\nx\n```",
        "```" + "a" * 5000 + "\nx\n```",
    ),
    *(
        '```python" onclick="x\n1\n```',
        "```c++<img>\n1\n```",
        "```\u202e\n1\n```",
        "[a](https://\u202ee)",
    ),
)


def attacks() -> Iterator[str]:
    for place, url in product(PLACES, URLS):
        yield place.format(url, url)
    for home, html in product(HOMES, HTML):
        yield home.format(html, html)
    yield from OTHERS

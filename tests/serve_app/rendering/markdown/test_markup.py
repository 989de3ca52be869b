"""What markdown becomes: the HTML that the page is written for."""

import time

import pytest
from pygments.lexers import get_lexer_by_name

from serve_app.rendering.escaped import escaped
from serve_app.rendering.markdown.blocks import cut
from serve_app.rendering.markdown.markup import Markup
from serve_app.rendering.markdown.mathml import mathml
from tests.serve_app.rendering.markdown.checked import objections

MARKUP = Markup()
LINK = 'target="_blank" rel="noopener noreferrer nofollow"'

REPLY = r"""# 二次方程 $ax^2$

公式是：
\[
x = \frac{-b \pm \sqrt{b^2 - 4ac}}{2a}
\]
其中 \(a \ne 0\)<sup><|1|></sup>。

| n | $n^2$ |
|---|------:|
| 1 | 1 |

1. **第一：**代入
   ```python
   def root(a: float) -> float:
       return a ** 0.5
   ```
2. ~~第二~~ 完成 ![图](https://e.org/a.png)

> 引用 <https://e.org>
"""


def html(markdown: str) -> str:
    return MARKUP.html(markdown).strip()


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("a\nb", "<p>a<br>\nb</p>"),
        ("## a ##", "<h2>a</h2>"),
        ("*a* **b** `c` ~~d~~", "<p><em>a</em> <strong>b</strong> <code>c</code> <del>d</del></p>"),
        ("3. a\n4. b", '<ol start="3">\n<li>a</li>\n<li>b</li>\n</ol>'),
        ("---", "<hr>"),
        ("[a](https://e.org/b)", f'<p><a href="https://e.org/b" {LINK}>a</a></p>'),
        ("<mailto:a@b.c>", f'<p><a href="mailto:a@b.c" {LINK}>mailto:a@b.c</a></p>'),
        ("[a](/b)", "<p>[a](/b)</p>"),
        ("![a](http://e.org/b.png)", f'<p><a href="http://e.org/b.png" {LINK}>a</a></p>'),
        ("![](http://e.org)", f'<p><a href="http://e.org" {LINK}>http://e.org</a></p>'),
        ("[![a](http://e.org/b)](http://f.org)", f'<p><a href="http://f.org" {LINK}>a</a></p>'),
        ("![a](data:image/png,A)", "<p>![a](data:image/png,A)</p>"),
        ("a <sup><|12|></sup>", '<p>a <sup class="cite">12</sup></p>'),
        ("`<sup><|1|></sup>`", "<p><code>&lt;sup&gt;&lt;|1|&gt;&lt;/sup&gt;</code></p>"),
        ("<b>a</b>", "<p>&lt;b&gt;a&lt;/b&gt;</p>"),
        ("a[^1] [b]: /c", "<p>a[^1] [b]: /c</p>"),
    ],
)
def test_what_markdown_becomes(markdown: str, expected: str) -> None:
    assert html(markdown) == expected


def _a(url: str) -> str:
    return f'<a href="{url}" {LINK}>{url}</a>'


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("见https://e.org/a?b=1#c。好", f"见{_a('https://e.org/a?b=1#c')}。好"),
        ("http://e.org的网站", f"{_a('http://e.org')}的网站"),
        ("(https://e.org/a_(b)).", f"({_a('https://e.org/a_(b)')})."),
        ("**https://e.org**!", f"<strong>{_a('https://e.org')}</strong>!"),
        ("https://e.org, https://f.org.", f"{_a('https://e.org')}, {_a('https://f.org')}."),
        ("https://e.org<sup><|1|></sup>", f'{_a("https://e.org")}<sup class="cite">1</sup>'),
        ("`https://e.org`", "<code>https://e.org</code>"),
        ("e.org file://e.org javascript://e.org", "e.org file://e.org javascript://e.org"),
        ("https://", "https://"),
        ("~~https://e.org~~", f"<del>{_a('https://e.org')}</del>"),
        ("https://e.org/?a=1&b=2", _a("https://e.org/?a=1&amp;b=2")),
        ("https://e.org/?a&lt;", f"{_a('https://e.org/?a')}&lt;"),
        ("http://xn--pple-43d.com", _a("http://xn--pple-43d.com")),
        ("https://e.org/%E2%80%AEmoc", _a("https://e.org/%E2%80%AEmoc")),
        ("https://good.com@e.org/", "https://good.com@e.org/"),
        ("<http://xn--pple-43d.com>", _a("http://xn--pple-43d.com")),
        ("xhttps://e.org", "xhttps://e.org"),
        ("[https://e.org](https://f.org)", f'<a href="https://f.org" {LINK}>https://e.org</a>'),
        ("https://e.org/" + "a" * 3000, "https://e.org/" + "a" * 3000),
    ],
)
def test_an_address_in_the_text_is_a_link(markdown: str, expected: str) -> None:
    assert html(markdown) == f"<p>{expected}</p>"


@pytest.mark.parametrize("text", ["1://" * 5000, "https://" * 5000, "https://a" + ")" * 20000])
def test_much_that_looks_like_addresses_takes_no_time(text: str) -> None:
    began = time.process_time()
    html(text)
    assert time.process_time() - began < 2, "a rule that looked back took 4 s and more"


def test_a_table_has_its_alignment_as_classes() -> None:
    table = html("| a | b | c |\n|---|:-:|--:|\n| 1 | 2 |")
    assert '<th>a</th>\n<th class="center">b</th>\n<th class="right">c</th>' in table
    assert '<td>1</td>\n<td class="center">2</td>\n<td class="right"></td>' in table


@pytest.mark.parametrize(
    ("markdown", "is_formula"),
    [
        ("$x$", True),
        ("价格$x$元", True),
        ("$x$ is 5", True),
        (r"\(x\)", True),
        ("a $$x$$ b", True),
        ("$5 and $6", False),
        ("$ x $", False),
        ("2$ and 3$", False),
        (r"\$x\$", False),
        ("`$x$`", False),
        ("    $x$", False),
        (r"\( \)", False),
        ("$$\n\n$$", False),
        ("$$\nx\n\ny\n$$", False),
    ],
)
def test_what_is_a_formula(markdown: str, is_formula: bool) -> None:
    assert ("<math>" in html(markdown) or "<math " in html(markdown)) == is_formula


X = "<mrow><mi>x</mi></mrow></math>"


@pytest.mark.parametrize(
    ("markdown", "expected"),
    [
        ("$x$", f"<p><math>{X}</p>"),
        ("$$x$$", f'<div class="math"><math display="block">{X}</div>'),
        ("\\[\nx\n\\]", f'<div class="math"><math display="block">{X}</div>'),
        ("a $$x$$", f'<p>a <span class="math"><math display="block">{X}</span></p>'),
        (
            "a\n$$\nx\n$$\nb",
            f'<p>a</p>\n<div class="math"><math display="block">{X}</div>\n<p>b</p>',
        ),
        (r"$\frac$", '<p><code class="tex">\\frac</code></p>'),
    ],
)
def test_what_formulas_become(markdown: str, expected: str) -> None:
    assert html(markdown) == expected


@pytest.mark.parametrize(
    ("latex", "part"),
    [
        (r"\mathbb{R}", "<mi>ℝ</mi>"),
        (r"\mathbf{x}", "<mi>𝐱</mi>"),
        (r"\mathcal{L}", "<mi>ℒ</mi>"),
        (r"\mathrm{d}x", "<mtext>d</mtext><mi>x</mi>"),
        (r"\begin{aligned} a &= b \end{aligned}", '<mtd columnalign="right"><mi>a</mi></mtd>'),
        (r"\begin{equation*} a \end{equation*}", "<mrow><mi>a</mi></mrow>"),
        (r"\begin{dcases} a \end{dcases}", "<mtable>"),
        (r"\text{a < b & c}", "<mtext>a&nbsp;&lt;&nbsp;b&nbsp;&amp;&nbsp;c</mtext>"),
        (r"\color{red}{x}", 'mathcolor="red"'),
        (r"\rule{9999em}{9999em}", '<mspace mathbackground="black"></mspace>'),
        (r"\href{https://e.org}{x}", "<mrow>"),
    ],
)
def test_what_latex_becomes(latex: str, part: str) -> None:
    assert part in html(f"$$\n{latex}\n$$")


def test_lines_of_a_formula_are_no_markdown() -> None:
    for lines in ("a\n+ b", "a\n---", "a\n# b", "a\n> b", "a\n1. b"):
        assert html(f"text\n$$\n{lines}\n$$").count("<math ") == 1


def test_code_has_classes_if_its_language_is_named() -> None:
    named = html("```python x=1\ndef f(): pass\n```")
    assert named.startswith('<div class="code" data-lang="python"><pre><code><span class="k">def')
    for fence in ("```\n{}\n```", "```no-such-language\n{}\n```", "```!\n{}\n```"):
        code = html(fence.format('print("a") # <b>'))
        assert "span" not in code and 'print("a") # &lt;b&gt;\n</code></pre></div>' in code
    assert html("    a").startswith('<div class="code"><pre><code>a')


def test_code_is_not_changed() -> None:
    source = "\n\n  a = 1\n\n\tb\n\n"
    shown = html(f"```text\n{source}```")
    assert shown == f'<div class="code" data-lang="text"><pre><code>{source}</code></pre></div>'
    assert get_lexer_by_name("text").get_tokens(source) is not None


@pytest.mark.parametrize(
    "markdown",
    ["**重点：**内容", "这是**“引用”**的", "这**（括号）**后", "中**a**文", "**a**b"],
)
def test_emphasis_needs_no_spaces_in_chinese(markdown: str) -> None:
    assert "<strong>" in html(markdown) and "**" not in html(markdown)


@pytest.mark.parametrize("markdown", ["** 中**文", "文 **中 **", "a * b * c", "**a.**b", "a_b_c"])
def test_what_is_no_emphasis_elsewhere_is_none(markdown: str) -> None:
    assert html(markdown) == f"<p>{markdown}</p>"


def test_every_beginning_of_a_reply_is_html() -> None:
    for end in range(len(REPLY)):
        text = REPLY[:end]
        assert not objections(MARKUP.html(text))
        cut(MARKUP.parser, text, is_whole=False)


def test_escaped_text_keeps_lines_and_citations() -> None:
    text = "\n<b>\n*a* <sup><|1|></sup>\n"
    assert escaped(text) == '<p>&lt;b&gt;<br>\n*a* <sup class="cite">1</sup></p>'


@pytest.mark.parametrize("length", ["20in", "-9em", "90ex", "50cm", "999px", "4", "calc(1em)"])
def test_no_formula_covers_the_page(length: str) -> None:
    made = mathml(rf"\rule{{{length}}}{{{length}}}x\hspace{{{length}}}", is_display=False)
    assert made is None or f'"{length}"' not in made


def test_short_lengths_of_formulas_stay() -> None:
    made = mathml(r"a\hspace{2em}b", is_display=False)
    assert made is not None and '"2em"' in made

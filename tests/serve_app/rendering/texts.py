"""Texts that models might write, whole, cut and mixed: strategies for hypothesis."""

from hypothesis import strategies as st

FRAGMENTS = (
    *("# Title\n", "## 标题 $x$\n", "text ", "你好，世界。", "a | b\n", "---|---\n", "1 | 2\n"),
    *("- item\n", "* item\n", "+ b\n", "  - inner\n", "1. one\n", "2. two\n", "    indented\n"),
    *("> quote\n", ">", "```python\n", "```\n", "~~~\n", "def f(): return 1\n", "***\n", "===\n"),
    *("---\n", "$$\n", "$$", r"\[", "\\[\n", "\\]\n", r"\]", r"\(", r"\)", "$x$", r"\frac{a}{b}"),
    *("**", "*", "_", "`", "``", "~~", "[a](https://b.c)", "![p](http://q.r/s.png)", "[a]: /b\n"),
    *("[a]", "<sup><|1|></sup>", "<sup><|", "|></sup>", "<b>", "<!--", "-->", "<div>\n", "&amp;"),
    *("\n", "\n\n", "\r\n", "\r", "\t", " ", "  \n", "\\\n", "\0", "<https://e.org>", "$", "|"),
)
fragments = st.sampled_from(FRAGMENTS)
texts = st.lists(fragments | st.text(max_size=4), max_size=40).map("".join)


@st.composite
def pieces(draw: st.DrawFn) -> list[str]:
    """A text in the pieces in which it streams."""
    text = draw(texts)
    cuts = sorted(draw(st.sets(st.integers(0, len(text)), max_size=len(text))))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]

"""Titles and text of HTML and Markdown."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins_svc.web_search.encodings import UnreadableError
from plugins_svc.web_search.markup import MAX_DEPTH, html_text, markdown_text

PAGE = """<!DOCTYPE html><html><head><title> The  library
</title><style>p { color: red }</style><script>var secret = 1</script></head>
<body><nav><a href="/">Home</a></nav><header><h1>Opening hours</h1></header>
<p>It opens at <b>ni</b>ne.<br>It closes&nbsp;at &lt;ten&gt;.</p><p hidden>draft</p>
<table><tr><td>Mon</td><td>9</td></tr></table><ul><li>one<li>two</ul>
<div role="navigation">menu</div><noscript>enable</noscript><iframe src="http://x/">frame</iframe>
<footer>imprint</footer><template>later</template><pre>a
  b</pre></body></html>"""


def words(text: str) -> str:
    return " ".join(text.split())


def test_html_without_scripts_styles_and_navigation() -> None:
    title, text, _ = html_text(PAGE)
    assert title == "The library"
    assert words(text) == ("Opening hours It opens at nine. It closes at <ten>. Mon 9 one two a b")
    assert "nine.\n" in text, "a block ends its line"


def test_html_of_all_kinds_of_damage() -> None:
    assert words(html_text("<p>one<div>two").text) == "one two"
    assert words(html_text("no markup").text) == "no markup"
    assert html_text("").title == ""
    assert words(html_text("<div>" * 5000 + "deep").text) == "deep"
    frames = "<html><head><title>T</title></head><frameset><frame src='a'></frameset></html>"
    assert html_text(frames).title == "T"


@pytest.mark.parametrize(
    "source",
    ["<html hidden><body><p>text", "<body hidden><p>text", "<body role=navigation><p>text"],
)
def test_a_page_that_is_hidden_whole_is_read(source: str) -> None:
    assert words(html_text(source).text) == "text"


@pytest.mark.parametrize("tag", ["<div>", "<DIV a='1'>", "<b>", "<x-y>"])
def test_defence_html_that_is_nested_too_deeply_is_refused(tag: str) -> None:
    for read in (html_text, markdown_text):
        with pytest.raises(UnreadableError, match="nested too deeply"):
            read(f"<div>\n{tag * (MAX_DEPTH + 1)}")


def test_many_elements_side_by_side_are_not_nested() -> None:
    for row in ("<p>tea", "<li>tea", "<br>tea", "<p><b>tea</b></p>", "<img src=x>tea"):
        assert html_text(row * (MAX_DEPTH + 1)).text.count("tea") == MAX_DEPTH + 1


@settings(deadline=None)
@given(st.text(), st.text())
def test_any_text_can_be_read_as_markup(before: str, after: str) -> None:
    source = f"{before}<p>word</p>{after}"
    assert isinstance(html_text(source).text, str)
    assert isinstance(markdown_text(source).text, str)


def test_markdown_without_markup() -> None:
    source = (
        "# The *library*\n\nIt [opens](http://x/) at **nine**\nand `closes` at ten.\n\n"
        "![a photo](p.png)\n\n* one\n* two\n\n| day | hour |\n|---|---|\n| Mon | 9 |\n\n"
        "```sh\nmake test\n```\n\n<div>block</div>\n\n<script>secret</script>\n\n"
        "See <eom> a<br>b.\n"
    )
    title, text, _ = markdown_text(source)
    assert title == "The library"
    assert words(text) == (
        "The library It opens at nine and closes at ten. a photo one two day hour Mon 9 "
        "make test block See <eom> ab."
    )


def test_front_matter_gives_the_title_and_is_no_text() -> None:
    assert markdown_text("---\ntitle: '开放时间'\ntags: [a]\n---\n# Other\n\ntext")[:2] == (
        "开放时间",
        "Other\ntext",
    )
    assert markdown_text("---\ntags: [a]\n---\ntext")[:2] == ("", "text")
    assert markdown_text("text\n---\nmore").title == "text"

"""`moss demo streamlit` starts, and its script, run by Streamlit's own tester, chats and clears."""

import os
import urllib.request
from importlib.util import find_spec

from page_process import running_page
from streamlit.testing.v1 import AppTest

SERVER = os.environ["OPENAI_BASE_URL"].removesuffix("/v1")
os.environ["MOSS_DEMO_URL"] = SERVER

with running_page("streamlit", SERVER) as url:
    assert urllib.request.urlopen(f"{url}/_stcore/health", timeout=10).read() == b"ok"

spec = find_spec("serve_app.cli.demo.streamlit_page")
assert spec is not None and spec.origin is not None
page = AppTest.from_file(spec.origin, default_timeout=120).run()
assert not page.exception, page.exception
labels = {slider.label: slider for slider in page.sidebar.slider}
assert {"Temperature", "Top p", "Top k", "Repetition penalty"} <= {*labels}, labels
labels["Temperature"].set_value(0.0)


def counts() -> list[str]:
    return [metric.value for metric in page.sidebar.metric]


page.chat_input[0].set_value("What is 12 * 13?").run()
assert not page.exception and not page.error, (page.exception, page.error)
assert "156" in page.chat_message[1].markdown[0].value, page.chat_message
assert any("Calculate" in text.value for text in page.chat_message[1].text)
assert counts()[0] == "1" and int(counts()[1]) > 0, counts()
page.chat_input[0].set_value("Who are you?").run()
assert "MOSS" in page.chat_message[3].markdown[0].value and counts()[0] == "2"
page.sidebar.button[0].click().run()
assert not page.chat_message and counts() == ["0", "0"], counts()

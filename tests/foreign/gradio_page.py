"""`moss demo gradio`, driven by Gradio's own client: a streamed reply, a second turn, Clear."""

import os
import urllib.request

from gradio_client import Client
from page_process import running_page

with running_page("gradio", os.environ["OPENAI_BASE_URL"].removesuffix("/v1")) as url:
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert b"Content-Security-Policy" in answer.read(), "pictures from elsewhere are not loaded"
    client = Client(url, verbose=False)
    sliders = (256, 0.8, 0.001)
    job = client.submit("What is 12 * 13?", [], *sliders, api_name="/chat")
    shown, counts = job.result(timeout=60)
    assert len(job.outputs()) > 2, "it streams"
    assert "156" in str(shown[-1]["content"]) and shown[-1]["role"] == "assistant", shown
    assert any((m.get("metadata") or {}).get("title") == "Inner thoughts" for m in shown), shown
    assert counts.startswith("Turns: 1.") and not counts.endswith(" 0."), counts
    again, counts = client.predict("Who are you?", shown, *sliders, api_name="/chat")
    assert "MOSS" in str(again[-1]["content"]) and counts.startswith("Turns: 2."), again
    shown, counts = client.predict(api_name="/clear")
    assert shown == [] and counts.startswith("Turns: 0."), (shown, counts)

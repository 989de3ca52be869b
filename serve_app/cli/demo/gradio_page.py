"""The page of MOSS's Gradio demo: a chat of the server for every visit."""

from collections.abc import Generator
from functools import partial
from typing import Any

import gradio as gr

from moss_tp.errors import MossError
from serve_app.cli.demo.told import Told
from serve_app.client.chat_client import ChatClient

# A picture from elsewhere would tell its host of the chat.
HEAD = """<meta http-equiv="Content-Security-Policy" content="img-src 'self' data: blob:">"""
Message = dict[str, Any]
Page = tuple[list[Message], str, str]  # what the chat shows, its uid, the counts


def run(url: str, key: str | None, host: str, port: int) -> None:
    """Serves the page until a Ctrl-C."""
    page = build(url, key)
    page.launch(server_name=host, server_port=port, share=False, quiet=True, head=HEAD)


def build(url: str, key: str | None) -> Any:
    """The page as Gradio's blocks."""
    with gr.Blocks(title="MOSS", analytics_enabled=False) as page:
        gr.Markdown("# MOSS")
        shown, uid = gr.Chatbot(allow_tags=False, buttons=["copy"]), gr.State("")
        counts = gr.Markdown(_counts([], 0))
        with gr.Row():
            with gr.Column(scale=4):
                text = gr.Textbox(show_label=False, placeholder="Input...", lines=3)
                submit = gr.Button("Submit", variant="primary")
            with gr.Column(scale=1):
                clear = gr.Button("Clear History")
                length = gr.Slider(1, 4096, value=2048, step=1, label="Maximum length")
                top_p = gr.Slider(0.01, 1, value=0.8, step=0.01, label="Top P")
                temperature = gr.Slider(0, 1, value=0.7, step=0.01, label="Temperature")
        inputs = [text, shown, uid, length, top_p, temperature]
        reply = partial(answer, url, key)
        asked = submit.click(reply, inputs, [shown, uid, counts], api_name="chat")
        submit.click(lambda: "", None, text, queue=False, api_name=False)
        new: Page = ([], "", _counts([], 0))
        cleared = [clear.click, shown.clear]
        gr.on(cleared, lambda: new, None, [shown, uid, counts], cancels=asked, api_name="clear")
    return page


def answer(
    url: str, key: str | None, text: str, shown: list[Message], uid: str, *sliders: float
) -> Generator[Page]:
    """The page again and again, as the reply comes. Who leaves ends the turn."""
    client, told = ChatClient(url, key), Told()
    shown = [*shown, {"role": "user", "content": text}]
    length, top_p, temperature = sliders
    try:
        if uid:
            client.join(uid)
        options = {"max_tokens": int(length), "top_p": top_p, "temperature": temperature}
        for event in client.ask(text, **options):
            told.take(event)
            messages = [*map(_aside, told.asides), {"role": "assistant", "content": told.markdown}]
            yield [*shown, *messages], client.uid or "", _counts(shown, told.num_tokens)
    except MossError as error:
        raise gr.Error(str(error)) from error
    finally:
        client.stop()
        client.close()


def _aside(aside: tuple[str, str]) -> Message:
    title, text = aside
    return {"role": "assistant", "content": text, "metadata": {"title": title}}


def _counts(shown: list[Message], num_tokens: int) -> str:
    num_turns = sum(message["role"] == "user" for message in shown)
    return f"Turns: {num_turns}. Tokens of the last one, prompt and reply: {num_tokens}."

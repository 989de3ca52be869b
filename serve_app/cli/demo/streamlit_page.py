"""The page of MOSS's Streamlit demo: a script that runs anew whenever something changes."""

import os
import time
from typing import Any

import streamlit as st

from moss_tp.errors import MossError
from serve_app.api_secret import ENVIRONMENT
from serve_app.cli.demo.pages import URL_VARIABLE
from serve_app.cli.demo.told import Told
from serve_app.client.chat_client import ChatClient


def main() -> None:
    st.set_page_config(page_title="MOSS", layout="wide")
    st.title("MOSS")
    state = st.session_state
    if "client" not in state:
        state.client = ChatClient(os.environ[URL_VARIABLE], os.environ.get(ENVIRONMENT))
    options = _parameters()
    if st.sidebar.button("Clear history") or "replies" not in state:
        state.client.clear()
        state.replies, state.seconds = [], 0.0
    for user, told in state.replies:
        st.chat_message("user").markdown(user)
        _show(told, st.chat_message("assistant"))
    if user := st.chat_input("Talk to MOSS"):
        _ask(state, user, options)
    _counts(state)


def _parameters() -> dict[str, Any]:
    st.sidebar.header("Parameters")
    slider = st.sidebar.slider
    return {
        "temperature": slider("Temperature", 0.0, 1.0, 0.7),
        "top_p": slider("Top p", 0.01, 1.0, 0.8),
        "top_k": slider("Top k", 1, 100, 40),
        "max_tokens": slider("Maximum response length", 32, 2048, 512),
        "length_penalty": slider("Length penalty", 0.1, 2.0, 1.0),
        "repetition_penalty": slider("Repetition penalty", 1.0, 1.1, 1.02),
        "max_time": float(slider("Maximum waiting time (seconds)", 10, 120, 60)),
    }


def _ask(state: Any, user: str, options: dict[str, Any]) -> None:
    start, told = time.monotonic(), Told()
    st.chat_message("user").markdown(user)
    place = st.chat_message("assistant").empty()
    try:
        for event in state.client.ask(user, **options):
            told.take(event)
            _show(told, place)
        state.replies.append((user, told))
    except MossError as error:
        st.error(str(error))
    finally:
        state.client.stop()
    state.seconds = time.monotonic() - start


def _show(told: Told, place: Any) -> None:
    with place.container():
        for title, text in told.asides:
            st.text(f"{title}: {text}")
        st.markdown(told.markdown)


def _counts(state: Any) -> None:
    tokens = state.replies[-1][1].num_tokens if state.replies else 0
    for label, count in (("Turns", len(state.replies)), ("Tokens", tokens)):
        st.sidebar.metric(label, count)
    st.sidebar.caption(f"Prompt and reply of the last turn, which took {state.seconds:.1f} s")


main()

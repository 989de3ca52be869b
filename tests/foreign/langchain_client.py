"""langchain-openai, unmodified: a reply, a stream, a tool's call and its result."""

import os

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

model = ChatOpenAI(model=os.environ["MODEL"], api_key="none", temperature=0)


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"Sunny in {city}."


reply = model.invoke("What is 12 * 13?")
assert reply.content and reply.usage_metadata["output_tokens"] > 0, reply
streamed = "".join(chunk.content for chunk in model.stream("What is 12 * 13?"))
assert streamed == reply.content, (streamed, reply.content)
assert model.bind_tools([weather]).invoke("How is the weather in Paris?") is not None

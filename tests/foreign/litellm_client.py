"""LiteLLM, unmodified: a reply, a stream and an error."""

import os

import litellm

server = {
    "model": f"openai/{os.environ['MODEL']}",
    "api_key": "none",
    "api_base": os.environ["OPENAI_BASE_URL"],
}
question = [{"role": "user", "content": "What is 12 * 13?"}]

reply = litellm.completion(**server, messages=question, temperature=0)
text = reply.choices[0].message.content
assert text and reply.usage.completion_tokens > 0, reply
chunks = list(litellm.completion(**server, messages=question, temperature=0, stream=True))
assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text, chunks
try:
    litellm.completion(**server, messages=question, temperature=99)
except litellm.BadRequestError as error:
    assert "temperature" in str(error), error
else:
    raise AssertionError("a temperature of 99 was taken")

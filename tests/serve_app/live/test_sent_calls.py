"""A live turn that failed is asked for again with its key: its call with effects is not sent."""

from tests.serve_app.live.ingresses import Ingresses
from tests.support.chat_fakes import FakeModel, think_of

ENABLED = frozenset({"text_to_image"})


async def test_a_failed_turn_has_sent_its_call(ingresses: Ingresses) -> None:
    async def fail(is_reply: bool, num_tokens: int) -> None:
        if is_reply and num_tokens == 3:
            raise ValueError("a bug")

    model = FakeModel(think=think_of('Text2Image("a cat")'), wait=fail)
    ingress, uid = ingresses.add(model), await ingresses.session()
    for _ in range(2):
        started = await ingress.start(uid, idempotency_key="k", enabled=ENABLED)
        events = await ingress.read(started)
        assert events[-1].kind == "error"
    assert len(ingress.plugins.calls) == 1

from cluster.routing.hits import HitCounter
from serve_app.observe.turns import TurnMetrics


def test_turns_and_hits_of_the_router_are_samples_of_the_ingress() -> None:
    hits = HitCounter()
    metrics = TurnMetrics("moss", 1000, routed=hits.counted)
    for is_hit in (False, True, True):
        hits.note(is_hit)
    hits.note_move()
    labels = {"model_name": "moss"}
    found = metrics.registry.get_sample_value
    assert found("moss:session_affinity_queries_total", labels) == 3
    assert found("moss:session_affinity_hits_total", labels) == 2
    assert found("moss:passes_resumed_total", labels) == 1

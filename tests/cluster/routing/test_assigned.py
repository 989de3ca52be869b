from cluster.routing.assigned import ASSIGNMENTS, Assignments, assigned_replica


def test_the_latest_replica_of_a_request_is_told() -> None:
    assignments = Assignments()
    assignments.note("one", "a")
    assignments.note("one", "b")
    assert assignments.replica_of("one") == "b"
    assert assignments.replica_of("two") is None


def test_the_oldest_assignments_are_forgotten_first() -> None:
    assignments = Assignments(max_requests=2)
    for request_id in ("one", "two", "one", "three"):
        assignments.note(request_id, "a")
    assert assignments.replica_of("one") == "a"
    assert assignments.replica_of("two") is None


def test_the_process_has_one_set_of_assignments() -> None:
    ASSIGNMENTS.note("of test_assigned", "a")
    assert assigned_replica("of test_assigned") == "a"

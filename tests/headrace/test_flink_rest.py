"""What Flink's REST API says, read."""

from headrace.flink_rest import FlinkRest


def test_a_second_job_of_a_name_that_has_ended_hides_none_that_runs(monkeypatch):
    jobs = [("train", "RUNNING", 5), ("train", "CANCELED", 9), ("features", "FINISHED", 1), ("features", "RESTARTING", 2),
            ("vectors", "FAILED", 3), ("vectors", "FINISHED", 4)]
    rest = FlinkRest("http://127.0.0.1:1")
    listed = [{"name": name, "state": state, "start-time": at, "jid": str(at)} for name, state, at in jobs]
    monkeypatch.setattr(rest, "jobs", lambda: listed)
    assert rest.states() == {"train": "RUNNING", "features": "RESTARTING", "vectors": "FINISHED"}
    assert {name: job["jid"] for name, job in rest.running().items()} == {"train": "5", "features": "2"}

"""What Flink's REST API says, read."""

from headrace.flink_rest import FlinkRefused, FlinkRest


def test_a_second_job_of_a_name_that_has_ended_hides_none_that_runs(monkeypatch):
    jobs = [("train", "RUNNING", 5), ("train", "CANCELED", 9), ("features", "FINISHED", 1), ("features", "RESTARTING", 2),
            ("vectors", "FAILED", 3), ("vectors", "FINISHED", 4)]
    rest = FlinkRest("http://127.0.0.1:1")
    listed = [{"name": name, "state": state, "start-time": at, "jid": str(at)} for name, state, at in jobs]
    monkeypatch.setattr(rest, "jobs", lambda: listed)
    assert rest.states() == {"train": "RUNNING", "features": "RESTARTING", "vectors": "FINISHED"}
    assert {name: job["jid"] for name, job in rest.running().items()} == {"train": "5", "features": "2"}


def test_the_taskmanager_that_collects_most_is_told(monkeypatch):
    rest, said = FlinkRest("http://127.0.0.1:1"), {"a": (120.5, 1000), "b": (870.0, 2000)}

    def call(method, path, body=None):
        if path == "/taskmanagers":
            return {"taskmanagers": [{"id": name} for name in ("a", "b", "new", "gone")]}
        name = path.split("/")[2]
        if name == "gone":
            raise FlinkRefused("no such TaskManager")
        values = dict(zip(path.split("=")[1].split(","), said.get(name, ()), strict=False))
        return [{"id": metric, "value": str(value)} for metric, value in values.items()]

    monkeypatch.setattr(rest, "_call", call)
    assert rest.collecting() == (0.87, 2000)
    said.clear()
    assert rest.collecting() == (0.0, 0)

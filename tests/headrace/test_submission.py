"""Submitting again, while what it needs is away."""

import pytest

from headrace import submission
from headrace.config import Config
from headrace.flink_rest import FlinkUnavailable
from headrace.kafka import KafkaUnavailable
from headrace.submission import SubmissionFailed, insistently


def test_recovery_is_tried_until_it_succeeds_and_says_why_not_yet():
    """A JobManager and a broker that die together: the first tries find no broker, and nobody else submits the jobs again."""
    away, said, waited = [KafkaUnavailable("no broker"), FlinkUnavailable("no Flink"), SubmissionFailed("the client died")] * 2, [], []

    def work():
        if away:
            raise away.pop(0)
        return {"train": "id"}

    assert insistently(work, said.append, waited.append) == {"train": "id"}
    assert waited == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0] and said[0] == "no broker; again in 1 s"


class Cluster:
    """What runs on a cluster, by name."""

    def __init__(self, names):
        self._names = names

    def running(self):
        return {name: {"jid": f"id of {name}"} for name in self._names}

    def ready(self, job):
        return True


def test_what_runs_is_left_alone_by_resume_and_what_was_not_stopped_is_to_be_submitted(tmp_path, monkeypatch):
    config = Config(stack={"data_dir": tmp_path})
    monkeypatch.setattr(submission, "FlinkRest", lambda url: Cluster(["train"]))
    assert submission.resume(config, ["train"]) == {"train": "id of train"}
    with pytest.raises(SubmissionFailed, match="`headrace jobs submit vectors` starts it where it had come to"):
        submission.resume(config, ["train", "vectors"])


class Started(Cluster):
    """And which of each name run, with what `stop` was asked; `begun`: what each job was submitted with."""

    def __init__(self, alive):
        super().__init__({job["name"] for job in alive})
        self._alive, self.stopped = alive, []

    def alive(self, name):
        return [job for job in self._alive if job["name"] == name]

    def stop(self, job, folder):
        self.stopped.append(job)
        return f"file:///savepoints/of-{job}"


def test_a_resume_begins_from_a_savepoint_once_and_from_the_newest_checkpoint_after_a_plain_down(tmp_path, monkeypatch):
    config, begun, said = Config(stack={"data_dir": tmp_path}), [], []
    monkeypatch.setattr(submission.kafka, "reach", lambda *_: None)

    def client(config, names, savepoints):
        begun.append({name: savepoints.get(name, "") for name in names})
        return {name: f"{name}-{len(begun)}" for name in names}

    monkeypatch.setattr(submission, "_client", client)
    cluster = Started([{"name": "train", "jid": "train-0"}])
    monkeypatch.setattr(submission, "FlinkRest", lambda url: cluster)
    assert submission.stop(config, ["train", "vectors"]) == {"train": ["file:///savepoints/of-train-0"]}
    cluster = Started([])
    assert submission.resume(config, ["train"], said.append) == {"train": "train-1"}
    assert begun == [{"train": "file:///savepoints/of-train-0"}] and said == ["train begins from of-train-0"]
    for number in (4, 12):  # the stack went down without a stop, and came up
        meta = tmp_path / "flink" / "checkpoints" / "train-1" / f"chk-{number}" / "_metadata"
        meta.parent.mkdir(parents=True)
        meta.touch()
    assert submission.resume(config, ["train"], said.append) == {"train": "train-2"}
    assert begun[-1]["train"].endswith("/checkpoints/train-1/chk-12") and said[-1] == "train begins from chk-12"
    with pytest.raises(SubmissionFailed, match="`headrace jobs submit train`"):
        submission.resume(config, ["train"])  # it went down before its first checkpoint


def test_every_job_of_a_name_is_stopped_and_the_one_that_ran_longest_is_resumed_from(tmp_path, monkeypatch):
    config, cluster = Config(stack={"data_dir": tmp_path}), Started([{"name": "train", "jid": "old"}, {"name": "train", "jid": "new"}])
    monkeypatch.setattr(submission, "FlinkRest", lambda url: cluster)
    assert submission.stop(config, ["train"])["train"] == ["file:///savepoints/of-old", "file:///savepoints/of-new"]
    assert submission._remembered(config)["savepoints"] == {"train": "file:///savepoints/of-old"} and cluster.stopped == ["old", "new"]


def test_a_job_that_cannot_be_stopped_says_why_and_those_stopped_before_are_kept(tmp_path, monkeypatch):
    class Stuck(Started):
        def stop(self, job, folder):
            if job == "stuck":
                raise submission.FlinkRefused("the savepoint failed")
            return super().stop(job, folder)

    config, cluster = Config(stack={"data_dir": tmp_path}), Stuck([{"name": "train", "jid": "well"}, {"name": "vectors", "jid": "stuck"}])
    monkeypatch.setattr(submission, "FlinkRest", lambda url: cluster)
    for names in (["vectors"], ["train", "vectors"]):
        with pytest.raises(submission.FlinkRefused, match="the savepoint failed"):
            submission.stop(config, names)
    assert submission._remembered(config)["savepoints"] == {"train": "file:///savepoints/of-well"}


def test_a_defect_is_not_tried_again():
    def work():
        raise KeyError("a defect")

    with pytest.raises(KeyError):
        insistently(work, print, lambda wait_s: pytest.fail("it waited"))

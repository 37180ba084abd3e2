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


def test_a_defect_is_not_tried_again():
    def work():
        raise KeyError("a defect")

    with pytest.raises(KeyError):
        insistently(work, print, lambda wait_s: pytest.fail("it waited"))

"""The training job of a configured model: samples -> pull, predict, gradient, push -> `touched.MODEL`.  flink run -py jobs/train.py

The served model's job is called train, that of [models.NAME] train-NAME (`headrace jobs submit train-NAME`).
"""

from __future__ import annotations

from headrace.config import Config, Model
from headrace.jobs.launch import Job, addresses, run
from headrace.streaming import training
from headrace.streaming.learn import Lesson, learn


def job(config: Config, other: Model | None = None) -> Job:
    """The job of `other`, of the served model by default."""
    model, target = other or config.model, config.samples.target
    stage = learn(addresses(config), Lesson(model.name, target, model.l2, model.window_offsets), config.flink.external)
    name = f"train-{model.name}" if other else "train"
    return Job(name, lambda where: training.tables(where, model.name), [training.insert(model.name, target)], functions={"learn": stage})


if __name__ == "__main__":
    run(job)

"""The training job of the configured model: samples -> pull, predict, gradient, push -> `touched.MODEL`.  flink run -py jobs/train.py"""

from __future__ import annotations

from headrace.config import Config
from headrace.jobs.launch import Job, addresses, marks, run
from headrace.models.train import local_rate
from headrace.streaming import training
from headrace.streaming.learn import Lesson, learn


def job(config: Config) -> Job:
    model, target = config.model, config.samples.target
    scored = config.samples.strategy == "eager"  # its order of arrival tells labels
    rate = local_rate(model.optimizer, model.learning_rate)
    lesson = Lesson(model.name, target, model.l2, model.window_offsets, scored, rate)
    stage = learn(addresses(config), lesson, config.flink.external, marks=marks(config))
    return Job("train", lambda where: training.tables(where, model.name, scored), [training.insert(model.name, target, scored)],
               functions={"learn": stage})


if __name__ == "__main__":
    run(job)

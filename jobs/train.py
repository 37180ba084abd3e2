"""The training job of the configured model: samples -> pull, predict, gradient, push -> `touched.MODEL`.  flink run -py jobs/train.py"""

from __future__ import annotations

from headrace.config import Config
from headrace.jobs.launch import Job, addresses, run
from headrace.models.train import local_rate
from headrace.streaming import training
from headrace.streaming.learn import Lesson, learn


def job(config: Config) -> Job:
    model, target = config.model, config.samples.target
    lesson = Lesson(model.name, target, model.l2, model.window_offsets, local_rate(model.optimizer, model.learning_rate),
                    config.watch.share if config.watch.enabled else 0.0)
    stage = learn(addresses(config), lesson, config.flink.external)
    return Job("train", lambda where: training.tables(where, model.name), [training.insert(model.name, target)], functions={"learn": stage})


if __name__ == "__main__":
    run(job)

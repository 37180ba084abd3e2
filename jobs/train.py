"""The training job of a configured model: samples -> pull, predict, gradient, push -> `touched.MODEL`.  flink run -py jobs/train.py

The served model's job is called train, that of [models.NAME] train-NAME (`headrace jobs submit train-NAME`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from headrace.choice import choice_of
from headrace.config import Config, Model
from headrace.feature_set import feature_set_of, model_inputs, transforms
from headrace.jobs.launch import Job, addresses, marks, run, standing
from headrace.models.train import local_rate
from headrace.schemas.topics import PROVISIONAL, touched_topic
from headrace.streaming import training
from headrace.streaming.learn import Lesson, learn


def job(config: Config, other: Model | None = None) -> Job:
    """The job of `other`, of the served model by default."""
    model = other or config.model
    target, several, judged = config.target_of(model.name), bool(config.samples.also), bool(config.samples.rules.accidental_s)
    scored, fast = config.samples.live, config.samples.strategy == "fast"
    rate = local_rate(model.optimizer, model.learning_rate)
    share = config.watch.share if config.watch.enabled and other is None else 0.0
    model_inputs(config, model)  # what is wrong with them is said here
    lesson = Lesson(model.name, target, model.l2, model.window_offsets, scored, rate, share, transforms(model),
                    several=several, judged=judged, choice=choice_of(config))
    name = f"train-{model.name}" if other else "train"

    def stage(lesson: Lesson, topic: str) -> Any:
        stands = standing(config, lesson.name, topic, touched_topic(model.name).name)
        return learn(addresses(config), lesson, config.flink.external, marks(config), stands, feature_set_of(config))

    functions = {"learn": stage(lesson, "samples")}
    if fast:
        functions[f"learn_{PROVISIONAL}"] = stage(replace(lesson, scored=False, share=0.0, provisional=True), PROVISIONAL)
    return Job(name, lambda where: training.tables(where, model.name, scored, fast),
               training.inserts(model.name, target, scored, fast, several, judged),
               functions=functions)


if __name__ == "__main__":
    run(job)

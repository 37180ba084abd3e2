"""The vectors job of the configured model: `touched.MODEL` -> vectors.  flink run -py jobs/vectors.py"""

from __future__ import annotations

from headrace.config import Config
from headrace.feature_set import feature_set_of, transforms
from headrace.jobs.launch import Job, addresses, marks, run, standing
from headrace.schemas.topics import touched_topic
from headrace.streaming import vectors
from headrace.streaming.vectorize import vectorize


def job(config: Config) -> Job:
    model = config.model.name
    stands = standing(config, f"vectors-{model}", touched_topic(model).name, "vectors")
    stage = vectorize(addresses(config), model, config.flink.external, marks(config), stands, feature_set_of(config),
                      transforms(config.model))
    return Job("vectors", lambda where: vectors.tables(where, model), [vectors.insert(model)], functions={"vectorize": stage})


if __name__ == "__main__":
    run(job)

"""Draft"""
from headrace.lake import erasing, reader, rewriting
from headrace.lake.place import Place
from headrace.lake.store import at
from tests.headrace.lake import worlds
from tests.headrace.lake.test_compact import samples


def test_a_lake(bucket):
    place = Place(f"s3://{bucket}/some/lake")
    topic = worlds.ListTopic(samples(12))
    worlds.drain(worlds.writer(place, topic), topic, commit_every=1)
    worlds.is_the_lake_of(place, *topic.partitions)
    made = rewriting.compact(at(place), open_too=True)
    print(made)
    worlds.is_the_lake_of(place, *topic.partitions)
    made = erasing.erase(at(place), "user", "u1", 5, 7, {0:1000,1:1000})
    print(made, at(place).names("samples"), at(place).names("manifests"))
    print(len(reader.read(place)))

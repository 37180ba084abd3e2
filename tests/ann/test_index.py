"""The index against a scan of a dictionary, under any order of upserts, deletes and older sequences."""

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headrace.ann.index import Space
from tests import naive

DIM = 3
ids = st.sampled_from([f"i{n}" for n in range(12)])
vectors = st.lists(st.integers(-4, 4), min_size=DIM, max_size=DIM).map(lambda v: np.array(v, np.float32))  # exact, with many ties
sequences = st.integers(0, 30)


class Against(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.space, self.scan = Space(DIM, capacity=2), naive.NearestByScan()  # grows several times

    @rule(name=ids, vector=vectors, sequence=sequences)
    def upsert(self, name, vector, sequence):
        assert self.space.upsert(name, vector, sequence) == self.scan.upsert(name, vector, sequence)

    @rule(name=ids, sequence=sequences)
    def delete(self, name, sequence):
        assert self.space.delete(name, sequence) == self.scan.delete(name, sequence)

    @rule(queries=st.lists(vectors, min_size=1, max_size=3), k=st.integers(1, 15), exclude=st.lists(ids, max_size=4))
    def search(self, queries, k, exclude):
        found, scores = self.space.search(np.stack(queries), k, exclude)
        for row, query in enumerate(queries):
            expected = self.scan.search(query, k, exclude)
            assert scores[row].tolist() == [score for score, _ in expected]
            assert len(set(found[row])) == len(found[row]) and not set(found[row]) & set(exclude)
            assert [float(self.scan.vectors[name] @ query) for name in found[row]] == scores[row].tolist()

    @invariant()
    def holds_what_it_should(self):
        assert len(self.space) == len(self.scan.vectors)
        for name in self.scan.vectors:
            assert self.space.vector(name).tolist() == self.scan.vectors[name].tolist()
        assert self.space.sequence == max(self.scan.sequences.values(), default=-1)


TestAgainst = Against.TestCase
TestAgainst.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_an_overwritten_vector_leaves_no_ghost():
    space = Space(2)
    for sequence in range(100):
        space.upsert("a", np.array([sequence, 1], np.float32), sequence)
    assert space.search(np.array([[1, 0]], np.float32), 10)[0] == [["a"]]
    assert space.search(np.array([[1, 0]], np.float32), 10)[1].tolist() == [[99]]


def test_many_rows_and_many_queries():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(5000, 9)).astype(np.float32)
    space = Space(9)
    for n, row in enumerate(rows):
        space.upsert(str(n), row, n)
    queries = rng.normal(size=(40, 9)).astype(np.float32)
    found, scores = space.search(queries, 10)
    exact = queries @ rows.T
    np.testing.assert_allclose(scores, -np.sort(-exact, axis=1)[:, :10], rtol=1e-4, atol=1e-4)
    assert found[0] == [str(n) for n in np.argsort(-exact[0])[:10]]

import pytest

from headrace.ps.spec import ModelSpec, SpecError, TableSpec
from tests.ps.worlds import spec


def test_json_both_ways():
    assert ModelSpec.from_json(spec().to_json()) == spec()
    assert ModelSpec.from_json(spec().to_dict()) == spec()


def test_what_models_ask_for_is_accepted():
    for optimizer in ("sgd", "adagrad", "ftrl"):
        made = ModelSpec("lr", 1, (TableSpec("weights", "float32", 1, optimizer, {"learning_rate": 0.1}, 0.0, True),))
        assert made.scope == "lr@1"


@pytest.mark.parametrize(("fields", "word"), [
    ({"name": "A.b"}, "name"), ({"name": "t", "dtype": "float64"}, "dtype"), ({"name": "t", "dim": 0}, "dim"),
    ({"name": "t", "optimizer": "lion"}, "optimizer"), ({"name": "t", "dtype": "int64"}, "sum"),
    ({"name": "t", "params": {"rate": 1.0}}, "learning_rate"), ({"name": "t", "params": {"learning_rate": float("nan")}}, "finite"),
    ({"name": "t", "optimizer": "ftrl", "params": {"alpha": 1.0, "learning_rate": 1.0}}, "twice"),
    ({"name": "t", "init_scale": -1.0}, "init_scale"),
    ({"name": "t", "dtype": "int64", "optimizer": "sum", "served": True}, "served"),
])
def test_a_wrong_table_says_what_is_wrong(fields, word):
    with pytest.raises(SpecError, match=word):
        TableSpec(**fields)


@pytest.mark.parametrize("body", ["{", "[]", '{"model": "fm"}', '{"model": "fm", "version": 1, "tables": []}',
                                  '{"model": "fm", "version": 1, "tables": [{"name": "t", "dimension": 2}]}',
                                  '{"model": "fm", "version": 1, "tables": [{"name": "t"}, {"name": "t"}]}'])
def test_wrong_json_is_refused(body):
    with pytest.raises(SpecError):
        ModelSpec.from_json(body)

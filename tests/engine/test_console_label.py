"""The page on which people label: one item after the other, in the queue's order."""

import pytest

from headrace.engine.console.routes import scopes
from headrace.engine.console.sampler import Away
from tests.engine.console import ODD, Console


@pytest.fixture
def console(world):
    console = Console(world)
    yield console
    console.close()


def answered(console, **fields):
    answer = console.http.post("/console/label", data=fields)
    assert answer.status_code == 200
    return answer.text


def test_the_next_item_is_shown_with_its_figures_and_what_is_known_of_it(console):
    said = console.part("doubt", "7", labeller=" ann ")
    assert "Shown 1,200 times" in said and "25.0%" in said and "34.6 bits" in said and "1 wait behind it" in said
    assert 'name="labeller" value="ann"' in said and said.count("data-key=") == 3 and 'data-key="1"' in said
    assert ">bias<" not in said and ">item_id<" not in said, "of an item that is not known there is nothing to tell"


def test_an_answer_is_taken_and_the_next_one_comes(console):
    said = answered(console, labeller="ann", item="7", label="1", done="4")
    assert console.queue.given == [("ann", "7", 1.0)] and "5 labelled by you now" in said
    assert "&lt;script&gt;" in said and "<script>" not in said
    said = answered(console, labeller="ann", item=ODD, label="", done="5")
    assert console.queue.given[-1] == ("ann", ODD, None) and "Nothing of click is left for ann. 5 labelled." in said


@pytest.mark.parametrize(("fields", "said"), [
    ({"labeller": "", "item": "7", "label": "1"}, "Give the labeller"), ({"labeller": "ann", "item": "", "label": "1"}, "Give the item"),
    ({"labeller": "ann", "item": "7", "label": "2"}, "An answer is yes, no or later"),
    ({"labeller": "ann", "item": "7", "label": "nan"}, "An answer")])
def test_what_is_no_answer_is_a_sentence_and_nothing_is_written(console, fields, said):
    assert said in answered(console, **fields) and not console.queue.given


def test_a_queue_that_is_away_says_so(console):
    assert "Give the labeller" in console.part("doubt", labeller="  ")
    console.queue.problem = Away("there is no lake in /x")
    assert "there is no lake" in console.part("doubt", labeller="ann")
    assert "there is no lake" in answered(console, labeller="ann", item="7", label="1")
    object.__setattr__(console.desk, "labelling", None)
    assert "Nobody keeps a queue" in console.part("doubt", labeller="ann")


def test_it_is_a_page_of_ours_and_writing_needs_more(console):
    page = console.http.get("/label")
    assert page.status_code == 200 and 'aria-current="page"' in page.text and "labeller-form" in page.text
    assert scopes()["/label"] == () and scopes()["/console/doubt"] == ("control",)
    assert scopes()["/console/label"] == ("control", "events")
    sent = console.http.post("/console/label", data={"labeller": "ann", "item": "7", "label": "1"}, headers={"Origin": "http://other"})
    assert sent.status_code == 403 and not console.queue.given

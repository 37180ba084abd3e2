"""Try a click: what is sent, how it is followed, what the list says, and from whose page it may come."""

import re
import time

import pytest

from headrace.engine.console import trials
from headrace.engine.console.sampler import Away
from tests.engine.console import ODD, Console


@pytest.fixture
def console(world):
    console = Console(world)
    yield console
    console.learns = True  # whoever still waits ends
    console.close()


def click(console, user="u1", item="i27", **headers):
    return console.http.post("/console/click", data={"user": user, "item": item}, headers={name.replace("_", "-"): value
                                                                                          for name, value in headers.items()})


def id_of(answer):
    return re.search(r"trial\?id=(\w+)", answer.text)[1]


def after(console, answer, state="done"):
    """The part of the trial once it is through."""
    return console.part("trial", f'data-trial="{state}"', id=id_of(answer))


def test_a_click_is_sent_as_events_are_and_the_list_moves(console):
    before = [row["item_id"] for row in console.http.get("/recommend", params={"user": "u1", "preview": 1}).json()["items"]]
    console.learns = False
    answer = click(console)
    assert 'data-trial="running"' in answer.text and "every 250ms" in answer.text
    sent = [record for _, record in console.world.sent]
    assert [(record["action"], record["user_id"], record["item_id"], record["scene"], record["position"]) for record in sent] == [
        ("impression", "u1", "i27", "console", before.index("i27")), ("click", "u1", "i27", "console", before.index("i27"))]
    assert len({record["request_id"] for record in sent}) == 1 and [key for key, _ in console.world.sent] == [b"u1"] * 2
    console.learns = True
    text = after(console, answer)
    assert console.asked_trail[0][:2] == ("u1", sent[0]["event_id"])
    now = re.findall(r'<tr data-item="(\w+)"', text)
    assert now == [row["item_id"] for row in console.http.get("/recommend", params={"user": "u1", "preview": 1}).json()["items"]]
    assert now != before and "▲" in text and "every 250ms" not in text
    assert re.search(r"Learnt and served <b>\d\.\d\d s</b> after u1 clicked <b>i27</b>", text) and text.count('class="past"') == 3
    assert not console.world.impressions


def test_movements_are_from_the_list_of_before(console):
    text = after(console, click(console))
    ranks = {item: (int(rank), moved) for item, rank, moved in re.findall(
        r'<tr data-item="(\w+)".*?<td class="n rank">(\d+)</td>.*?<td class="moved">(.*?)</td>', text, re.S)}
    listed = [f"i{28 - n}" for n in range(10)]
    clicked = next(item for item in listed if f"clicked <b>{item}</b>" in text)
    was = {item: n + 1 for n, item in enumerate(item for item in listed if item != clicked)}  # what stood behind it closes the gap
    for item, (rank, moved) in ranks.items():
        if item not in was:
            assert "new" in moved
        elif was[item] == rank:
            assert "stays" in moved
        else:
            assert ("up" if rank < was[item] else "down") in moved and str(abs(rank - was[item])) in moved


def test_a_user_who_is_not_known_gets_the_popular_list_and_may_click(console):
    console.learns = False
    assert "has no vector yet" in console.part("list", user="nobody")
    assert 'data-trial="running"' in click(console, user="nobody", item="i5").text


def test_an_event_that_is_not_delivered_is_told(console):
    console.world.undelivered = {"i27": "the broker is away"}
    text = click(console).text
    assert "It did not come through." in text and "the broker is away" in text and 'data-trial="problem"' in text


def test_a_click_that_is_never_learnt_is_told_with_the_next_step(console, monkeypatch):
    monkeypatch.setattr(trials, "LEARNT_S", 0.2)
    console.learns = False
    text = after(console, click(console), "problem")
    assert "has not applied it" in text and "<code>headrace jobs list</code>" in text and "<code>headrace trace " in text


def test_who_cannot_be_asked_is_asked_again_and_then_told(console, monkeypatch):
    console.learns = Away("no broker")
    answer = click(console)
    time.sleep(0.2)
    assert 'data-trial="running"' in console.part("trial", id=id_of(answer))
    console.learns = True
    after(console, answer)
    monkeypatch.setattr(trials, "LEARNT_S", 0.2)
    console.learns = Away("no broker at all")
    assert "no broker at all" in after(console, click(console), "problem")


def test_only_so_many_are_followed_at_once_and_few_are_kept(console, monkeypatch):
    console.learns = False
    answers = [click(console) for _ in range(trials.AT_ONCE)]
    sent = len(console.world.sent)
    assert "try again in some seconds" in click(console).text and len(console.world.sent) == sent
    console.learns = True
    for answer in answers:
        after(console, answer)
    monkeypatch.setattr(trials, "KEPT", 2)
    after(console, click(console))
    assert "is not known any more" in console.part("trial", id=id_of(answers[0]))


def test_what_was_clicked_is_escaped(console):
    text = click(console, user=ODD, item=ODD).text
    assert "<script" not in text and "&lt;script&gt;" in text


@pytest.mark.parametrize("headers", [
    {"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}, {"Sec_Fetch_Site": "none"}, {"Origin": "http://evil.example"},
    {"Origin": "null"}, {"Origin": "http://127.0.0.1:99"}, {"Sec_Fetch_Site": "cross-site", "Origin": "http://127.0.0.1:1234"}])
def test_another_sites_page_may_not_click(console, headers):
    answer = click(console, **headers)
    assert answer.status_code == 403 and "another site" in answer.json()["error"] and not console.world.sent


@pytest.mark.parametrize("headers", [{}, {"Sec_Fetch_Site": "same-origin", "Origin": "http://127.0.0.1:1234"}, {"Origin": "HTTP://127.0.0.1:1234"},
                                     {"Host": "localhost:1234", "Origin": "http://LOCALHOST:1234"}])
def test_our_own_page_and_programs_may(console, headers):
    assert click(console, **headers).status_code == 200 and len(console.world.sent) == 2


def test_odd_bodies_are_refused_with_a_sentence(console):
    many = "&".join(f"f{n}=1" for n in range(20))
    answer = console.http.post("/console/click", content=many, headers={"content-type": "application/x-www-form-urlencoded"})
    assert answer.status_code == 422 and "at most" in answer.json()["error"]
    assert "Give the user&#39;s id" in console.http.post("/console/click", content=b"\xff\xfe=").text
    assert console.http.get("/console/click").status_code == 405

"""The live page in a real browser, over the running stack: it loads, it is accessible, and a click on it moves the list."""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.end_to_end.outside import events, until
from tests.headrace.lake import worlds

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]
AXE = Path(__file__).parent / "axe" / "axe.min.js"
SECONDS = 60_000  # ms, of a machine that does other work
PANELS = ("#learning details", "#freshness .hops li", "#flow tbody tr", "#processes tbody tr")


@pytest.fixture(scope="module")
def browser():
    """Chromium, driven by playwright."""
    if not CHROMIUM.exists():
        assert not (os.environ.get("CI") == "true" and os.environ.get("CHROMIUM_EXPECTED")), "CI installed Chromium, and it is not there"
        pytest.skip(f"the page is tested in Chromium, and there is no {CHROMIUM}: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="the page is driven by playwright: pip install 'headrace[test]'")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def user(loop):
    """A user with a vector, among others who clicked other items, so that there is a list that can move."""
    name = uuid.uuid4().hex[:8]
    items, before, count = [f"page-{name}-{n}" for n in range(40)], loop.applied(), 0
    for n in range(8):
        shown = [items[(5 * n + i) % 40] for i in range(14)]
        loop.post("/events", events(f"page-{name}-user-{n}", shown, "impression"))
        loop.post("/events", events(f"page-{name}-user-{n}", shown[n % 3 :: 3], "click"))
        count += len(shown)
    loop.learnt(before, count)
    mine = f"page-{name}-user-0"
    until(lambda: loop.get("/recall", user=mine, k=10).json()["found"], "a vector of the user")
    until(lambda: len(loop.get("/recommend", user=mine, n=10, preview=1).json()["items"]) == 10, "a list of ten")
    return mine


@pytest.fixture
def opened(browser, loop):
    """page(theme, width): the page, with all panels filled; what its console said and whom it asked is judged at the end."""
    contexts, said, asked = [], [], set()

    def page(theme="light", width=1440):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme, reduced_motion="reduce")
        contexts.append(context)
        shown = context.new_page()
        shown.set_default_timeout(SECONDS)
        shown.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        shown.on("pageerror", lambda error: said.append(f"error: {error}"))
        shown.on("request", lambda request: asked.add(urlsplit(request.url).netloc))
        shown.goto(loop.config.engine.url + "/")
        for panel in PANELS:
            shown.wait_for_selector(panel)
        shown.wait_for_selector("#summary .state:not(.looking)")
        return shown

    yield page
    for context in contexts:
        context.close()
    assert not said and asked == {urlsplit(loop.config.engine.url).netloc}


def violations(page):
    """What axe-core finds, of serious or critical impact."""
    page.evaluate(AXE.read_text(encoding="utf-8"))  # as the debugger does, past the page's own policy
    found = page.evaluate("axe.run(document)")["violations"]
    return [(one["id"], one["help"], [node["html"][:200] for node in one["nodes"]]) for one in found
            if one["impact"] in ("serious", "critical")]


@pytest.mark.parametrize("width", [390, 1920])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_is_whole_and_accessible(opened, loop, user, theme, width):
    page = opened(theme, width)
    page.wait_for_function("document.querySelectorAll('#freshness .ages').length >= 3")
    page.fill("#explain-user", user)
    page.press("#explain-user", "Enter")
    page.wait_for_selector("#explained .reasons")
    page.fill("#try-user", user)
    page.press("#try-user", "Enter")
    page.wait_for_selector("#tried .ranks")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "the page is wider than the window"
    assert violations(page) == []
    assert page.locator("#explained details").count() == 8 and page.locator("#tried tbody tr").count() == 10
    jobs = {row.split()[0] for row in page.locator("#flow tbody tr").all_inner_texts()}
    assert {"features", "samples", "train", "vectors"} <= jobs and page.locator("#flow .word.good").count() >= 4
    assert "not answer" not in page.inner_text("#processes") and page.locator("#processes .word.bad").count() == 0
    learnt = int(re.sub(r"\D", "", page.inner_text("#summary .figures > div:nth-child(3) dd:nth-of-type(1)")))
    assert 0 < learnt <= min(loop.applied())


def test_a_click_on_the_page_is_learnt_and_moves_the_list(opened, loop, user):
    page, start, before = opened(), loop.offsets("interactions"), loop.applied()
    page.fill("#try-user", user)
    page.press("#try-user", "Enter")
    rows = page.locator("#tried tbody tr")
    rows.first.wait_for()
    was = [row.get_attribute("data-item") for row in rows.all()]
    rows.nth(3).locator("button").click()
    page.wait_for_selector('#tried [data-trial="done"]')
    now = [row.get_attribute("data-item") for row in rows.all()]
    said = page.inner_text(".verdict")
    print(said)
    assert now != was and was[3] not in now, "what was clicked is read"
    found = re.search(rf"Learnt and served \d+\.\d\d s after {user} clicked {was[3]}: (\d+) items? (?:is|are) new in the list;"
                      r" of the (\d+) that stayed (\d+) have another place and (\d+) another score", said)
    assert found, said
    new, stayed, moved, rescored = map(int, found.groups())
    assert new >= 1 and new + stayed == 10 and moved <= stayed and rescored >= 1
    assert page.locator(".steps .past").count() == 3 and page.locator("#tried .up, #tried .badge.new").count() > 0
    sent = [row.record for row in loop.read("interactions", start) if row.record["scene"] == "console"]
    assert [(one["action"], one["user_id"], one["item_id"], one["position"]) for one in sent] == [
        ("impression", user, was[3], 3), ("click", user, was[3], 3)]
    loop.learnt(before, 1)
    assert violations(page) == []


def test_it_goes_by_keyboard_and_keeps_the_theme(opened, user):
    page = opened("light")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus("#theme")
    page.keyboard.press("Enter")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert page.get_attribute("#theme", "aria-label") == "Switch to the light theme"
    page.reload()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.focus("#learning summary")
    page.keyboard.press("Enter")
    page.wait_for_timeout(5000)  # two polls: what is open stays open, and the focus stays
    assert page.evaluate("document.querySelector('#learning details').open && document.activeElement.tagName") == "SUMMARY"


def test_a_name_that_is_markup_is_text(opened, user):
    page, odd = opened(), "<img src=x onerror=alert(1)><script>alert(2)</script>"
    page.fill("#try-user", odd)
    page.press("#try-user", "Enter")
    page.wait_for_function("(odd) => document.querySelector('#tried').innerText.includes(odd)", arg=odd)
    assert page.locator("#tried img, #tried script").count() == 0
    assert json.loads(page.evaluate("JSON.stringify([...document.scripts].map((one) => one.src === ''))")) == [False] * 5


@pytest.fixture
def lake(loop):
    """Nine scored samples in the stack's own lake, which has no writer here."""
    folder = Path(loop.config.lake_place.where)
    assert not folder.exists()
    source = worlds.ListTopic([worlds.sample(n) | {"item_id": f"doubt-{n}", "model": "fm", "version": 1, "score": n / 8} for n in range(9)])
    worlds.drain(worlds.writer(folder, source), source)
    yield folder
    shutil.rmtree(folder)


def test_a_person_labels_by_keyboard(opened, loop, user, lake):
    page, start = opened(), loop.offsets("labels")
    page.click("nav a[href='/label']")
    page.fill("#labeller", "ann")
    page.press("#labeller", "Enter")
    page.wait_for_selector("#doubt form, #doubt .away")
    while page.locator("#doubt .away").count():  # the lake is being read
        page.press("#labeller", "Enter")
        page.wait_for_timeout(200)
    for item, key in (("doubt-4", "1"), ("doubt-3", "s"), ("doubt-5", "0")):
        page.wait_for_selector(f"#doubt h3 b:text-is('{item}')")
        page.keyboard.press(key)
    page.wait_for_selector("#doubt h3 b:text-is('doubt-2')")
    assert "2 labelled by you now" in page.inner_text("#doubt") and violations(page) == []
    assert sorted((row.record["item_id"], row.record["label"], row.record["labeller"]) for row in loop.read("labels", start)) == [
        ("doubt-4", 1.0, "ann"), ("doubt-5", 0.0, "ann")]

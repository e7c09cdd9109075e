"""The page of `dlp label` in Chromium: keys, many at once, the map, reload, undo, export."""

from __future__ import annotations

import csv
import urllib.request

import pytest
from label_page import Page, served, write_digits

pytest.importorskip("selenium")
pytestmark = pytest.mark.browser

# WebDriver's codes
ENTER, SHIFT, HOME, RIGHT = "\ue007", "\ue008", "\ue011", "\ue014"
NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    return folder, write_digits(folder)


@pytest.fixture
def open_page(digits, tmp_path):
    folder, truth = digits
    (folder / "named.csv").write_text("label\n" + "".join(f"{NAMES[t]}\n" for t in truth))
    pages = []
    with served(
        folder / "x.npy", "--images", folder / "digits", "--classes", ",".join(NAMES),
        "--truth", folder / "named.csv", "--state", tmp_path / "labels.sqlite",
    ) as (address, process):  # fmt: skip

        def open_one(**size):
            page = Page(address, **size)
            page.address, page.process = address, process
            pages.append(page)
            return page

        yield open_one
        for page in pages:
            assert page.problems() == []
            page.close()


def mouse(page):
    from selenium.webdriver.common.action_chains import ActionChains

    return ActionChains(page.driver)


def label_by_keys(page, truth, count):
    """Label `count` framed images: 1 to 9, and the tenth class by its first letters."""
    for _ in range(count):
        label, before = truth[page.framed], page.labelled
        if label < 9:
            page.keys(str(label + 1))
        else:
            page.keys("n")
            page.keys("i", ENTER)
        page.until(lambda before=before: page.labelled == before + 1)


def pixels(page):
    """The map's canvas, as text."""
    page.show("map")
    page.until(lambda: page.js("return document.querySelector('#legend').textContent"))
    page.js("return new Promise(done => setTimeout(done, 300))")
    return page.js("return document.querySelector('#map canvas').toDataURL()")


def test_thirty_digits_by_keys_alone_change_counts_and_map_and_outlive_a_reload(
    open_page, digits, tmp_path
):
    truth = digits[1]
    page = open_page()
    blank = pixels(page)
    page.keys("[", "[")  # from the map to 'by class', and to 'next'
    label_by_keys(page, truth, 30)
    page.settled()
    assert float(page.text("#accuracy").split()[0]) > 80
    counts = page.text("#classes")
    coloured = pixels(page)
    assert coloured != blank
    page.driver.refresh()
    page.until(lambda: page.js("return document.querySelector('#labelled').textContent") == "30")
    assert page.text("#classes") == counts
    page.keys("u")
    page.until(lambda: page.labelled == 29)
    assert page.text("#classes") != counts
    exported = urllib.request.urlopen(page.address + "export/labels.csv").read().decode()
    rows = list(csv.DictReader(exported.splitlines()))
    assert len(rows) == 29
    assert all(row["label"] == NAMES[truth[int(row["index"])]] for row in rows)


def test_many_are_selected_by_drag_shift_and_keys_and_one_key_labels_them(open_page):
    page = open_page()
    page.framed  # noqa: B018 - waits until there are images
    cards = page.all(".card")
    drag = mouse(page).move_to_element(cards[0]).click_and_hold()
    drag.move_to_element(cards[2]).release().perform()
    assert len(page.all(".card.selected")) == 3
    page.keys("2")
    page.until(lambda: page.labelled == 3)
    cards[4].click()
    mouse(page).key_down(SHIFT).click(cards[7]).key_up(SHIFT).perform()
    assert len(page.all(".card.selected")) == 4
    page.keys("3")
    page.until(lambda: page.labelled == 7)
    page.keys(HOME, " ")
    mouse(page).key_down(SHIFT).send_keys(RIGHT).key_up(SHIFT).perform()
    page.keys("0")
    page.until(lambda: page.labelled == 5)
    assert page.text("#skipped") == "2"
    page.keys("u")
    page.until(lambda: page.labelled == 7)


def test_a_screenful_of_a_class_is_confirmed_and_a_class_is_added(open_page, digits):
    truth = digits[1]
    page = open_page()
    label_by_keys(page, truth, 12)
    page.settled()
    page.show("class")
    page.framed  # noqa: B018
    shown = len(page.all(".card"))
    page.keys(ENTER)
    page.until(lambda: page.labelled == 12 + shown)
    page.show("next")
    point = page.framed
    page.keys("+")
    page.keys("smudge", ENTER)
    page.until(lambda: len(page.all("#classes .class")) == 11)
    page.keys("s")
    page.keys("mu", ENTER)
    page.until(lambda: page.labelled == 13 + shown)
    assert page.text(f"#card-{point} .tag") == "smudge"


def test_points_of_the_map_are_labelled_together(open_page):
    page = open_page()
    pixels(page)
    drag = mouse(page).key_down(SHIFT)
    drag.move_to_element_with_offset(page.all("#map canvas")[0], -60, -60).click_and_hold()
    drag.move_by_offset(120, 120).release().key_up(SHIFT).perform()
    cards = page.until(lambda: page.all(".card"))
    page.keys("4")
    page.until(lambda: page.labelled >= len(cards))


def test_on_a_phone_everything_is_within_reach(open_page, digits):
    page = open_page(width=390, height=844, scale=2)
    point = page.framed
    assert page.js("return document.documentElement.scrollWidth") == 390
    page.all("#classes .class")[digits[1][point] % 4].click()
    page.until(lambda: page.labelled == 1)
    for view in ("class", "map", "check"):
        page.show(view)
        assert page.js("return document.documentElement.scrollWidth") == 390
    bottom = page.js("return document.querySelector('#skip').getBoundingClientRect().bottom")
    assert bottom <= 844


def test_two_people_and_a_server_that_is_killed(open_page, digits, tmp_path):
    truth = digits[1]
    ann, bob = open_page(), open_page()
    shown = [{c.get_attribute("data-point") for c in p.all(".card")} for p in (ann, bob)]
    assert not shown[0] & shown[1]
    label_by_keys(ann, truth, 2)
    bob.until(lambda: bob.labelled == 2)
    ann.process.kill()
    bob.keys("1")
    bob.until(lambda: "does not answer" in bob.text("#toast"))
    ann.problems(), bob.problems()  # of the lost connection

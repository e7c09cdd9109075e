"""The page of `dlp label` in Chromium: keys, many at once, the map, reload, undo, export."""

from __future__ import annotations

import csv
import json
import signal
import urllib.request

import numpy as np
import pytest
from label_page import Page, served, write_digits

pytest.importorskip("selenium")
pytestmark = pytest.mark.browser

# WebDriver's codes
ENTER, SHIFT, HOME, RIGHT = "\ue007", "\ue008", "\ue011", "\ue014"
CONTROL, ALT, ESCAPE, DOWN = "\ue009", "\ue00a", "\ue00c", "\ue015"
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
            found = page.problems()
            if process.poll() is not None:  # the server was ended: only that may be complained of
                found = [p for p in found if "ERR_CONNECTION" not in p["message"]]
            assert found == []
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


# Requests of the page whose address ends so wait for `release`, or fail.
HOLD = """
window.real ??= window.fetch;
window.held = [];
const [ending, fail] = arguments;
window.fetch = (path, options) => !path.endsWith(ending) ? window.real(path, options)
  : fail ? Promise.reject(new TypeError("cut"))
  : new Promise(done => window.held.push(() => done(window.real(path, options))));
"""


def hold(page, ending, fail=False):
    page.js(HOLD, ending, fail)


def release(page):
    page.js("window.fetch = window.real; window.held.forEach(go => go())")


def rest(page, milliseconds=500):
    """Time in which something that should not happen would happen."""
    page.js("return new Promise(done => setTimeout(done, arguments[0]))", milliseconds)


def held_key(page, key, code, times=5):
    """A key that is held until it has come so many times again."""
    text = {"text": key} if len(key) == 1 else {}
    for again in range(times + 1):
        event = {"type": "keyDown", "key": key, "windowsVirtualKeyCode": code, **text}
        page.driver.execute_cdp_cmd("Input.dispatchKeyEvent", {**event, "autoRepeat": again > 0})
    up = {"type": "keyUp", "key": key, "windowsVirtualKeyCode": code}
    page.driver.execute_cdp_cmd("Input.dispatchKeyEvent", up)


def post(page, path, **body):
    """A request as from another person's page."""
    data = json.dumps({"person": "another", **body}).encode()
    request = urllib.request.Request(
        f"{page.address}api/{path}", data, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def exported(page):
    """Labels by point, as Export gives them."""
    with urllib.request.urlopen(page.address + "export/labels.csv") as answer:
        rows = csv.DictReader(answer.read().decode().splitlines())
    return {int(row["index"]): row["label"] for row in rows}


def click_map(page, point):
    """Where a point of the map lies."""
    with urllib.request.urlopen(page.address + "api/places") as answer:
        x, y = np.frombuffer(answer.read(), "<u2").reshape(-1, 2)[point] / 65535
    canvas = page.all("#map canvas")[0]
    width, height = canvas.size["width"] - 32, canvas.size["height"] - 32  # within the margin
    right, down = int(width * (x - 0.5)), int(height * (0.5 - y))
    mouse(page).move_to_element_with_offset(canvas, right, down).click().perform()


def points_shown(page):
    cards = page.js("return [...document.querySelectorAll('.card')].map(c => +c.dataset.point)")
    return set(cards)


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
    labels = exported(page)
    assert len(labels) == 29
    assert all(label == NAMES[truth[point]] for point, label in labels.items())


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
    page.show("next")
    point = page.framed
    assert not page.all("#unlabel")[0].is_displayed()
    page.all("#classes .class")[3].click()
    page.until(lambda: page.labelled == 2)
    top = "return document.querySelector('.card').getBoundingClientRect().top"
    before = page.js(top)
    page.all(f"#card-{point}")[0].click()
    assert page.js(top) == before
    for button in ("#skip", "#unlabel", "#add"):
        at = page.js(f"return document.querySelector('{button}').getBoundingClientRect()")
        assert at["left"] >= 0
        assert at["right"] <= 390
        assert at["bottom"] <= 844
    page.all("#unlabel")[0].click()
    page.until(lambda: page.labelled == 1)
    assert point not in exported(page)
    assert not page.all("#unlabel")[0].is_displayed()


def test_two_people_and_a_server_that_ends(open_page, digits, tmp_path):
    truth = digits[1]
    ann, bob = open_page(), open_page()
    shown = [{c.get_attribute("data-point") for c in p.all(".card")} for p in (ann, bob)]
    assert not shown[0] & shown[1]
    label_by_keys(ann, truth, 2)
    bob.until(lambda: bob.labelled == 2)
    ann.process.send_signal(signal.SIGINT)  # as Ctrl-C does
    assert ann.process.wait(60) == 0
    assert "2 points labelled" in ann.process.stdout.read()
    bob.keys("1")
    bob.until(lambda: "does not answer" in bob.text("#toast"))


def test_a_class_is_found_by_its_whole_name_and_any_other_name_can_be_added(open_page):
    page = open_page()
    for name in ("catfish", "cat", "dog", "sealion", "carpet"):
        post(page, "classes", name=name)
    page.until(lambda: len(page.all("#classes .class")) == 15)

    def typed(letters, *keys):
        """The list for some letters; then the tag of the image that the keys label."""
        point, before = page.framed, page.labelled
        page.keys(letters[0])
        page.keys(letters[1:])
        options = [item.text for item in page.all("#chooser li")]
        page.keys(*keys)
        page.until(lambda: page.labelled == before + 1)
        return options, page.text(f"#card-{point} .tag")

    assert typed("cat", ENTER) == (["cat", "catfish"], "cat")
    assert typed("Cat", ENTER) == (["cat", "catfish", "Add class “Cat”"], "cat")
    assert typed("seal", ENTER) == (["sealion", "Add class “seal”"], "sealion")
    assert typed("seal", DOWN, ENTER)[1] == "seal"
    assert typed("seal", ENTER) == (["seal", "sealion"], "seal")
    assert typed("fish", ENTER) == (["Add class “fish”", "catfish"], "fish")
    page.keys("c")
    page.js("""document.activeElement.dispatchEvent(
        new KeyboardEvent("keydown", {key: "Enter", isComposing: true, bubbles: true}))""")
    assert page.js("return document.querySelector('#chooser').open")
    page.keys(ESCAPE)
    assert page.labelled == 6


def test_a_held_key_answers_once_and_a_modified_one_does_nothing(open_page):
    page = open_page()
    page.framed  # noqa: B018 - waits until there are images
    held_key(page, "1", 49)
    page.until(lambda: page.labelled == 1)
    page.keys("2", "3", "4")
    page.until(lambda: page.labelled == 4)
    held_key(page, "u", 85)
    page.until(lambda: page.labelled == 3)
    held_key(page, "0", 48)
    page.until(lambda: page.text("#skipped") == "1")
    rest(page)
    assert (page.labelled, page.text("#skipped")) == (3, "1")
    place = "return [...document.querySelectorAll('.card')].findIndex(c => c.matches('.cursor'))"
    before = page.js(place)
    held_key(page, "ArrowRight", 39, times=2)
    assert page.js(place) == before + 3
    page.settled()
    page.show("class")
    page.framed  # noqa: B018
    shown = len(page.all(".card"))
    held_key(page, "Enter", 13)
    page.until(lambda: page.labelled == 3 + shown)
    rest(page)
    assert page.labelled == 3 + shown
    for view in ("map", "next"):
        page.show(view)
        for modifier in (ALT, CONTROL):
            mouse(page).key_down(modifier).send_keys("a").key_up(modifier).perform()
            assert not page.js("return document.querySelector('#chooser').open")
    page.framed  # noqa: B018
    mouse(page).key_down(CONTROL).send_keys("a").key_up(CONTROL).perform()
    assert len(page.all(".card.selected")) > 1


def test_a_key_on_the_map_labels_what_is_selected_and_nothing_else(open_page):
    page = open_page()
    pixels(page)
    hint = page.text("#hint")
    points = []
    for near in (0, 1):
        click_map(page, near)
        page.until(lambda: page.all(".card"))
        points += points_shown(page)
        assert page.text("#hint").startswith("1 selected")
        page.keys(ESCAPE)
        assert (page.all(".card"), page.text("#hint")) == ([], hint)
    a, b = points
    assert a != b
    hold(page, "api/cards")
    click_map(page, a)
    page.keys(ESCAPE)  # before its card comes
    release(page)
    page.keys("2")
    page.until(lambda: page.text("#toast") == "Select points first")
    rest(page)
    assert (page.all(".card"), exported(page)) == ([], {})
    hold(page, "api/cards")
    click_map(page, a)
    click_map(page, b)
    page.keys("3")  # before their cards come
    release(page)
    page.until(lambda: page.labelled == 2)
    assert exported(page) == {a: "two", b: "two"}
    assert (page.all(".card"), page.text("#hint")) == ([], hint)  # nothing is selected any more
    click_map(page, a)
    page.until(lambda: points_shown(page) == {a})
    page.keys("4")
    page.until(lambda: "three" in exported(page).values())
    click_map(page, b)
    page.until(lambda: points_shown(page) == {b})
    assert page.text("#tip b") == "two"
    page.keys("5")
    page.until(lambda: exported(page) == {a: "three", b: "four"})
    page.until(lambda: page.text("#tip b") == "four")
    assert page.text("#legend").endswith("Ringed: labelled.")


def test_the_map_tells_when_not_every_label_has_a_ring(tmp_path):
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", rng.standard_normal((4200, 4)).astype(np.float32))
    (tmp_path / "y.csv").write_text("label\n" + "a\nb\n" * 2050 + "\n" * 100)
    with served(tmp_path / "x.npy", "--labels", tmp_path / "y.csv") as (address, _):
        page = Page(address)
        pixels(page)
        assert page.text("#legend").endswith("Ringed: labelled, 4,000 of those in sight.")
        page.close()


def test_a_request_that_fails_does_not_end_the_polling(open_page):
    page = open_page()
    point = page.framed
    hold(page, "api/cards", fail=True)
    post(page, "answer", seen=[[point, 0]], label=7)
    page.until(lambda: page.text("#status span") == "No connection")
    assert "does not answer" in page.text("#toast")
    release(page)
    page.until(lambda: "answers again" in page.text("#toast"))
    page.settled()
    assert page.text(f"#card-{point} .tag") == "seven"


def test_answers_that_wait_are_not_lost(open_page, tmp_path):
    page = open_page()
    folder = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", folder)
    closing = """const event = new Event("beforeunload", {cancelable: true});
        dispatchEvent(event);
        return event.defaultPrevented"""
    point = page.framed
    hold(page, "api/answer")
    page.keys("6", "7")
    page.until(lambda: len(page.all(".card.done")) == 2)
    assert page.js(closing)
    page.js("document.querySelector('#export').open = true")
    page.all("#export a")[0].click()
    rest(page)
    assert not (tmp_path / "labels.csv").exists()
    release(page)
    page.until(lambda: (tmp_path / "labels.csv").exists())
    rows = csv.DictReader((tmp_path / "labels.csv").read_text().splitlines())
    labels = {int(row["index"]): row["label"] for row in rows}
    assert sorted(labels.values()) == ["five", "six"]
    assert labels[point] == "five"
    assert not page.js(closing)


def test_only_images_that_show_the_class_are_confirmed_as_it(open_page, digits):
    page = open_page()
    label_by_keys(page, digits[1], 12)
    page.settled()
    page.show("class")
    page.framed  # noqa: B018
    shown = len(page.all(".card"))
    assert page.text("#more") == f"Confirm {shown} as zero"
    # as if a propagation had changed the first image's label, and the page had heard of it
    page.js("""const real = window.fetch;
        const first = +document.querySelector(".card").dataset.point;
        window.fetch = async (path, options) => {
          const response = await real(path, options);
          if (!path.endsWith("api/cards")) return response;
          const found = await response.json();
          for (const card of found.cards) if (card.point === first) card.label = 3;
          return Response.json(found);
        }""")
    first = int(page.all(".card")[0].get_attribute("data-point"))
    taken = points_shown(page) | exported(page).keys()
    other = next(point for point in range(1797) if point not in taken)
    post(page, "answer", seen=[[other, 0]], label=digits[1][other])
    page.until(lambda: page.text(f"#card-{first} .tag") == "three")
    page.settled()
    rest(page)  # until the cards are those of now
    count = int(page.text("#more").split()[1])
    assert count < shown
    before = exported(page).keys()
    page.keys(ENTER)
    page.until(lambda: page.labelled == 13 + count)
    new = exported(page)
    assert {new[point] for point in new.keys() - before} == {"zero"}
    assert first not in new


def test_undo_knows_its_person_after_the_server_was_started_again(digits, tmp_path):
    command = (digits[0] / "x.npy", "--classes", "a,b", "--state", tmp_path / "s.sqlite")
    with served(*command) as (address, _):
        page = Page(address)
        page.framed  # noqa: B018
        page.keys("1")
        page.until(lambda: page.labelled == 1)
    with served(*command) as (address, _):
        page.until(lambda: "started again" in page.text("#toast"))
        page.driver.get(address)
        page.until(lambda: page.all(".card"))
        assert page.labelled == 1
        page.keys("u")
        page.until(lambda: page.labelled == 0)
        page.close()

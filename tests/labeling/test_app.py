"""The server: answers, undo, what the page shows, export, and what it does not give away."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

from dlp_plugins.embeddings.labels import read_labels
from dlp_plugins.errors import DataError, LabelError, UsageError
from dlp_plugins.labeling.run import prepare_labeling

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
from fastapi.testclient import TestClient

from dlp_plugins.labeling import export
from dlp_plugins.labeling.app import create_app

TOKEN = "secret-token"
NAMES = ["ape", "bat", "cat", "dog"]
COLOURS = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (200, 200, 0)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder of 120 photos of one colour per class, their embeddings, ids and true labels."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    y = rng.integers(4, size=120)
    x = (2 * np.eye(8)[y] + 0.6 * rng.standard_normal((120, 8))).astype(np.float32)
    np.save(folder / "x.npy", x)
    (folder / "photos" / "sub").mkdir(parents=True)
    names = [f"{'sub/' if i % 2 else ''}{i}.png" for i in range(120)]
    for i, name in enumerate(names):
        Image.new("RGB", (400, 20), COLOURS[y[i]]).save(folder / "photos" / name)
    (folder / "ids.txt").write_text("\n".join(names))
    (folder / "truth.csv").write_text("label\n" + "".join(f"{NAMES[c]}\n" for c in y))
    Image.new("RGB", (20, 20)).save(folder / "private.png")
    return folder


def job(data, tmp_path, **options):
    options = {
        "images": data / "photos", "ids": data / "ids.txt", "classes": NAMES,
        "truth": data / "truth.csv", "state": tmp_path / "s.sqlite", "selector": "random",
    } | options  # fmt: skip
    return prepare_labeling(data / "x.npy", **options)


class Page:
    """What the browser does."""

    def __init__(self, session, person="ann"):
        self.session, self.person = session, person
        app = create_app(session, TOKEN, title="photos")
        self.client = TestClient(app, base_url="http://127.0.0.1")

    def get(self, path):
        return self.client.get(f"/{TOKEN}/{path}")

    def post(self, path, **body):
        answer = self.client.post(f"/{TOKEN}/api/{path}", json={"person": self.person, **body})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def cards(self, source="useful", count=8, **more):
        return self.post("cards", source=source, count=count, **more)["cards"]

    def answer(self, cards, label):
        seen = [[card["point"], card["version"]] for card in cards]
        return self.post("answer", seen=seen, label=label)

    def settle(self):
        assert self.session.refiner.wait(60)
        assert self.session.adviser.wait(60)
        assert self.session.auditor.wait(60)
        assert self.session.calibrator.wait(60)


@pytest.fixture
def page(data, tmp_path):
    session = job(data, tmp_path).open()
    yield Page(session)
    session.close()


def truth_of(data):
    return [NAMES.index(c) for c in (data / "truth.csv").read_text().split()[1:]]


def test_every_answer_updates_all_counts_and_the_accuracy(page, data):
    y = truth_of(data)
    start = page.get("api/state").json()
    assert (start["labelled"], start["unreached"], start["accuracy"]["share"]) == (0, 120, 0)
    for card in page.cards(count=6):
        state = page.answer([card], y[card["point"]])["state"]
    assert state["labelled"] == 6
    assert sum(c["given"] for c in state["classes"]) == 6
    assert sum(c["total"] for c in state["classes"]) == 120 - state["unreached"]
    page.settle()
    state = page.get("api/state").json()
    assert state["settled"]
    assert state["accuracy"]["share"] > 0.8
    assert state["accuracy"]["of"] == 114


def test_many_at_once_undo_skip_and_correct(page):
    cards = page.cards(count=8)
    done = page.answer(cards, 2)
    assert (done["changed"], done["refused"]) == (8, [])
    assert {card["given"] for card in done["cards"]} == {2}
    assert page.answer(done["cards"][:1], 1)["state"]["classes"][1]["given"] == 1
    assert page.post("undo")["state"]["classes"][2]["given"] == 8
    assert page.post("undo")["state"]["labelled"] == 0
    assert page.answer(page.cards(count=3), "skip")["state"]["skipped"] == 3
    skipped = {point for point, label in page.session.store.labels().items() if label < 0}
    assert not skipped & {card["point"] for card in page.cards(count=100)}


def test_two_people_see_different_points_and_do_not_overwrite_each_other(page):
    other = Page(page.session, "bob")
    mine, theirs = page.cards(count=20), other.cards(count=20)
    assert not {c["point"] for c in mine} & {c["point"] for c in theirs}
    page.answer(mine[:2], 0)
    late = other.answer(mine[:3], 1)  # as from a link, before ann's answer came
    assert late["refused"] == [c["point"] for c in mine[:2]]
    assert late["changed"] == 1
    assert other.post("undo")["state"]["labelled"] == 2


def test_points_by_class_from_the_least_certain_and_confirmed_together(page, data):
    y = truth_of(data)
    for card in page.cards(count=8):
        page.answer([card], y[card["point"]])
    page.settle()
    cards = page.cards("class", 10, label=1)
    assert {card["label"] for card in cards} == {1}
    certainty = [card["certainty"] for card in cards]
    assert certainty == sorted(certainty)
    page.answer(cards, 1)
    again = page.cards("class", 10, label=1)
    assert not {c["point"] for c in cards} & {c["point"] for c in again}
    left_out = page.cards("class", 10, label=1, exclude=[again[0]["point"]])
    assert left_out[0]["point"] == again[1]["point"]


def test_a_wrong_label_is_suspicious_and_its_correction_is_not(page, data):
    y = truth_of(data)
    cards = page.cards(count=24)
    for label in range(4):
        page.answer([c for c in cards if y[c["point"]] == label], label)
    wrong = cards[3]["point"]
    page.answer(page.cards("points", 1, points=[wrong]), (y[wrong] + 1) % 4)
    page.settle()
    found = page.cards("suspicious", 5)
    assert (found[0]["point"], found[0]["suggested"]) == (wrong, y[wrong])
    page.answer(found[:1], y[wrong])
    page.settle()
    assert wrong not in {card["point"] for card in page.cards("suspicious", 5)}


def test_classes_can_be_added(page):
    assert page.post("classes", name="eel")["label"] == 4
    state = page.answer(page.cards(count=1), 4)["state"]
    assert state["classes"][4] == {"name": "eel", "given": 1, "total": 120 - state["unreached"]}


def test_the_map_has_a_place_and_a_colour_for_every_point(page):
    before = page.get("api/colours").content
    places = np.frombuffer(page.get("api/places").content, "<u2").reshape(-1, 2)
    assert places.shape == (120, 2)
    assert places.std(axis=0).min() > 1000
    point = page.cards(count=1)[0]["point"]
    page.answer(page.cards("points", 1, points=[point]), 3)
    rows = np.frombuffer(page.get("api/colours").content, [("c", "<u2"), ("p", "u1"), ("g", "u1")])
    assert tuple(rows[point]) == (4, 255, 1)
    assert before != rows.tobytes()


def test_the_exported_labels_are_read_back_the_same(page, data, tmp_path):
    cards = page.cards(count=9)
    for i, card in enumerate(cards):
        page.answer([card], i % 4)
    path = tmp_path / "labels.csv"
    path.write_bytes(page.get("export/labels.csv").content)
    rows = list(csv.DictReader(io.StringIO(path.read_text())))
    assert rows[0].keys() == {"index", "id", "label"}
    labels = read_labels(path, 120, ids=page.session.ids)
    expected = {card["point"]: NAMES[i % 4] for i, card in enumerate(cards)}
    found = {i: labels.classes[c] for i, c in enumerate(labels.labels.tolist()) if c >= 0}
    assert found == expected


def test_the_export_for_label_studio_has_annotations_and_predictions(page):
    card = page.cards(count=1)[0]
    page.answer([card], 2)
    tasks = page.get("export/label_studio.json").json()
    assert len(tasks) == 120
    own = tasks[card["point"]]
    assert own["annotations"][0]["result"][0]["value"] == {"choices": ["cat"]}
    assert own["data"]["image"] == "/data/local-files/?d=" + card["name"]
    for name in ("a b&c#1.jpg", "50%+.png"):
        called = [name] * 120
        text = export.label_studio_json(page.session.live.view, NAMES, called.__getitem__, "?d=")
        image = json.loads(text)[0]["data"]["image"]
        assert parse_qs(urlsplit(image).query) == {"d": [name]}
    other = next(t for i, t in enumerate(tasks) if i != card["point"] and "predictions" in t)
    assert other["predictions"][0]["result"][0] == own["annotations"][0]["result"][0]


def test_images_are_served_by_number_and_nothing_else_is(page):
    image = page.get("image/3")
    assert image.headers["content-type"] == "image/jpeg"
    size = Image.open(io.BytesIO(image.content)).size
    assert size == (320, 16)
    paths = (
        "image/120", "image/-1", "image/..%2Fprivate.png", "image/../private.png", "web/app.py",
        "web/..%2Fapp.py", "../private.png", "docs", "openapi.json",
    )  # fmt: skip
    for path in paths:
        assert page.get(path).status_code in (404, 422), path


def test_without_the_token_or_under_another_name_there_is_nothing(page):
    for path in ("/", "/wrong/", "/wrong/api/state", "/api/state", "/secret-toke/image/1"):
        assert page.client.get(path).status_code == 404
    assert page.get("api/state").status_code == 200
    evil = {"host": "evil.example"}  # its name made to lead here
    assert page.client.get(f"/{TOKEN}/api/state", headers=evil).status_code == 400
    assert "default-src 'self'" in page.get("").headers["content-security-policy"]


def test_bad_requests_are_explained(page):
    for body, text in (
        ({"seen": [[999, 0]], "label": 0}, "no point 999"),
        ({"seen": [[1, 0]], "label": 9}, "no class 9"),
    ):
        answer = page.client.post(f"/{TOKEN}/api/answer", json={"person": "a", **body})
        assert (answer.status_code, text in answer.text) == (400, True)
    bad = page.client.post(f"/{TOKEN}/api/answer", json={"person": "a", "seen": [], "label": 0})
    assert bad.status_code == 422
    with pytest.raises(LabelError):
        page.session.store.add_class("-1")


def test_a_link_out_of_the_folder_is_not_followed(data, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for i in range(120):
        Image.new("RGB", (8, 8)).save(photos / f"{i:03}.png")
    (photos / "007.png").unlink()
    (photos / "007.png").symlink_to(data / "private.png")
    opened = Page(job(data, tmp_path, images=photos, ids=None, truth=None).open())
    assert opened.get("image/6").status_code == 200
    assert opened.get("image/7").status_code == 404
    opened.session.close()
    for name in ("../private.png", str(data / "private.png")):
        (tmp_path / "ids.txt").write_text("\n".join([name, *map(str, range(1, 120))]))
        with pytest.raises(DataError, match="outside"):
            job(data, tmp_path, ids=tmp_path / "ids.txt", truth=None)


def test_a_photo_that_is_gone_is_named_and_its_point_shown_without(data, tmp_path):
    names = (data / "ids.txt").read_text().splitlines()
    names[7] = "gone.png"
    (tmp_path / "ids.txt").write_text("\n".join(names))
    with pytest.warns(UserWarning, match=r"gone\.png: there is no such image.*\(1 such point\)"):
        opened = Page(job(data, tmp_path, ids=tmp_path / "ids.txt").open())
    assert opened.get("image/7").status_code == 404
    opened.session.close()
    (tmp_path / "ids.txt").write_text("\n".join(f"{i}.jpg" for i in range(120)))
    with pytest.raises(DataError, match="Ids must be paths below the folder"):
        job(data, tmp_path, ids=tmp_path / "ids.txt")


def test_labels_are_there_at_the_next_start_and_a_file_of_labels_begins_a_new_one(data, tmp_path):
    known = tmp_path / "known.csv"
    known.write_text("index,label\n3,cat\n4,bat\n5,cow\n")
    first = job(data, tmp_path, labels=known).open()
    assert first.store.classes() == [*NAMES, "cow"]
    assert first.store.labels() == {3: 2, 4: 1, 5: 4}
    first.answer("ann", {5: first.store.versions()[5]}, None)
    kept = first.store.labels()
    first.close()
    with pytest.warns(UserWarning, match=r"known\.csv is not read: .* holds labels already"):
        second = job(data, tmp_path, labels=known, classes=[]).open()
    assert len(kept) == second.summary()["labelled"] == 2
    assert second.store.labels() == kept
    second.close()


def test_what_is_wrong_is_found_before_anything_is_read(data, tmp_path):
    with pytest.raises(UsageError, match="--classes"):
        job(data, tmp_path, classes=[])
    with pytest.raises(LabelError, match="-1"):
        job(data, tmp_path, classes=["-1"])
    with pytest.raises(DataError, match="holds 1 images"):
        job(data, tmp_path, images=one_image(tmp_path), ids=None, truth=None)
    with pytest.raises(UsageError, match="--state"):
        job(data, tmp_path, state=tmp_path)


def one_image(tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    return folder


@pytest.mark.commands
def test_a_killed_server_has_lost_nothing(data, tmp_path):
    command = [
        sys.executable, "-m", "dlp_cli", "label", data / "x.npy", "--classes", ",".join(NAMES),
        "--state", tmp_path / "s.sqlite", "--no-browser",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    server = subprocess.Popen(map(str, command), env=environment, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = next(line.split()[1] for line in server.stdout if line.startswith("Open "))
    body = b'{"person": "a", "seen": [[5, 0], [9, 0]], "label": 2}'
    request = urllib.request.Request(
        f"{address}api/answer", body, {"Content-Type": "application/json"}
    )
    assert urllib.request.urlopen(request).status == 200
    server.send_signal(signal.SIGKILL)
    server.wait()
    session = job(data, tmp_path, images=None, ids=None, truth=None).open()
    assert session.store.labels() == {5: 2, 9: 2}
    session.close()


@pytest.mark.commands
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_token_is_not_on_the_browsers_command_line(data, tmp_path, end):
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\necho \"$@\" > '{tmp_path / 'arguments'}'\n")
    browser.chmod(0o755)
    command = [
        sys.executable, "-m", "dlp_cli", "label", data / "x.npy", "--classes", ",".join(NAMES),
        "--state", tmp_path / "s.sqlite",
    ]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "BROWSER": str(browser)}
    server = subprocess.Popen(
        map(str, command), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert server.stdout is not None
    address = next(line.split()[1] for line in server.stdout if line.startswith("Open "))
    assert urllib.request.urlopen(address).status == 200  # the browser was started before
    arguments = (tmp_path / "arguments").read_text().strip()
    assert address.split("/")[-2] not in arguments
    page = Path(urllib.request.url2pathname(arguments.removeprefix("file://")))
    assert page.stat().st_mode & 0o777 == 0o600
    assert f'content="0; url={address}"' in page.read_text()
    server.send_signal(end)
    out, errors = server.communicate(timeout=60)
    assert server.returncode == 0, errors
    assert "Traceback" not in errors
    assert "0 points labelled" in out
    assert not page.exists()

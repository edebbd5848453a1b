"""The parser's training: scores, loss, and a run that is stopped and resumed."""

import argparse
import json
import shutil
import signal
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
import torch

from engine.bundle_build import recipe_folder
from engine.errors import CheckpointError
from models.parsing import CLASSES
from models.training import parser as training
from models.training import parsing_samples as samples
from models.training.log import save_checkpoint
from models.training.loop import loop_options
from models.training.splits import load_splits


def arguments(data: Path, out: Path, *flags: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    training.add_arguments(parser)
    places = ["--data", str(data), "--out", str(out), "--checkpoints", str(out / "run")]
    return parser.parse_args([*places, "--batch", "2", "--log-every", "1", *flags])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pairs, two a split: a bright disc of skin on a dark background."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "parsing" / "celebamask256"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rule = load_splits().rules["parsing/celebamask256/images"]
    stems = ["0", "00", rule.validation_from, rule.validation_from + "0", rule.test_from, rule.test_from + "0"]
    for index, stem in enumerate(stems):
        mask = np.zeros((256, 256), np.uint8)
        cv2.circle(mask, (110 + 8 * index, 128), 70, 1, -1)
        cv2.imwrite(str(folder / "images" / f"{stem}.jpg"), np.repeat(mask[..., None] * np.uint8(180) + 30, 3, 2))
        cv2.imwrite(str(folder / "masks" / f"{stem}.png"), mask)
    return root


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps."""
    out = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_STATISTICS_BATCHES", 2)
        assert training.run(arguments(data, out, "--steps", "3")) == 0
    return out


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "run" / "log.jsonl").read_text().splitlines()]


def test_ious_of_a_known_confusion():
    counts = np.zeros((len(training.SCORED), len(training.SCORED)), np.int64)
    counts[0, 0], counts[0, 1], counts[1, 1] = 6, 2, 4
    assert training.ious_from_confusion(counts)[:3].tolist() == [6 / 8, 4 / 6, 1.0]


def test_face_iou_joins_the_face_classes():
    counts = np.zeros((len(training.SCORED), len(training.SCORED)), np.int64)
    skin, hair, cloth = (training.SCORED.index(name) for name in ("skin", "hair", "cloth"))
    counts[skin, hair], counts[hair, hair] = 3, 3  # both are face
    counts[hair, cloth], counts[0, skin], counts[0, cloth] = 2, 2, 9
    assert training.face_iou(counts) == pytest.approx(6 / 10)


def test_loss_is_least_for_the_truth_and_ignores_absent_classes_in_dice():
    labels = torch.randint(0, 2, (2, 16, 16))
    right = torch.nn.functional.one_hot(labels, len(CLASSES)).movedim(3, 1).float() * 40
    weights = torch.ones(len(CLASSES))
    assert training.parsing_loss(right, labels, weights) < 1e-4
    assert training.parsing_loss(-right, labels, weights) > 1.0


def test_nothing_is_learnt_from_unknown_pixels():
    labels = torch.randint(0, 2, (1, 16, 16))
    logits = torch.zeros(1, len(CLASSES), 16, 16, requires_grad=True)
    labels[:, :8] = samples.UNKNOWN
    training.parsing_loss(logits, labels, torch.ones(len(CLASSES))).backward()
    assert not logits.grad[:, :, :8].any()
    assert logits.grad[:, :, 8:].any()


def test_an_occluder_that_is_found_counts_as_background():
    pairs = training.Pairs(np.zeros((1, 256, 256, 3), np.uint8), np.zeros((1, 256, 256), np.uint8))
    logits = np.zeros((1, len(CLASSES), 128, 128), np.float32)
    logits[:, samples.OCCLUDER] = 1.0
    counts = training.confusion(lambda crops: logits, pairs)
    assert counts[0, 0] == counts.sum() == 128 * 128


def test_rare_classes_weigh_more():
    labels = np.zeros((1, 20, 20), np.uint8)
    labels[0, 0, :4] = 3
    weights = training.class_weights(labels)
    assert weights[3] / weights[0] == pytest.approx(99**0.2, rel=1e-3)
    occluded = 0.05 * weights[samples.OCCLUDER]  # no label has any; training adds them
    assert weights[0] * 0.99 + weights[3] * 0.01 + occluded == pytest.approx(1.0, abs=0.03)


def test_pairs_with_glasses_or_a_hat_are_drawn_more_often():
    labels = np.zeros((4, 20, 20), np.uint8)
    labels[1, :4, :4] = CLASSES.index("glasses")
    labels[2, :4] = CLASSES.index("hat")
    labels[3] = CLASSES.index("hair")
    np.testing.assert_allclose(training.sampling_chances(labels), np.array([1.0, 1.5, 4.0, 1.0]) / 7.5)


def test_finished_run_leaves_weights_lineage_and_log(finished):
    report = json.loads((finished / training.LINEAGE).read_text())
    assert report["steps"] == 3
    assert tuple(report["iou"]) == training.SCORED
    assert report["miou"] == pytest.approx(np.mean(list(report["iou"].values())), abs=1e-3)
    assert not training.load_parser(finished / training.WEIGHTS).training
    assert any("validation_miou" in line for line in lines(finished))


def test_resumed_run_goes_on_from_the_checkpoint(data, finished, tmp_path, monkeypatch):
    out = tmp_path / "resumed"
    shutil.copytree(finished, out)
    monkeypatch.setattr(training, "_STATISTICS_BATCHES", 2)
    (out / "run" / "log.jsonl").unlink()
    training.run(arguments(data, out, "--steps", "5", "--resume"))
    assert [line["step"] for line in lines(out) if "loss" in line] == [4, 5]


def test_a_resume_without_a_checkpoint_takes_the_fresh_weights(data, finished):
    task = training.ParserTask(training.load_split(data, "train"), training.load_split(data, "validation"), seed=1)
    assert str(finished) in task.start_from(finished)
    saved = training.load_parser(finished / training.WEIGHTS).state_dict()
    trained = task.players[0].trained.state_dict()
    assert all(torch.equal(trained[key], saved[key]) for key in saved)


def test_a_resume_without_any_run_takes_the_weights_that_ship(data, tmp_path):
    task = training.ParserTask(training.load_split(data, "train"), training.load_split(data, "validation"), seed=1)
    assert "ship" in task.start_from(tmp_path)
    network = task.players[0].trained.eval()
    crops = task.draw(0, range(2))[0]
    session = onnxruntime.InferenceSession(recipe_folder("default") / "parser.onnx")
    shipped = session.run(["logits"], {"crop": crops.numpy()})[0]
    np.testing.assert_allclose(network(crops).detach().numpy(), shipped, atol=1e-3)


def test_foreign_weights_are_refused(tmp_path):
    save_checkpoint(tmp_path / "parser.pt", weights={"stem.0.weight": torch.zeros(1)})
    with pytest.raises(CheckpointError, match=r"parser\.pt"):
        training.load_parser(tmp_path / "parser.pt")


def test_foreign_checkpoint_is_refused(data, tmp_path):
    save_checkpoint(tmp_path / "run" / "last.pt", step=3)
    with pytest.raises(CheckpointError, match=r"last\.pt"):
        training.run(arguments(data, tmp_path, "--resume"))


def test_a_stopped_run_is_not_scored(data, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_STATISTICS_BATCHES", 2)
    draw = training.ParserTask.draw

    def interrupted(self, step, numbers):
        if step == 2:
            signal.raise_signal(signal.SIGINT)
        return draw(self, step, numbers)

    monkeypatch.setattr(training.ParserTask, "draw", interrupted)
    assert training.run(arguments(data, tmp_path, "--steps", "50", "--workers", "0")) == 0
    assert (tmp_path / training.WEIGHTS).is_file()
    assert not (tmp_path / training.LINEAGE).exists()


def test_a_resumed_run_keeps_the_labels_it_began_with(data, tmp_path, monkeypatch):
    pairs, teachers, made = training.load_split(data, "train"), [], []
    monkeypatch.setattr(training.ParserTask, "start_from", lambda self, folder: teachers.append(folder) or "some")

    def make(value):
        def label(parse):
            made.append(value)
            return np.full((1, 256, 256, 3), value, np.uint8), np.full((1, 256, 256), value % 8, np.uint8)

        return label

    kinds = {training.STILLS: make(50), training.MOUTHS: make(60)}
    for flags in ((), ("--resume",)):
        found = training.with_more(pairs, loop_options(arguments(data, tmp_path, *flags)), kinds)
        assert found.crops[-2:, 0, 0, 0].tolist() == [50, 60]
        assert found.labels[-2:, 0, 0].tolist() == [2, 4]
        np.testing.assert_array_equal(found.crops[:-2], pairs.crops)
    assert (len(teachers), made) == (1, [50, 60])

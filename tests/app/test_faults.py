"""What a person's call sees when something dies under a real session: never the unedited face, and then the edit again.

The networks are the tiny bundle's; the face is the demo clip's, which has one in every frame.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from app.camera_switch import CameraSwitch
from app.feed import Feed
from app.live import LiveEditor
from app.loader import Backend
from app.settings import RunSettings
from app.sources import Source, open_playing
from engine.bundle import GraphSpec
from engine.errors import CardFailed, RuntimeUnavailable, SourceError
from engine.frames import CameraFrame, Controls, EditedFrame, ImageU8, Phase
from engine.runtimes.base import Device, Network, Precision, Runtime
from engine.runtimes.select import select
from engine.session import Session
from tests.app.registered_camera import until
from tests.engine import tiny_bundle

FACE = np.s_[300:560, 600:800]
"""A place inside the demo clip's face."""
CHANGED = 3.0
"""Grey levels by which an edited face differs at least; an unedited one does not differ at all."""


@dataclass
class FakeCard:
    """A graphics card: networks run on it until it is `dead`, and none can be opened while it is `gone`."""

    runtime: Runtime
    dead: bool = False
    gone: bool = False
    error: Exception = field(default_factory=lambda: RuntimeError("the card fell off the bus"))

    @property
    def name(self) -> str:
        return self.runtime.name

    def obstacles(self, device: Device, precision: Precision) -> tuple[str, ...]:
        return self.runtime.obstacles(device, precision)

    def describe(self, device: Device, precision: Precision) -> str:
        return "a fake card"

    def open(self, model: Path, spec: GraphSpec, device: Device, precision: Precision) -> "CardNetwork":
        if self.gone:
            raise RuntimeUnavailable("no card is there")
        return CardNetwork(self, self.runtime.open(model, spec, device, precision))


@dataclass
class CardNetwork:
    card: FakeCard
    network: Network

    @property
    def spec(self) -> GraphSpec:
        return self.network.spec

    def __call__(self, **arrays: np.ndarray) -> Mapping[str, np.ndarray]:
        if self.card.dead:
            raise self.card.error
        return self.network(**arrays)

    def close(self) -> None:
        self.network.close()


class LosableSource:
    """Plays the demo clip until it is unplugged."""

    def __init__(self) -> None:
        self.unplugged = False
        self._source = open_playing("demo")
        self.info, self.cancel, self.close = self._source.info, self._source.cancel, self._source.close

    def read(self) -> CameraFrame | None:
        if self.unplugged:
            raise SourceError("the camera was unplugged")
        return self._source.read()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class Call:
    """A run, and every frame that a call would see of it."""

    editor: LiveEditor
    card: FakeCard
    sources: list[LosableSource]
    seen: list[tuple[EditedFrame, ImageU8]] = field(default_factory=list)

    def edited(self) -> None:
        """Waits for three more edited frames."""
        before = len(self.seen)
        until(lambda: sum(edited.phase is Phase.TRACKING for edited, _ in self.seen[before:]) >= 3)

    def held(self, count: int) -> None:
        """Waits for so many more frames, of which none can be edited."""
        before = len(self.seen)
        until(lambda: len(self.seen) >= before + count)
        assert not any(edited.phase is Phase.TRACKING for edited, _ in self.seen[before:])

    def told(self, words: str) -> None:
        until(lambda: any(words in problem for problem in self.editor.state.problems))

    def quiet(self) -> None:
        until(lambda: not self.editor.state.problems)


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Call]:
    """A run whose edit is seen; at the end every frame of it is looked at, and it ends in good order."""
    folder, card, sources = tiny_bundle.build(tmp_path / "tiny"), FakeCard(select("onnxruntime")), []

    def open_source(name: str) -> Source:
        sources.append(LosableSource())
        return sources[-1]

    backend = Backend(lambda settings: {"smile": "Smile"}, lambda settings: Session.open(folder, runtime=card))
    controls = Controls({"smile": 1.0})
    editor = LiveEditor(RunSettings(), controls, lambda: None, lambda: None, backend=backend, feed=Feed(open_source))
    made = Call(editor, card, sources)
    monkeypatch.setattr(CameraSwitch, "show", lambda self, edited, original: made.seen.append((edited, original)))
    editor.start()
    made.edited()
    yield made
    assert editor.end(30)
    bare = [edited.phase for edited, original in made.seen if not _is_changed(edited.image, original)]
    assert not bare, f"{len(bare)} of {len(made.seen)} frames show the unedited face: {bare[:9]}"


def _is_changed(image: ImageU8, original: ImageU8) -> bool:
    return bool(np.abs(image[FACE].astype(np.int16) - original[FACE]).mean() >= CHANGED)


def test_a_card_that_dies_is_told_held_and_replaced(call: Call) -> None:
    call.card.dead = True
    call.told("the card fell off the bus; the lost-face policy is in force")
    call.held(10)
    call.card.dead = False
    call.quiet()
    call.edited()


def test_a_card_without_memory_is_told_held_and_tried_again(call: Call) -> None:
    """Any later frame may do better, and no fresh session is needed for it."""
    call.card.error = CardFailed("the graphics card is out of memory (1 GB wanted); close other programs")
    call.card.dead = True
    call.told("the engine failed: the graphics card is out of memory (1 GB wanted); close other programs")
    call.held(5)
    call.card.dead = False
    call.edited()
    call.quiet()


def test_a_card_that_stays_away_leaves_the_policy_in_force_until_it_is_back(call: Call) -> None:
    call.card.dead = call.card.gone = True
    call.told("the card fell off the bus")
    call.told("no card is there")
    call.held(10)
    call.card.dead = call.card.gone = False
    call.edited()
    call.quiet()


def test_a_card_that_is_gone_for_good_does_not_hinder_the_end(call: Call) -> None:
    call.card.dead = call.card.gone = True
    call.told("no card is there")


def test_a_camera_that_is_unplugged_is_told_held_and_taken_up_again(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.feed._RETRY_S", 2.0)
    call.sources[-1].unplugged = True
    call.told("the camera was unplugged")
    call.held(5)
    held = len(call.seen)
    call.quiet()
    call.edited()
    assert len(call.sources) == 2
    assert len(call.seen) - held < 200, "a picture that stands still takes no processor time"


def test_an_error_in_the_engine_thread_is_told_and_the_edit_comes_back(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Feed, "take", lambda self, timeout_s: 1 / 0)
        call.told("division")
        time.sleep(0.5)
    call.quiet()
    call.edited()

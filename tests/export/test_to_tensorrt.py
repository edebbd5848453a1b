"""Engines of TensorRT for RTX, built for real on a machine without a card; running them is not tested here."""

import _thread
import hashlib
import logging
import signal
from importlib.util import find_spec
from pathlib import Path

import onnx
import pytest

from app.bundles import prepare_bundle
from engine.bundle import BATCH, open_bundle
from engine.bundle_build import bundle_path
from engine.errors import AssetMissing, ExportError, RuntimeUnavailable, UsageError
from engine.fingerprint import Port, read_fingerprint
from engine.graphs import plain
from export.exported import Order, export
from export.precision import typed
from export.to_tensorrt import TARGETS, build, plan, prepare, write_engines
from tests.engine.conftest import tiny, tiny_folder

__all__ = ["tiny", "tiny_folder"]

trt = pytest.importorskip("tensorrt_rtx", reason="could not import tensorrt_rtx", exc_type=ImportError)


def typed_files(bundle, wanted, folder, graphs=None):
    """The bundle's ONNX files in the plan's precision, written into `folder`."""
    folder.mkdir()
    files = {}
    for file in dict.fromkeys(bundle.manifest.graphs[graph].file for graph in graphs or bundle.manifest.graphs):
        files[file] = folder / file
        onnx.save(prepare(typed(plain(onnx.load(bundle.folder / file)), wanted.precision), wanted), files[file])
    return files


def ports(shapes):
    return {
        name: Port("FLOAT", tuple(-1 if axis == BATCH else axis for axis in shape)) for name, shape in shapes.items()
    }


def check_engines(bundle, folder, wanted):
    """Every graph has an engine whose parsed network is the manifest's and whose file is what the fingerprint says."""
    fingerprint = read_fingerprint(folder)
    assert (fingerprint.library, fingerprint.version) == ("tensorrt_rtx", trt.__version__)
    assert (fingerprint.targets, fingerprint.precision) == (wanted.targets, wanted.precision)
    assert fingerprint.bundle_sha256 == hashlib.sha256((bundle.folder / "manifest.json").read_bytes()).hexdigest()
    for spec in bundle.manifest.graphs.values():
        record = fingerprint.engines[f"{Path(spec.file).stem}.engine"]
        assert record.source_sha256 == bundle.manifest.files[spec.file]
        assert (record.inputs, record.outputs) == (ports(spec.inputs), ports(spec.outputs))
        blob = (folder / f"{Path(spec.file).stem}.engine").read_bytes()
        assert (record.size_bytes, record.sha256) == (len(blob), hashlib.sha256(blob).hexdigest())
    return fingerprint


@pytest.mark.parametrize(("precision", "targets"), [("fp32", TARGETS), ("bf16", TARGETS[1:])])
def test_every_graph_of_a_bundle_becomes_an_engine(tiny, tmp_path, precision, targets):
    wanted = plan(precision)
    assert wanted.targets == targets
    (tmp_path / "out").mkdir()
    files = typed_files(tiny, wanted, tmp_path / "onnx")
    names = write_engines(tiny, files, tmp_path / "out", wanted)
    assert names == {f"{name}.onnx": f"{name}.engine" for name in tiny.manifest.graphs}
    fingerprint = check_engines(tiny, tmp_path / "out", wanted)
    assert fingerprint.engines["generator.engine"].batches == (1, 2, 8)
    assert fingerprint.engines["encoder.engine"].batches == (1, 1, 4)
    # Each operator of the file is at least one layer of the network, so nothing was dropped on the way.
    for file, path in files.items():
        operators = len(onnx.load(path).graph.node)
        assert fingerprint.engines[f"{Path(file).stem}.engine"].layers >= operators
    assert fingerprint.engines["recurrent.engine"].size_bytes > 100_000


def test_turing_needs_products_as_convolutions(tiny, tmp_path):
    """What `prepare` does is needed: without it the library refuses the network, with its own reason."""
    wanted = plan("fp32", ("7.5",))
    model, spec = plain(onnx.load(tiny.graph_path("encoder"))), tiny.manifest.graphs["encoder"]
    with pytest.raises(ExportError, match=r"cannot build encoder.onnx: .*FP32 GEMM is not supported"):
        build(model, spec, wanted, (1, 1, 4), "encoder.onnx")
    parsed, blob = build(prepare(model, wanted), spec, wanted, (1, 1, 4), "encoder.onnx")
    assert (parsed.inputs, parsed.outputs) == (ports(spec.inputs), ports(spec.outputs))
    assert len(blob) > 10_000


def test_another_interface_than_the_manifests_is_refused(tiny):
    model = plain(onnx.load(tiny.graph_path("encoder")))
    with pytest.raises(ExportError, match=r"was parsed with .*but the manifest promises"):
        build(model, tiny.manifest.graphs["encoder_anchor"], plan("fp32"), (1, 1, 4), "encoder.onnx")


def test_what_the_library_cannot_read_is_refused(tiny):
    model = plain(onnx.load(tiny.graph_path("encoder")))
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(ExportError, match=r"tensorrt_rtx cannot read encoder.onnx: .*NoSuchOperator"):
        build(model, tiny.manifest.graphs["encoder"], plan("fp32"), (1, 1, 4), "encoder.onnx")


@pytest.mark.parametrize(
    ("precision", "targets", "reason"),
    [("fp32", ("9.0",), r"targets got 9\.0; expected some of 7\.5"), ("bf16", ("7.5", "8.9"), r"7\.5 has no bf16")],
)
def test_targets_that_cannot_be_built_for(precision, targets, reason):
    with pytest.raises(UsageError, match=reason):
        plan(precision, targets)


def test_full_tensorrt_is_not_here():
    if find_spec("tensorrt"):
        pytest.skip("full TensorRT is installed")
    with pytest.raises(RuntimeUnavailable, match="the package tensorrt cannot be loaded"):
        plan("fp32", library="tensorrt")


@pytest.fixture
def interrupt_the_second_build():
    """Ctrl-C from the builder's thread, while the main one waits for it; in a background job it starts ignored."""
    before, logger = signal.signal(signal.SIGINT, signal.default_int_handler), logging.getLogger("export.to_tensorrt")
    level, parsed = logger.level, []

    class AtTheSecond(logging.Handler):
        def emit(self, record):
            if record.threadName == "engine builder":
                parsed.append(record)
                if len(parsed) == 2:
                    _thread.interrupt_main()

    handler = AtTheSecond()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(level)
    logger.removeHandler(handler)
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_leaves_nothing(tiny_folder, tmp_path, interrupt_the_second_build):
    with pytest.raises(KeyboardInterrupt):
        export(tiny_folder, Order("tensorrt", steps=1), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_default_bundle_becomes_engines_for_every_target(tmp_path, precision):
    try:
        bundle = open_bundle(bundle_path("default"))
    except AssetMissing as error:
        pytest.skip(str(error))
    wanted = plan(precision)
    (tmp_path / "out").mkdir()
    write_engines(bundle, typed_files(bundle, wanted, tmp_path / "onnx"), tmp_path / "out", wanted)
    fingerprint = check_engines(bundle, tmp_path / "out", wanted)
    names = ("generator", "encoder", "refiner", "recurrent", "parser")
    assert fingerprint.engines.keys() == {f"{name}.engine" for name in names}
    assert fingerprint.engines["generator.engine"].layers > 200
    whole = sum(record.size_bytes for record in fingerprint.engines.values())
    weights = sum(path.stat().st_size for path in (tmp_path / "onnx").iterdir())
    assert 0.9 * weights < whole < 4 * weights


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_each_target_alone(tmp_path, target):
    """The graph with every kind of layer, in the precision that every card has."""
    try:
        bundle = open_bundle(bundle_path("default"))
    except AssetMissing as error:
        pytest.skip(str(error))
    wanted = plan("fp16", (target,))
    (tmp_path / "out").mkdir()
    files = typed_files(bundle, wanted, tmp_path / "onnx", ("recurrent",))
    write_engines(bundle, files, tmp_path / "out", wanted)
    fingerprint = read_fingerprint(tmp_path / "out")
    assert fingerprint.targets == (target,)
    assert fingerprint.engines["recurrent.engine"].size_bytes > 4_000_000


@pytest.mark.slow
def test_the_papers_networks_become_engines_for_every_target(tmp_path):
    bundle = open_bundle(Path(prepare_bundle("paper-256")))
    wanted = plan("fp16")
    (tmp_path / "out").mkdir()
    write_engines(bundle, typed_files(bundle, wanted, tmp_path / "onnx"), tmp_path / "out", wanted)
    fingerprint = check_engines(bundle, tmp_path / "out", wanted)
    assert fingerprint.targets == TARGETS
    assert len(fingerprint.engines) == 5
    assert fingerprint.engines["encoder_anchor.engine"].size_bytes > 300_000_000

"""What is measured for int8: the heavy convolutions, and how far each channel of what they see goes."""

import numpy as np
import onnx
import pytest

from engine.bundle import open_bundle
from export import reach
from tests.engine.test_int8 import WIDE, picture, run, uneven_graph
from tests.engine.tiny_bundle import build


@pytest.fixture(autouse=True)
def _everything_is_kept(monkeypatch):
    monkeypatch.setattr(reach, "KEPT", 1.0)


def test_each_channel_where_its_giver_gives_to_nobody_else(tmp_path):
    model = uneven_graph(tmp_path / "g.onnx")
    found = reach.reaches(model, [{"x": picture()}, {"x": -picture()}])
    seen_b, seen_c, _ = run(model, *(node.input[0] for node in model.graph.node if node.output[0] in "bc"))
    assert set(found) == {"a", "b", "c"}
    assert (found["b"].channels >= np.abs(seen_b).max(axis=(0, 2, 3))).all()
    np.testing.assert_array_equal(
        reach.reaches(model, [{"x": picture()}])["c"].channels, np.abs(seen_c).max(axis=(0, 2, 3))
    )
    assert len(found["a"].channels) == 1
    assert found["b"].signed


def test_all_of_them_together_where_others_see_them_too(tmp_path):
    model = uneven_graph(tmp_path / "g.onnx", tapped=True)
    found, nodes = reach.reaches(model, [{"x": picture()}]), {node.output[0]: node for node in model.graph.node}
    seen, _ = run(model, nodes["b"].input[0])
    np.testing.assert_array_equal(found["b"].channels, [np.abs(seen).max()])
    assert len(found["c"].channels) == WIDE


def test_rare_outliers_are_cut_off(tmp_path, monkeypatch):
    model = uneven_graph(tmp_path / "g.onnx")
    usual = reach.reaches(model, [{"x": picture()}])["b"].channels
    monkeypatch.setattr(reach, "KEPT", 0.9)
    found = reach.reaches(model, [{"x": picture()}] * 11 + [{"x": 100.0 * picture()}])["b"].channels
    assert (found <= usual).all()
    assert (found > 0.5 * usual).all()


def test_light_convolutions_and_outputs_are_left_alone(tmp_path, monkeypatch):
    model = uneven_graph(tmp_path / "g.onnx")
    work = {"a": WIDE * 27, "b": WIDE * WIDE, "c": WIDE * WIDE}
    monkeypatch.setattr(reach, "HEAVY", 0.5)
    assert [node.output[0] for node in reach.heavy(model)] == [n for n in work if work[n] >= 0.5 * sum(work.values())]
    monkeypatch.setattr(reach, "HEAVY", 0.0)
    model.graph.output.append(onnx.helper.make_tensor_value_info("c", onnx.TensorProto.FLOAT, ["B", WIDE, 16, 16]))
    assert [node.output[0] for node in reach.heavy(model)] == ["a", "b"]


@pytest.mark.parametrize("frames", [1, 3])
def test_a_bundle_is_measured_while_its_loop_runs(tmp_path, frames):
    bundle = open_bundle(build(tmp_path / "b"))
    crop = np.random.default_rng(0).uniform(-1, 1, (1, 3, 256, 256)).astype(np.float32)
    found = reach.measure(bundle, [[crop] * frames])
    assert {"generator.onnx", "recurrent.onnx"} <= set(found)
    assert all(reaches for reaches in found.values())


def test_what_runs_seldom_stays_in_float(tmp_path, monkeypatch):
    bundle = open_bundle(build(tmp_path / "tiny", refined=True))
    files = {graph: spec.file for graph, spec in bundle.manifest.graphs.items()}
    monkeypatch.setattr(reach, "recorded_inputs", lambda bundle, films: dict.fromkeys(files.values(), ()))
    monkeypatch.setattr(reach, "reaches", lambda model, feeds: {"a": reach.Reach(np.ones(1, np.float32), False)})
    assert reach.measure(bundle, []).keys() == set(files.values()) - {files["refiner"]}

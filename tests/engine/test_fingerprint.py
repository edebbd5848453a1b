"""The fingerprint reads back as written and says why engines do not fit."""

import json
from dataclasses import replace

import pytest

from engine.errors import BundleError
from engine.fingerprint import FILE, EngineRecord, Fingerprint, Port, read_fingerprint, unfit, write_fingerprint

RECORD = EngineRecord(
    "ab", 9, {"crop": Port("FLOAT", (-1, 3, 8, 8))}, {"ws": Port("FLOAT", (-1, 2))}, (1, 2, 8), 5, "cd"
)
PRINT = Fingerprint("tensorrt_rtx", "1.7", ("7.5", "8.9", "12.0"), "fp16", "ef", {"g.engine": RECORD})


def test_it_reads_back_equal(tmp_path):
    write_fingerprint(tmp_path, PRINT)
    assert read_fingerprint(tmp_path) == PRINT
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize(
    ("version", "target", "reason"),
    [
        ("1.7", "7.5", None),
        ("1.7", "8.6", None),
        ("1.7", "12.0", None),
        ("1.7", "10.0", None),
        ("1.7", "7.0", "built for compute capability 7.5, 8.9, 12.0, but this card has 7.0"),
        ("1.8", "8.9", "built by tensorrt_rtx 1.7, but 1.8 is installed"),
    ],
)
def test_why_engines_do_not_fit(version, target, reason):
    found = unfit(PRINT, version, target)
    assert found == reason if reason is None else reason in found


def test_engines_that_were_built_on_a_card_fit_that_kind_only():
    on_card = replace(PRINT, targets=("8.9",), gpu="NVIDIA X, driver 13000")
    assert unfit(on_card, "1.7", "8.9") is None
    assert "but this card has 12.0" in unfit(on_card, "1.7", "12.0")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "other"}, "not a fingerprint"),
        ({"format_version": 2}, "not a fingerprint"),
        ({"targets": []}, "no targets"),
        ({"targets": ["new"]}, "wrong kind"),
        ({"engines": {"g.engine": {}}}, "lacks a field"),
        ({"engines": None}, "wrong kind"),
    ],
)
def test_a_damaged_one_is_refused(tmp_path, change, reason):
    path = write_fingerprint(tmp_path, PRINT)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(BundleError, match=reason):
        read_fingerprint(tmp_path)


def test_a_folder_without_one_names_the_command(tmp_path):
    with pytest.raises(BundleError, match="rigid-live export BUNDLE --to tensorrt"):
        read_fingerprint(tmp_path)
    (tmp_path / FILE).write_text("{")
    with pytest.raises(BundleError, match="not JSON"):
        read_fingerprint(tmp_path)

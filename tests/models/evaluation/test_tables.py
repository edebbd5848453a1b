"""The tables: the paper's layout, what the two ablations are called, what stands beside the numbers."""

from collections.abc import Sequence

from engine.recurrence import VARIANTS
from models.evaluation.report import Table
from models.evaluation.tables import all_tables
from tests.models.evaluation.made_up import candidates, clip_results, report_of

PAPER = ["method", "MSE x100", "ST-LPIPS", "WE", "FVD", "TL-ID", "TG-ID", "FVD, editing"]


def tables_of(
    clips: int = 5,
    *,
    variants: Sequence[str] = ("full", "per_frame", "no_nm", "no_tcc", "no_lfd"),
    distance: str = "st_lpips",
    retrained: tuple[str, ...] = (),
    **how: int,
) -> list[Table]:
    return all_tables(report_of(clip_results(clips, candidates(variants, retrained), distance, **how)))


def test_switched_off_in_the_papers_layout() -> None:
    switched, retrained, *_ = tables_of()
    assert switched.title == "Ablation: switched off (bundle default)"
    assert switched.columns == PAPER
    assert [row["method"] for row in switched.rows] == ["w/o TCC", "w/o NM", "w/o LFD", "frame by frame", "full"]
    full = switched.rows[-1]
    assert (full["MSE x100"], full["ST-LPIPS"], full["WE"], full["TL-ID"]) == (3.0, 0.03, 6.0, 0.99)
    assert sum(span for _, span in switched.groups) == len(PAPER)
    assert retrained.title == "Ablation: retrained without"
    assert not retrained.rows
    assert "--retrained" in retrained.note


def test_every_variant_has_its_row() -> None:
    switched, *_ = tables_of(variants=tuple(VARIANTS))
    assert len({row["method"] for row in switched.rows}) == len(VARIANTS)


def test_what_the_numbers_are_is_said() -> None:
    note = tables_of()[0].note
    for words in ("5 clips", "[-1, 1]", "ST-LPIPS with its AlexNet trunk, not the LPIPS", "0-255 squared", "0.75"):
        assert words in note
    assert "N = 30 windows" in note
    assert "N = 15: " in note


def test_official_lpips_has_its_own_column() -> None:
    switched = tables_of(distance="lpips")[0]
    assert switched.columns == [name.replace("ST-LPIPS", "LPIPS") for name in PAPER]
    assert "LPIPS v0.1, AlexNet" in switched.note


def test_retrained_bundles_stand_beside_the_full_method() -> None:
    retrained = tables_of(retrained=("no_tc", "no_nm"))[1]
    methods = [row["method"] for row in retrained.rows]
    assert methods == ["w/o NM (out/no_nm)", "w/o L_tc (out/no_tc)", "full"]
    assert "equal minutes" in retrained.note
    retrained = tables_of(retrained=("no_nm", "full"))[1]
    assert [row["method"] for row in retrained.rows] == ["w/o NM (out/no_nm)", "full (out/full)"]


def test_paired_differences_are_printed_with_their_interval() -> None:
    paired = next(table for table in tables_of() if table.title == "Paired differences")
    assert [(row["metric"], row["a"], row["b"]) for row in paired.rows] == [
        ("WE", "full", "per_frame"),
        ("WE, shown", "full", "per_frame"),
        ("MSE x100", "full", "per_frame"),
        ("MSE x100", "full", "no_nm"),
    ]
    assert paired.rows[0]["interval"] == "[-20, -20]"
    assert paired.rows[0]["clips where a is better"] == "5 of 5"
    assert paired.rows[0]["verdict"] == "a beats b"
    assert "10,000" in paired.note
    alone = next(table for table in tables_of(clips=1) if table.title == "Paired differences")
    assert not alone.rows
    assert "two clips" in alone.note


def test_short_clips_say_so() -> None:
    switched = tables_of(windows=2)[0]
    assert {row["FVD"] for row in switched.rows} == {"-"}
    assert "no clip is long enough" in switched.note


def test_stills_alone_have_no_empty_tables() -> None:
    report = report_of([]) | {"faces": [{"bundle": "default", "stills": 2}], "skipped": {"a.mp4": "no face"}}
    assert [table.title for table in all_tables(report)] == ["Still faces", "Skipped"]

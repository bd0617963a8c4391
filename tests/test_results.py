"""Pages of results are written from a finished study's tables, and the list of pages from the pages."""

from types import SimpleNamespace

import pandas as pd
import pytest
from conftest import naming, scores

from wmhlib.evaluation import scoring
from wmhlib.report import answer, results


def test_tables_are_of_trained_losses_in_one_split():
    summary = pd.DataFrame({"split": ["external", "external", "holdout"], "loss": ["dice", "global_threshold", "dice"]})
    for metric in ("dice", "hd95_mm", "avd_pct", "lesion_recall", "lesion_f1"):
        for part, value in (("mean", 0.5), ("low", 0.25), ("high", 0.75)):
            summary[f"{metric}_{part}"] = value
    pair = {"split": "external", "loss": "dice", "difference": -0.2, "low": -0.3, "high": -0.1, "p_holm": 0.01}
    pairs = pd.DataFrame([pair | {"metric": "avd_pct"}, pair | {"metric": "dice", "split": "holdout"}])
    table = results.metrics({"summary": summary, "comparisons": pairs}, "external")
    assert list(table.iloc[:, 0]) == ["Dice"] and table["Dice"].iloc[0] == "0.50 [0.25, 0.75]"
    assert table["AVD (%)"].iloc[0].endswith("] better")


def test_detection_at_equal_false_positives_is_in_per_cent():
    rows = [("external", kind, "dice", 0.25, 0.2, 0.3) for kind in ("all", "small")]
    scores = pd.DataFrame(rows, columns=["split", "lesions", "loss", "score", "low", "high"])
    table = results.at_equal_rates(scores, "external")
    assert table.to_numpy().tolist() == [["Dice", "25 [20, 30]", "25 [20, 30]"]]


def test_centres_and_sizes_are_columns():
    rows = [("external", "dice", "A", 0.5), ("external", "dice", "B", 0.7), ("holdout", "dice", "A", 0.1)]
    table = results.by_centre(pd.DataFrame(rows, columns=["split", "loss", "centre", "dice_mean"]), "external")
    assert table.values.tolist() == [["Dice", "0.50", "0.70", "0.60"]]
    rows = [("external", "dice", "100 mm³ or more", 100.0, 4, 1.0), ("external", "dice", "below 100 mm³", 0.0, 8, 0.25)]
    table = results.by_size(
        pd.DataFrame(rows, columns=["split", "loss", "size", "from_mm3", "lesions", "detected"]), "external"
    )
    assert list(table.columns) == ["loss", "below 100 mm³ (8)", "100 mm³ or more (4)"]
    assert table.values.tolist() == [["Dice", 25, 100]]


def test_the_list_has_the_question_and_answer_of_every_page(tmp_path):
    for name in ("demo", "real"):
        (tmp_path / f"{name}.md").write_text(
            f"# {name}\n\nWhich one?\n\n**{name} is the one.**\n\nMore.", encoding="utf-8"
        )
    text = results.index(tmp_path)
    assert text.index("results/demo.md") < text.index("**demo is the one.**") < text.index("results/real.md")


def test_studies_that_leave_out_a_centre_each_are_one_table(monkeypatch):
    kinds = {"dice": "dice", "siamese": "siamese"}
    studies = [
        SimpleNamespace(name=name, kinds=kinds, config=SimpleNamespace(seeds=[1]), part=part, raw={}, recipes={})
        for name, part in (("a", scores(dice=[0.2, 0.4], siamese=[0.3, 0.5])), ("b", scores(dice=[0.9], siamese=[0.6])))
    ]
    studies[1].part = studies[1].part.assign(subject="other", centre="D")
    monkeypatch.setattr(scoring, "SCORED", ("per_subject",))
    monkeypatch.setattr(scoring, "SUMMARIES", {name: scoring.SUMMARIES[name] for name in ("summary", "centres")})
    monkeypatch.setattr(scoring, "load_tables", lambda study: {"per_subject": study.part})
    tables = results.joined(studies)
    assert tables["summary"].set_index("loss").dice_mean["dice"] == pytest.approx(0.5)
    assert results.by_centre(tables["centres"], "external").set_index("loss")["mean of the centres"].to_dict() == {
        "Dice": "0.60",
        "Siamese": "0.50",
    }
    with pytest.raises(ValueError, match=naming("same unseen scan", "a, a")):
        results.joined([studies[0], studies[0]])
    studies[1].raw = {"study": "b", "data": {}, "seeds": [1], "preprocessing": {"size_px": 96}}
    with pytest.raises(ValueError, match=naming("b", "training settings")):
        results.joined(studies)
    studies[1].raw, whole = {"study": "b"}, studies[1].part
    studies[1].part = whole[whole.loss == "dice"]
    with pytest.raises(ValueError, match=naming("b", "under every loss")):
        results.joined(studies)
    studies[1].kinds = {"dice": "dice"}
    with pytest.raises(ValueError, match=naming("b", "other losses")):
        results.joined(studies)


def test_a_variant_has_its_difference_and_what_is_significant():
    row = {"split": "external", "loss": "wider", "against": "dice", "low": -0.1, "high": 0.3, "p_holm": 0.4}
    table = pd.DataFrame(
        [row | {"metric": "dice", "difference": 0.1}]
        + [row | {"metric": "avd_pct", "difference": -12.0, "low": -20.0, "high": -5.0, "p_holm": 0.01}]
    )
    [sentence] = answer.variants({"summary": table, "ablations": table})
    assert "Dice +0.10 [-0.10, +0.30]" in sentence and "AVD (%) -12.0 [-20.0, -5.0]" in sentence
    assert "significant: nothing" in answer.variants({"summary": table, "ablations": table[:1]})[0]

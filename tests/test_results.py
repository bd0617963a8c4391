"""Pages of results are written from a finished study's tables, and the list of pages from the pages."""

import pandas as pd

from wmhlib.report import results


def test_tables_are_of_trained_losses_in_one_split():
    summary = pd.DataFrame({"split": ["external", "external", "holdout"], "loss": ["dice", "global_threshold", "dice"]})
    for metric in ("dice", "hd95_mm", "avd_pct", "lesion_recall", "lesion_f1"):
        for part, value in (("mean", 0.5), ("low", 0.25), ("high", 0.75)):
            summary[f"{metric}_{part}"] = value
    table = results.metrics(summary, "external")
    assert list(table.iloc[:, 0]) == ["Dice"] and table["Dice"].iloc[0] == "0.50 [0.25, 0.75]"


def test_centres_and_sizes_are_columns():
    rows = [("external", "dice", "A", 0.5), ("external", "dice", "B", 0.7), ("holdout", "dice", "A", 0.1)]
    table = results.by_centre(pd.DataFrame(rows, columns=["split", "loss", "centre", "dice_mean"]), "external")
    assert table.values.tolist() == [["Dice", 0.5, 0.7, 0.6]]
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

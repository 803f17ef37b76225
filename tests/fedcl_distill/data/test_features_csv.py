"""Tables: small ones written here, and the heart disease data where this computer has them."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch

from fedcl_distill import Budget, build_method
from fedcl_distill.data import Splits, load, load_csv
from fedcl_distill.errors import DataError, SettingsError


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def joined(splits: Splits) -> list[tuple[float, ...]]:
    return [tuple(row) for part in (splits.train, splits.test) for row in part.samples.tolist()]


TEN_ROWS = "age,town,dose,ill\n" + "".join(f"{20 + i},{'NS'[i % 2]},{i / 4},{i % 2}\n" for i in range(10))


def test_every_row_arrives_once_with_its_label_and_group(tmp_path: Path) -> None:
    splits = load_csv(write(tmp_path / "t.csv", TEN_ROWS), label="ill", group="town")
    assert (len(splits.train), len(splits.test)) == (8, 2)
    assert sorted(joined(splits)) == [(20 + i, i / 4) for i in range(10)]
    for part in (splits.train, splits.test):
        assert part.labels.tolist() == [int(age) % 2 for age in part.samples[:, 0].tolist()]
        assert part.groups is not None
        assert [part.group_names[g] for g in part.groups.tolist()] == ["NS"[y] for y in part.labels.tolist()]
    assert splits.train.class_names == ("0", "1")
    assert splits.train.name == "t"


def test_columns_by_name_and_position(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", TEN_ROWS)
    by_name = load_csv(file, label="ill", features=["dose"])
    by_position = load_csv(file, label=-1, features=[2])
    assert torch.equal(by_name.train.samples, by_position.train.samples)
    body = write(tmp_path / "body.csv", TEN_ROWS.partition("\n")[2].replace(",", ";"))
    headless = load_csv(body, label=3, features=[2], header=False, delimiter=";")
    assert torch.equal(by_name.train.samples, headless.train.samples)


def test_normalisation_and_medians_come_from_training_rows_only(tmp_path: Path) -> None:
    rows = [(float(i * i), "?" if i in (2, 5, 6, 11) else str(i), i % 2) for i in range(20)]
    text = "a,b,y\n" + "".join(f"{a},{b},{y}\n" for a, b, y in rows)
    splits = load_csv(write(tmp_path / "t.csv", text), label="y", seed=3, test_fraction=0.4)
    known = {a: None if b == "?" else float(b) for a, b, _ in rows}
    trained = [known[a] for a, _ in splits.train.samples.tolist()]
    expected = median([b for b in trained if b is not None])
    for a, b in joined(splits):
        assert b == (expected if known[a] is None else known[a])
    assert splits.train.inputs().mean(0).tolist() == pytest.approx([0, 0], abs=1e-5)
    assert splits.train.inputs().std(0, correction=0).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert splits.test.normalisation is splits.train.normalisation


def test_a_feature_missing_throughout_training_is_constant_everywhere(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", TEN_ROWS)
    held_out = load_csv(file, label="ill", features=["age"], seed=0).test.samples.flatten().tolist()
    # The same split again, with doses known for the held-out rows alone.
    text = "age,dose,ill\n" + "".join(f"{20 + i},{250 if 20 + i in held_out else ''},{i % 2}\n" for i in range(10))
    splits = load_csv(write(tmp_path / "u.csv", text), label="ill", seed=0)
    assert {row[1] for row in joined(splits)} == {0.0}
    assert splits.test.inputs()[:, 1].tolist() == [0.0, 0.0]


def test_label_rules(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "x,grade\n" + "".join(f"{i},{i % 5}\n" for i in range(20)))
    by_value = load_csv(file, label="grade")
    assert by_value.train.class_names == ("0", "1", "2", "3", "4")
    rule = load_csv(file, label="grade", label_rule=lambda text: "low" if int(text) < 3 else "high")
    assert rule.train.class_names == ("high", "low")
    ordered = load_csv(
        file,
        label="grade",
        label_rule={"0": "low", "1": "low", "2": "low", "3": "high", "4": "high"},
        class_names=("low", "high", "never"),
    )
    assert (ordered.train.class_counts + ordered.test.class_counts).tolist() == [12, 8, 0]
    with pytest.raises(DataError, match=r"line 4.*'2'"):
        load_csv(file, label="grade", label_rule={"0": "low", "1": "low"})
    with pytest.raises(DataError, match="'4' is not one of"):
        load_csv(file, label="grade", class_names=("0", "1", "2", "3"))


def test_numeric_class_names_sort_by_value(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "x,y\n" + "".join(f"{i},{(2, 10, 1)[i % 3]}\n" for i in range(9)))
    assert load_csv(file, label="y").train.class_names == ("1", "2", "10")


def test_byte_order_mark_spaces_quotes_and_blank_lines(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", '\ufeff"x" , y\n\n 1 ,a\n"2",a\n\n3, b\n4,b\n')
    splits = load_csv(file, label="y", test_fraction=0.5)
    assert sorted(joined(splits)) == [(1.0,), (2.0,), (3.0,), (4.0,)]
    assert splits.train.class_names == ("a", "b")


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, "holds no rows"),
        ("x,y\n", {}, "holds no rows"),
        ("x,y\n1,0\n2\n", {}, "line 3: has 1 cells, expected 2"),
        ("x,y\n1,0\nnan,1\n", {"missing": ("?",)}, "line 3, column 1: 'nan' is no finite"),
        ("x,y\n1,0\n1_000,1\n", {}, "'1_000' is no finite"),
        ("x,y\n2024-01-05,0\n2024-02-06,1\n", {}, "line 2, column 1: '2024-01-05' is a date"),
        ('x,y\n"17,99",0\n"3,5",1\n', {}, "'17,99' looks like a number with a decimal comma: .* decimal=','"),
        ("x,y\n1.5,0\n2.5,1\n", {"decimal": ","}, "'1.5' is no finite|'1.5' looks like"),
        ("x,y\n1,0\n2,1\n", {"features": ["y"]}, "'y' is the label"),
        ("x,y\n" + "".join(f"name {i},{i % 2}\n" for i in range(60)), {}, "60 different texts, such as 'name 0'"),
        ("x,y\n1,0\n-inf,1\n", {}, "'-inf' is no finite"),
        ("x,y\n1,0\nred,1\n", {}, "'red' is no finite"),
        ("x,y\n1e60,0\n2,1\n", {}, "'1e60' is no finite float32 number"),
        ("x,y\n1,0\n2,?\n", {}, r"line 3: the label is missing \('\?'\)"),
        ("x,z\n1,0\n", {}, "0 columns named 'y'"),
        ("y,y\n1,0\n", {}, "2 columns named 'y'"),
        ("x,y\n1,0\n", {"label": 2}, "has 2 columns, none at position 2"),
        ("y\n1\n", {}, "no feature columns"),
        ("x,y\n1,0\n", {"group": "town"}, "columns named 'town'"),
    ],
)
def test_unfit_tables_are_data_errors(tmp_path: Path, text: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_csv(write(tmp_path / "t.csv", text), **({"label": "y"} | options))


EVERYTHING = """age;dose;member;colour;code;ill
20;1,5;true;red;1;yes
NA;2,5;False;null;2;no
40;?;true;blue;1;yes
50;1.000,5;;red;2;no
"""


def test_a_table_of_everything(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", EVERYTHING)
    splits = load_csv(file, label="ill", categories=["code"], test_fraction=0.01)
    names = ("age", "dose", "member", "colour=blue", "colour=red", "colour=(missing)", "code=1", "code=2")
    assert splits.train.spec.feature_names == names
    assert splits.train.samples.tolist() == [
        [20, 1.5, 1, 0, 1, 0, 1, 0],
        [40, 2.5, 0, 0, 0, 1, 0, 1],
        [40, 2.5, 1, 1, 0, 0, 1, 0],
        [50, 1000.5, 1, 0, 1, 0, 0, 1],
    ]
    assert splits.train.spec.feature_ranges[:3] == ((20, 50), (1.5, 1000.5), (0, 1))
    notes = "\n".join(splits.notes)
    assert "decimal commas" in notes
    assert "colour (3), code (2)" in notes
    assert "age: 1 as 40, dose: 1 as 2.5, member: 1 as 1" in notes


def test_the_same_table_as_parquet_and_by_name(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(
        {
            "age": [20.0, None, 40, 50] * 3,
            "member": [True, False, True, False] * 3,
            "colour": ["red", None, "blue", "red"] * 3,
            "ill": ["yes", "no"] * 6,
        }
    )
    frame.to_parquet(tmp_path / "t.parquet")
    frame.to_csv(tmp_path / "t.csv", index=False)
    frame.to_csv(tmp_path / "t.tsv", index=False, sep="\t")
    expected = load(tmp_path / "t.csv", label_column="ill")
    for kind in ("parquet", "tsv"):
        found = load(tmp_path / f"t.{kind}", label_column="ill")
        assert (found.train, found.test) == (expected.train, expected.test)
    one = load(tmp_path / "t.parquet", label_column="ill", feature_columns=["age"]).train
    assert one.spec.feature_names == ("age",)
    with pytest.raises(DataError, match=r"ends in '\.xlsx' is not read; known are \.npz, \.csv"):
        load(write(tmp_path / "t.xlsx", "no"), label_column="ill")


def test_tiny_features_keep_their_spread_and_constant_ones_none(tmp_path: Path) -> None:
    rows = "".join(f"{(i + 1) * 1e-9},{3.3},{1e6 + i},{i % 2}\n" for i in range(10))
    data = load_csv(write(tmp_path / "t.csv", "a,b,c,y\n" + rows), label="y").train
    spread = data.inputs().std(dim=0, correction=0)
    assert spread.tolist() == pytest.approx([1, 0, 1], abs=1e-3)


def test_a_method_that_clamps_keeps_every_feature_in_its_own_range(tmp_path: Path) -> None:
    rows = "".join(f"{i / 10},{1000 + i},{i % 2}\n" for i in range(20))
    data = load_csv(write(tmp_path / "t.csv", "a,b,y\n" + rows), label="y").train
    method = build_method("dm", clamp=True, learning_rate=1000.0, architecture="mlp:width=8")
    synthetic = method.distil(data, 2, seed=0, budget=Budget(steps=5))
    (low_a, high_a), (low_b, high_b) = data.spec.feature_ranges
    samples = synthetic.samples()
    assert samples[:, 0].min() >= low_a - 1e-4
    assert samples[:, 0].max() <= high_a + 1e-4
    assert samples[:, 1].min() >= low_b - 0.1
    assert samples[:, 1].max() <= high_b + 0.1


def test_nan_may_be_declared_missing(tmp_path: Path) -> None:
    file = write(tmp_path / "t.csv", "x,y\nnan,0\n3,0\n3,1\nnan,1\n")
    assert {row[0] for row in joined(load_csv(file, label="y", missing="nan", test_fraction=0.1))} == {3.0}


def test_unreadable_files_and_settings(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.csv"):
        load_csv(tmp_path / "absent.csv", label="y")
    (tmp_path / "bytes.csv").write_bytes(b"x,y\n\xff\xfe,1\n")
    with pytest.raises(DataError, match="cannot be read as a CSV file"):
        load_csv(tmp_path / "bytes.csv", label="y")
    file = write(tmp_path / "t.csv", TEN_ROWS)
    with pytest.raises(SettingsError, match="test_fraction"):
        load_csv(file, label="ill", features=["age"], test_fraction=1.5)
    with pytest.raises(SettingsError, match="give its position"):
        load_csv(file, label="ill", header=False)
    with pytest.raises(SettingsError, match="delimiter"):
        load_csv(file, label="ill", delimiter="; ")


# --- heart disease -----------------------------------------------------------------------------------------

HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")


def write_heart(root: Path, *, features: int = 13) -> None:
    for hospital in HOSPITALS:
        rows = [[str(10 * i + j) for j in range(features)] + [str(i % 3)] for i in range(15)]
        rows[1][features - 1] = "?"
        write(root / "heart" / f"processed.{hospital}.data", "\n".join(",".join(row) for row in rows) + "\n")


def test_heart_reads_four_hospitals(tmp_path: Path) -> None:
    write_heart(tmp_path)
    splits = load("heart", root=tmp_path)
    assert splits.train.group_names == HOSPITALS
    assert splits.train.class_names == ("healthy", "disease")
    assert len(splits.train) + len(splits.test) == 60
    assert (splits.train.class_counts + splits.test.class_counts).tolist() == [20, 40]
    assert splits.train.groups is not None
    assert splits.test.groups is not None
    assert splits.train.groups.bincount().tolist() == [12] * 4
    for hospital in range(4):
        assert splits.test.labels[splits.test.groups == hospital].bincount().tolist() == [1, 2]


def test_heart_says_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"heart: not found.*archive\.ics\.uci\.edu"):
        load("heart", root=tmp_path)
    write_heart(tmp_path, features=12)
    with pytest.raises(DataError, match="has 12 features, expected 13"):
        load("heart", root=tmp_path)


def test_real_heart_disease_has_the_published_counts(real_root: Path) -> None:
    if not (real_root / "heart").is_dir():
        pytest.skip("heart disease is not on this computer")
    splits = load("heart", root=real_root)
    assert splits.train.groups is not None
    assert splits.test.groups is not None
    # heart-disease.names: 303, 294, 123 and 200 patients; 509 of the 920 have the disease.
    assert (splits.train.groups.bincount() + splits.test.groups.bincount()).tolist() == [303, 294, 123, 200]
    assert (splits.train.class_counts + splits.test.class_counts).tolist() == [411, 509]
    assert splits.train.sample_shape == (13,)

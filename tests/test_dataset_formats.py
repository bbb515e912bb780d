"""Lists of images: CSV, JSON lines, Ground Truth and Lookout for Vision manifests; and how a format is found."""

import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from pictures import write_picture, write_set
from PIL import Image

from inspection.dataset.images import MISSING, SourceImage
from inspection.dataset.options import Columns, SourceOptions, parse_maps
from inspection.dataset.sources import open_source
from inspection.errors import DataError

S3 = "s3://plant/images"


def listed(location: Path, **options: object) -> dict[str, SourceImage]:
    images = open_source(str(location), SourceOptions(**options)).images()  # type: ignore[arg-type]
    return {image.uri: image for image in images}


def write_list(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Four pictures in `images/`."""
    for index in range(4):
        write_picture(tmp_path / "images" / f"{index}.png", index)
    return tmp_path


ROWS = "path,label\nimages/0.png,good\nimages/1.png,OK\nimages/2.png,bad\nimages/3.png,NOK\n"


# --- CSV and JSON lines


def test_a_csv_gives_path_and_label(pictures: Path) -> None:
    images = listed(write_list(pictures / "list.csv", ROWS))
    assert [image.label for image in images.values()] == ["good", "good", "bad", "bad"]
    assert images["images/0.png"].group == "images/0.png"
    assert images["images/0.png"].version not in ("", MISSING)


def test_every_column_is_read_under_the_name_that_settings_give(pictures: Path) -> None:
    write_picture(pictures / "masks" / "1.png", 9)
    text = (
        "Bild;Urteil;Fehler;Maske;Teil;Los;Platz;Blick;Teilung\n"
        "images/0.png;i.O.;;;p1;L1;st1;oben;train\n"
        "images/1.png;n.i.O.;Kratzer;masks/1.png;p2;L2;st2;unten;test\n"
    )
    names = ("Bild", "Urteil", "Fehler", "Maske", "Teil", "Los", "Platz", "Blick", "Teilung")
    images = listed(
        write_list(pictures / "liste.csv", text),
        columns=Columns(*names),
        good_labels=("i.O.",),
        bad_labels=("n.i.O.", "bad"),
    )
    good, bad = images.values()
    assert (good.group, good.lot, good.station, good.view, good.shipped) == ("p1", "L1", "st1", "oben", "train")
    assert (bad.label, bad.defect_type, bad.mask, bad.shipped) == ("bad", "Kratzer", "masks/1.png", "validation")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_delimiters_and_byte_order_marks_are_understood(pictures: Path, delimiter: str, encoding: str) -> None:
    path = write_list(pictures / "list.csv", ROWS.replace(",", delimiter).replace("\n", "\r\n"), encoding)
    assert len(listed(path)) == 4


def test_another_encoding_is_refused_with_its_line(pictures: Path) -> None:
    path = write_list(pictures / "list.csv", ROWS + "images/größe.png,good\n", "latin-1")
    with pytest.raises(DataError, match=r"list\.csv: line 6: want UTF-8, found the byte 0xf6; save the list as UTF-8"):
        listed(path)


@pytest.mark.parametrize("header", ["path:label", "file,verdict", "", "images/0.png,good"])
def test_a_header_without_the_columns_is_refused(pictures: Path, header: str) -> None:
    with pytest.raises(DataError, match=r"want a header line with the columns 'path' and 'label'.*\[data\.columns\]"):
        listed(write_list(pictures / "list.csv", f"{header}\nimages/0.png,good\n"))


def test_a_column_that_settings_name_and_nobody_wrote_is_refused(pictures: Path) -> None:
    with pytest.raises(DataError, match=r"no column 'lot_number', which \[data\.columns\] names; found label, path"):
        listed(write_list(pictures / "list.csv", ROWS), columns=Columns(lot="lot_number"))


def test_a_column_that_is_there_twice_is_refused(pictures: Path) -> None:
    with pytest.raises(DataError, match=r"the header names label twice"):
        listed(write_list(pictures / "list.csv", "path,label,Label\nimages/0.png,good,bad\n"))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("images/1.png,gooood", r"line 3: unknown label 'gooood'; want one of good, ok.*\[data\] good_labels"),
        ("images/1.png,", "line 3: want a value for 'label', found none"),
        (",good", "line 3: want a value for 'path', found none"),
        ("images/1.png,good,extra", "line 3: want 2 values as in the header, found 3; put values that hold ','"),
        ("images/0.png,good", r"lines 2 and 3 name the same image, 'images/0\.png'"),
        ("../../secret.png,good", r"line 3: '\.\./\.\./secret\.png' climbs out of "),
        ("images/../../secret.png,good", "line 3: .* climbs out of "),
        ("/etc/passwd.png,good", r"line 3: '/etc/passwd\.png' is an absolute path.*--map /etc=\./images"),
        (r"C:\images\1.png,good", r"line 3: .* is an absolute path.*--map C:/images=\./images"),
        ("https://host/1.png,good", r"line 3: .* is an absolute path"),
        ('"images/1.png,good', "line 3: .*not valid CSV"),
    ],
)
def test_a_bad_line_is_named(pictures: Path, line: str, why: str) -> None:
    with pytest.raises(DataError, match=why):
        listed(write_list(pictures / "list.csv", f"path,label\nimages/0.png,good\n{line}\n"))


def test_an_unknown_split_is_named(pictures: Path) -> None:
    with pytest.raises(DataError, match=r"line 2: unknown split 'late'; want train, validation or test"):
        listed(write_list(pictures / "list.csv", "path,label,split\nimages/0.png,good,late\n"))


def test_every_label_that_is_not_good_may_name_a_type(pictures: Path) -> None:
    text = "path,label\nimages/0.png,good\nimages/1.png,scratch\nimages/2.png,bad\n"
    images = listed(write_list(pictures / "list.csv", text), bad_labels=("bad", "*"))
    assert [(image.label, image.defect_type) for image in images.values()] == [
        ("good", None),
        ("bad", "scratch"),
        ("bad", None),
    ]


def test_names_with_spaces_accents_and_line_ends_are_read(pictures: Path) -> None:
    names = ["a b.png", "größe.png", "zwei\nzeilen.png", "semi;colon, comma.png", 'quo"te.png']
    for index, name in enumerate(names):
        write_picture(pictures / "images" / name, 20 + index)
    cells = ['"images/{}",good'.format(name.replace('"', '""')) for name in names]
    source = open_source(str(write_list(pictures / "list.csv", "\n".join(["path,label", *cells, ""]))))
    assert [image.uri for image in source.images()] == [f"images/{name}" for name in names]
    assert source.read("images/zwei\nzeilen.png") == (pictures / "images" / "zwei\nzeilen.png").read_bytes()
    assert all(image.version != MISSING for image in source.images())


def test_a_line_after_a_name_with_a_line_end_is_counted_right(pictures: Path) -> None:
    with pytest.raises(DataError, match=r"line 4: unknown label 'x'"):
        listed(write_list(pictures / "list.csv", 'path,label\n"a\nb.png",good\nimages/0.png,x\n'))


def test_a_list_may_lie_in_a_folder_beside_the_images(pictures: Path) -> None:
    (pictures / "lists").mkdir()
    source = open_source(str(write_list(pictures / "lists" / "list.csv", ROWS)))
    assert [image.version == MISSING for image in source.images()] == [False] * 4
    assert source.read("images/0.png") == (pictures / "images" / "0.png").read_bytes()


def test_absolute_paths_into_the_lists_folder_become_relative(pictures: Path) -> None:
    text = f"path,label\n{pictures}/images/0.png,good\nfile://{pictures}/images/1.png,bad\n"
    assert list(listed(write_list(pictures / "list.csv", text))) == ["images/0.png", "images/1.png"]


def test_windows_paths_are_understood(pictures: Path) -> None:
    text = "path,label\nimages\\0.png,good\nD:\\line\\images\\1.png,bad\n"
    source = open_source(
        str(write_list(pictures / "list.csv", text)), SourceOptions(maps=((r"D:\line", str(pictures)),))
    )
    assert [image.uri for image in source.images()] == ["images/0.png", "D:/line/images/1.png"]
    assert source.read("D:/line/images/1.png") == (pictures / "images" / "1.png").read_bytes()


def test_a_listed_image_that_is_missing_is_told_and_cannot_be_read(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = open_source(str(write_list(pictures / "list.csv", ROWS + "images/lost.png,bad\n")))
    missing = [image.uri for image in source.images() if image.version == MISSING]
    assert missing == ["images/lost.png"]
    assert "listed_images_missing count=1 files=images/lost.png" in caplog.text
    with pytest.raises(FileNotFoundError):
        source.read("images/lost.png")


def test_a_list_none_of_whose_images_is_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 4 images that it names is there.*looked for in .*--map"):
        listed(write_list(tmp_path / "list.csv", ROWS))


def test_json_lines_give_the_same_as_a_csv(pictures: Path) -> None:
    rows = [
        {"path": "images/0.png", "label": "good", "group": 7, "lot": None},
        {"path": "images/1.png", "label": 1, "defect_type": "dent", "split": "train"},
        {"path": "images/2.png", "label": False},
    ]
    images = listed(write_list(pictures / "list.jsonl", "\n".join(json.dumps(row) for row in rows)))
    assert [(image.label, image.defect_type) for image in images.values()] == [
        ("good", None),
        ("bad", "dent"),
        ("good", None),
    ]
    assert images["images/0.png"].group == "7"


def test_json_lines_may_hold_boxes_and_who_drew_them(pictures: Path) -> None:
    row = {"path": "images/0.png", "label": "bad", "boxes": [[1, 2, 3, 4.5]], "box_types": ["dent"]}
    path = write_list(pictures / "a.jsonl", json.dumps({**row, "confidence": 0.5, "human_annotated": False}))
    (image,) = listed(path).values()
    assert (image.boxes, image.box_types) == (((1.0, 2.0, 3.0, 4.5),), ("dent",))
    assert (image.confidence, image.human_annotated) == (0.5, False)
    for change in ({"boxes": [[1, 2]]}, {"box_types": ["dent", "stain"]}, {"confidence": "high"}):
        with pytest.raises(DataError, match=r"line 1: want boxes as .*, found"):
            listed(write_list(pictures / "a.jsonl", json.dumps({**row, **change})))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{'path': 1}", r"list\.jsonl: line 3: want one JSON object per line, found \"\{'path': 1\}\""),
        ("[1, 2]", "line 3: want a JSON object"),
        ('{"path": "images/1.png"}', "line 3: want a value for 'label'"),
        ('{"label": "good"}', "line 3: want a value for 'path'"),
    ],
)
def test_a_bad_json_line_is_named(pictures: Path, line: str, why: str) -> None:
    text = f'{{"path": "images/0.png", "label": "good"}}\n\n{line}\n'
    with pytest.raises(DataError, match=why):
        listed(write_list(pictures / "list.jsonl", text))


# --- Ground Truth and Lookout for Vision


def classified(name: str, class_name: str, value: int, **metadata: object) -> dict:
    return {
        "source-ref": f"{S3}/{name}",
        "verdict": value,
        "verdict-metadata": {
            "class-name": class_name,
            "type": "groundtruth/image-classification",
            "human-annotated": "yes",
            **metadata,
        },
    }


def write_manifest(path: Path, rows: Sequence[object]) -> Path:
    return write_list(path, "\n".join(json.dumps(row) if not isinstance(row, str) else row for row in rows))


def mapped(pictures: Path) -> tuple[tuple[str, str], ...]:
    return parse_maps([f"{S3}={pictures}/images"])


def test_a_classification_manifest_keeps_who_labelled_and_how_surely(pictures: Path) -> None:
    rows = [
        classified("0.png", "normal", 0, confidence=0.5),
        classified("1.png", "anomaly", 1, **{"human-annotated": "no", "confidence": 0.94}),
    ]
    source = open_source(str(write_manifest(pictures / "a.manifest", rows)), SourceOptions(maps=mapped(pictures)))
    good, bad = source.images()
    assert (good.uri, good.label, good.confidence, good.human_annotated) == (f"{S3}/0.png", "good", 0.5, True)
    assert (bad.label, bad.defect_type, bad.confidence, bad.human_annotated) == ("bad", None, 0.94, False)
    assert source.read(bad.uri) == (pictures / "images" / "1.png").read_bytes()


def test_uris_do_not_tell_where_a_prefix_is_on_this_machine(pictures: Path) -> None:
    path = write_manifest(pictures / "a.manifest", [classified("0.png", "normal", 0)])
    (pictures / "copy").symlink_to(pictures / "images")
    there = listed(path, maps=((S3 + "/", f"{pictures}/copy/"),))
    assert list(there) == list(listed(path, maps=mapped(pictures))) == [f"{S3}/0.png"]


def test_the_longest_prefix_wins_and_ends_at_a_slash(pictures: Path) -> None:
    write_picture(pictures / "other" / "0.png", 50)
    rows = [classified("deep/0.png", "normal", 0), classified("1.png", "anomaly", 1)]
    maps = ((S3, f"{pictures}/images"), (f"{S3}/deep", f"{pictures}/other"), (f"{S3}/de", "/nowhere"))
    source = open_source(str(write_manifest(pictures / "a.manifest", rows)), SourceOptions(maps=maps))
    assert all(image.version != MISSING for image in source.images())
    assert source.read(f"{S3}/deep/0.png") == (pictures / "other" / "0.png").read_bytes()


def test_a_mapped_path_may_not_climb_out(pictures: Path) -> None:
    path = write_manifest(pictures / "a.manifest", [classified("../../../etc/passwd", "normal", 0)])
    with pytest.raises(DataError, match=r"line 1: .*climbs out of .*images"):
        listed(path, maps=mapped(pictures))


@pytest.mark.parametrize("text", ["s3://x", "=y", "x="])
def test_a_map_without_two_sides_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"--map .*want PREFIX=FOLDER"):
        parse_maps([text])


def lookout(name: str, bad: bool, classes: dict[str, str], mask: str) -> dict:
    return {
        "source-ref": f"{S3}/{name}",
        "anomaly-label": int(bad),
        "anomaly-label-metadata": {
            "class-name": "anomaly" if bad else "normal",
            "type": "groundtruth/image-classification",
            "human-annotated": "yes",
        },
        "anomaly-mask-ref": f"{S3}/{mask}",
        "anomaly-mask-ref-metadata": {
            "internal-color-map": {
                str(index): {"class-name": name, "hex-color": color}
                for index, (name, color) in enumerate(classes.items())
            },
            "type": "groundtruth/semantic-segmentation",
        },
    }


def test_a_lookout_segmentation_manifest_gives_masks_and_their_colours(pictures: Path) -> None:
    rows = [
        lookout("0.png", False, {"BACKGROUND": "#ffffff"}, "dummy.png"),
        lookout("1.png", True, {"BACKGROUND": "#ffffff", "cracked": "#23A436"}, "masks/1.png"),
    ]
    path = write_manifest(pictures / "train.manifest", rows)
    good, bad = listed(path, maps=mapped(pictures)).values()
    assert (good.label, good.mask, good.mask_colors) == ("good", None, ())
    assert (bad.label, bad.defect_type, bad.mask) == ("bad", "cracked", f"{S3}/masks/1.png")
    assert bad.mask_colors == (("#23a436", "cracked"),)


def segmented(name: str, mask: str) -> dict:
    row = lookout(name, True, {"BACKGROUND": "#ffffff", "dent": "#ff0000", "stain": "#0000ff"}, mask)
    del row["anomaly-label"], row["anomaly-label-metadata"]
    return row


def test_a_segmentation_job_without_labels_is_decided_by_the_masks(pictures: Path) -> None:
    for name, color in (("clean", "white"), ("stained", "#0000ff")):
        mask = Image.new("RGB", (48, 36), "white")
        mask.paste(color, (4, 4, 12, 12))
        mask.save(pictures / "images" / f"{name}.png")
    rows = [segmented("0.png", "clean.png"), segmented("1.png", "stained.png")]
    good, bad = listed(write_manifest(pictures / "a.manifest", rows), maps=mapped(pictures)).values()
    assert (good.label, good.mask, good.defect_type) == ("good", None, None)
    assert (bad.label, bad.defect_type, bad.mask_colors) == ("bad", "stain", (("#0000ff", "stain"),))


def test_a_segmentation_job_whose_mask_is_missing_is_refused(pictures: Path) -> None:
    path = write_manifest(pictures / "a.manifest", [segmented("0.png", "lost.png")])
    with pytest.raises(DataError, match=r"the mask .*lost\.png' of .*0\.png' cannot be read \(No such file"):
        listed(path, maps=mapped(pictures))


def detected(name: str, boxes: list[tuple[int, int, int, int, int]]) -> dict:
    return {
        "source-ref": f"{S3}/{name}",
        "boxes": {
            "image_size": [{"width": 48, "height": 36, "depth": 3}],
            "annotations": [
                dict(zip(("class_id", "left", "top", "width", "height"), box, strict=True)) for box in boxes
            ],
        },
        "boxes-metadata": {
            "objects": [{"confidence": 0.9 - 0.1 * index} for index in range(len(boxes))],
            "class-map": {"0": "dent", "1": "scratch"},
            "type": "groundtruth/object-detection",
            "human-annotated": "yes",
        },
    }


def test_a_detection_manifest_gives_boxes_and_their_types(pictures: Path) -> None:
    rows = [detected("0.png", []), detected("1.png", [(1, 2, 3, 10, 8), (0, 20, 5, 6, 6), (1, 30, 5, 6, 6)])]
    good, bad = listed(write_manifest(pictures / "a.manifest", rows), maps=mapped(pictures)).values()
    assert (good.label, good.boxes, good.defect_type) == ("good", (), None)
    assert (bad.label, bad.defect_type, bad.box_types) == ("bad", "scratch", ("scratch", "dent", "scratch"))
    assert bad.boxes[0] == (2.0, 3.0, 10.0, 8.0)
    assert bad.confidence == pytest.approx(0.7), "the least sure box"


def test_several_labels_of_one_picture_are_read(pictures: Path) -> None:
    row = classified("0.png", "", 0)
    row["verdict"] = [0, 2]
    row["verdict-metadata"] = {
        "class-map": {"0": "dent", "2": "stain"},
        "confidence-map": {"0": 0.9, "2": 0.6},
        "type": "groundtruth/image-classification-multilabel",
    }
    (image,) = listed(write_manifest(pictures / "a.manifest", [row]), maps=mapped(pictures), bad_labels=("*",)).values()
    assert (image.label, image.defect_type, image.confidence) == ("bad", "dent", 0.6)


def test_lines_that_a_job_could_not_label_are_left_out_and_listed(
    pictures: Path, caplog: pytest.LogCaptureFixture
) -> None:
    failed = classified("1.png", "", 0, **{"failure-reason": "ClientError: image too large"})
    path = write_manifest(pictures / "a.manifest", [classified("0.png", "normal", 0), failed, {"source-ref": "x.png"}])
    assert len(listed(path, maps=mapped(pictures))) == 1
    assert f"lines_without_label_ignored count=2 lines=2 ({S3}/1.png), 3 (x.png)" in caplog.text


def test_an_attribute_of_several_is_chosen_by_its_name(pictures: Path) -> None:
    row = classified("0.png", "anomaly", 1)
    row |= {"second": 0, "second-metadata": {"class-name": "normal", "type": "groundtruth/image-classification"}}
    path = write_manifest(pictures / "a.manifest", [row])
    with pytest.raises(DataError, match=r"line 1: several attributes label the image: verdict, second.*label"):
        listed(path, maps=mapped(pictures))
    (image,) = listed(path, maps=mapped(pictures), columns=Columns(label="second")).values()
    assert image.label == "good"
    with pytest.raises(DataError, match=r"no attribute 'third', which \[data\.columns\] label names; found verdict"):
        listed(path, maps=mapped(pictures), columns=Columns(label="third"))


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"source-ref": "s3://plant', r"a\.manifest: line 2: want one JSON object per line"),
        ({"label": 1}, "line 2: want a source-ref that names an image, found None"),
        (classified("1.png", "odd", 1), "line 2: verdict: unknown label 'odd'"),
        (classified("0.png", "normal", 0), r"lines 1 and 2 name the same image, 's3://plant/images/0\.png'"),
        (
            classified("1.png", "x", 1, type="groundtruth/text"),
            r"line 2: no label of a type.*\(groundtruth/text",
        ),
        (detected("1.png", [(7, 1, 1, 1, 1)]), "line 2: boxes: not as groundtruth/object-detection is written.*'7'"),
    ],
)
def test_a_bad_line_of_a_manifest_is_named(pictures: Path, line: object, why: str) -> None:
    with pytest.raises(DataError, match=why):
        listed(write_manifest(pictures / "a.manifest", [classified("0.png", "normal", 0), line]), maps=mapped(pictures))


LIST_AND_TELL_MEMORY = """
import resource, sys
from inspection.dataset.images import MISSING
from inspection.dataset.sources import open_source
source = open_source(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
images = source.images()
print(len(images), sum(image.version == MISSING for image in images))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


@pytest.mark.slow
def test_200_000_lines_are_listed_in_bounded_memory(tmp_path: Path) -> None:
    for index in range(100):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "images" / f"{index}.png").write_bytes(b"picture")
    for folder in range(2000):  # links make 2,000 folders of one
        (tmp_path / f"{folder}").symlink_to(tmp_path / "images")
    with (tmp_path / "a.jsonl").open("w") as file:
        for index in range(200_000):
            label = "good" if index % 2 else "bad"
            file.write(f'{{"path": "{index // 100}/{index % 100}.png", "label": "{label}", "group": "{index}"}}\n')
    command = [sys.executable, "-c", LIST_AND_TELL_MEMORY, str(tmp_path / "a.jsonl")]
    counts, memory_mb = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert counts == "200000 0"
    assert float(memory_mb) < 400, "2 kB for each image"


# --- how a format is found


def test_a_format_is_found_by_looking_or_said(pictures: Path) -> None:
    write_list(pictures / "list.csv", ROWS)
    write_set(pictures, {"good": 2, "dent": 2})
    with pytest.raises(DataError, match=r"read as .*\(folder\); or .*\(csv\); say which with --format folder\|csv"):
        listed(pictures)
    assert len(listed(pictures, format="folder")) == 8
    assert "images/0.png" in listed(pictures, format="csv")
    with pytest.raises(DataError, match=r"format 'zip': want one of coco, csv, cvat, folder, jsonl, labelstudio"):
        listed(pictures, format="zip")


def test_an_unknown_layout_says_what_was_looked_for_and_found(pictures: Path) -> None:
    (pictures / "lists").mkdir()
    write_list(pictures / "lists" / "all.csv", ROWS)
    wanted = r"no layout that is known here; want .*\(folder\).*\(mvtec\).*\(visa\).*\(manifest\).*\(csv\).*\(coco\).*"
    with pytest.raises(DataError, match=wanted + r"found images/ \(4 images\), lists/all\.csv; if one of lists/"):
        listed(pictures)


def test_a_said_format_that_does_not_fit_says_so(pictures: Path) -> None:
    for name in ("coco", "yolo", "mvtec", "visa", "csv", "jsonl", "manifest", "cvat", "labelstudio", "folder"):
        with pytest.raises(DataError, match=r"want .*found|found images"):
            listed(pictures / "images", format=name)


def test_a_list_in_the_folder_is_found(pictures: Path) -> None:
    write_list(pictures / "labels.csv", ROWS)
    assert list(listed(pictures)) == [f"images/{index}.png" for index in range(4)]


def test_a_source_of_a_list_travels_to_worker_processes(pictures: Path) -> None:
    source = open_source(str(write_list(pictures / "list.csv", ROWS)))
    source.images()
    again = pickle.loads(pickle.dumps(source))
    assert again.read("images/1.png") == (pictures / "images" / "1.png").read_bytes()


def test_the_group_pattern_also_serves_lists(pictures: Path) -> None:
    images = listed(write_list(pictures / "list.csv", ROWS), group_pattern=r"images/(\d)")
    assert [image.group for image in images.values()] == ["0", "1", "2", "3"]


def test_broken_links_and_loops_are_images_that_cannot_be_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_set(tmp_path, {"good": 1, "dent": 1})
    (tmp_path / "good" / "loop.png").symlink_to(tmp_path / "good" / "loop.png")
    (tmp_path / "good" / "lost.png").symlink_to(tmp_path / "nowhere.png")
    with caplog.at_level(logging.WARNING):
        source = open_source(str(tmp_path))
        images = {image.uri: image.version for image in source.images()}
    assert images["good/loop.png"] == images["good/lost.png"] == MISSING
    for uri in ("good/loop.png", "good/lost.png"):
        with pytest.raises(OSError, match=r"levels of symbolic links|No such file"):
            source.read(uri)

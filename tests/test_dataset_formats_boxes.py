"""Benchmarks with masks (MVTec AD, VisA) and exports with boxes (COCO, YOLO, CVAT, Label Studio)."""

import json
from pathlib import Path

import pytest
from pictures import write_picture, write_set
from PIL import Image

from inspection.dataset.images import MISSING, SourceImage
from inspection.dataset.options import SourceOptions
from inspection.dataset.sources import open_source
from inspection.errors import DataError


def listed(location: Path, **options: object) -> dict[str, SourceImage]:
    images = open_source(str(location), SourceOptions(**options)).images()  # type: ignore[arg-type]
    assert all(image.version not in ("", MISSING) for image in images)
    return {image.uri: image for image in images}


def found(location: Path) -> str:
    return open_source(str(location)).format  # type: ignore[attr-defined]


# --- MVTec AD


def make_mvtec(root: Path) -> Path:
    write_set(root, {"train/good": 3, "test/good": 1, "test/broken_large": 2})
    write_picture(root / "ground_truth" / "broken_large" / "000_mask.png", 9)
    return root


def test_mvtec_is_read_with_its_masks(tmp_path: Path) -> None:
    images = listed(make_mvtec(tmp_path))
    assert found(tmp_path) == "mvtec"
    assert len(images) == 6
    bad = images["test/broken_large/000.png"]
    assert (bad.label, bad.defect_type, bad.mask) == (
        "bad",
        "broken_large",
        "ground_truth/broken_large/000_mask.png",
    )
    assert images["test/broken_large/001.png"].mask is None
    assert images["train/good/000.png"].label == "good"


def test_a_division_that_trains_on_good_parts_only_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert {image.shipped for image in listed(make_mvtec(tmp_path)).values()} == {""}
    assert "shipped_division_not_used" in caplog.text


def test_a_test_folder_beside_good_and_bad_is_the_holdout(tmp_path: Path) -> None:
    write_set(tmp_path, {"train/good": 1, "train/bad": 1, "test/good": 1, "test/bad": 1, "val/good": 1})
    images = listed(tmp_path)
    assert found(tmp_path) == "folder"
    assert [image.shipped for image in images.values()] == ["validation", "validation", "train", "train", "validation"]


# --- VisA


def make_visa(root: Path) -> Path:
    candle = root / "candle"
    write_set(candle, {"Data/Images/Normal": 2, "Data/Images/Anomaly": 2}, suffix=".JPG")
    write_picture(candle / "Data" / "Masks" / "Anomaly" / "000.png", 5)
    (candle / "image_anno.csv").write_text(
        "image,label,mask\n"
        "candle/Data/Images/Normal/000.JPG,normal,\n"
        'candle/Data/Images/Anomaly/000.JPG,"damaged corner,other",candle/Data/Masks/Anomaly/000.png\n'
    )
    (root / "split_csv").mkdir()
    header = "object,split,label,image,mask\n"
    rows = [
        "candle,train,normal,candle/Data/Images/Normal/000.JPG,",
        "candle,train,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png",
        "candle,test,normal,candle/Data/Images/Normal/001.JPG,",
        "candle,test,anomaly,candle/Data/Images/Anomaly/001.JPG,",
    ]
    (root / "split_csv" / "2cls_highshot.csv").write_text(header + "\n".join(rows) + "\n")
    (root / "split_csv" / "1cls.csv").write_text(header + "\n".join([rows[0], *rows[2:]]) + "\n")
    return root


def test_visa_is_read_by_the_folder_of_an_object(tmp_path: Path) -> None:
    images = listed(make_visa(tmp_path) / "candle")
    assert found(tmp_path / "candle") == "visa"
    bad = images["Data/Images/Anomaly/000.JPG"]
    assert (bad.label, bad.defect_type, bad.mask) == ("bad", "damaged corner", "Data/Masks/Anomaly/000.png")
    assert images["Data/Images/Anomaly/001.JPG"].defect_type is None
    assert [image.label for image in images.values()].count("good") == 2


def test_visa_is_read_by_a_list_of_its_divisions(tmp_path: Path) -> None:
    images = listed(make_visa(tmp_path) / "split_csv" / "2cls_highshot.csv")
    bad = images["candle/Data/Images/Anomaly/000.JPG"]
    assert (bad.label, bad.mask, bad.shipped) == ("bad", "candle/Data/Masks/Anomaly/000.png", "train")
    assert images["candle/Data/Images/Normal/001.JPG"].shipped == "validation"
    one_class = listed(tmp_path / "split_csv" / "1cls.csv")
    assert {image.shipped for image in one_class.values()} == {""}


def test_a_bad_line_of_a_visa_list_is_named(tmp_path: Path) -> None:
    path = make_visa(tmp_path) / "split_csv" / "1cls.csv"
    path.write_text(path.read_text() + "candle,late,normal,candle/Data/Images/Normal/0.JPG,\n")
    with pytest.raises(DataError, match=r"1cls\.csv: line 5: unknown split 'late'"):
        listed(path)


# --- COCO


def coco(images: list[str], boxes: list[tuple[int, str]], **annotation: object) -> dict:
    names = sorted({name for _, name in boxes})
    return {
        "images": [{"id": index, "file_name": name, "width": 48, "height": 36} for index, name in enumerate(images)],
        "annotations": [
            {"id": index, "image_id": image, "category_id": names.index(name), "bbox": [1, 2, 10, 8], **annotation}
            for index, (image, name) in enumerate(boxes)
        ],
        "categories": [{"id": index, "name": name} for index, name in enumerate(names)],
    }


def write_json(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    ("name", "folder", "reference"),
    [
        ("result.json", "images", "images/0.png"),
        ("result.json", "images", "0.png"),
        ("_annotations.coco.json", ".", "0.png"),
        ("annotations/instances_default.json", "images/default", "0.png"),
        ("annotations/instances_train2017.json", "train2017", "0.png"),
        ("annotations/instances_train.json", "images/train", "0.png"),
        ("train/_annotations.coco.json", "train", "0.png"),
    ],
)
def test_coco_is_found_where_programs_export_it(tmp_path: Path, name: str, folder: str, reference: str) -> None:
    write_picture(tmp_path / folder / "0.png", 0)
    write_json(tmp_path / name, coco([reference], [(0, "dent")]))
    ((uri, image),) = listed(tmp_path).items()
    assert found(tmp_path) == "coco"
    assert open_source(str(tmp_path)).read(uri) == (tmp_path / folder / "0.png").read_bytes()
    assert (image.label, image.defect_type, image.boxes) == ("bad", "dent", ((1.0, 2.0, 10.0, 8.0),))


def test_a_box_is_a_defect_and_no_box_is_good(tmp_path: Path) -> None:
    write_set(tmp_path, {"images": 3})
    boxes = [(1, "scratch"), (1, "dent"), (1, "scratch"), (2, "OK")]
    path = write_json(tmp_path / "a.json", coco([f"{index:03d}.png" for index in range(3)], boxes))
    none, several, only_ok = listed(path).values()
    assert (none.label, none.boxes, none.defect_type) == ("good", (), None)
    assert (several.label, several.defect_type, several.box_types) == ("bad", "scratch", ("scratch", "dent", "scratch"))
    assert (only_ok.label, only_ok.boxes) == ("good", ()), "a box that says ok is no defect"


def test_coco_parts_become_the_division(tmp_path: Path) -> None:
    for part in ("train", "valid", "test"):
        write_picture(tmp_path / part / f"{part}.png", len(part))
        write_json(tmp_path / part / "_annotations.coco.json", coco([f"{part}.png"], [(0, "dent")]))
    shipped = {uri: image.shipped for uri, image in listed(tmp_path).items()}
    assert shipped == {
        "train/train.png": "train",
        "valid/valid.png": "validation",
        "test/test.png": "validation",
    }


def test_an_outline_without_a_box_gives_the_rectangle_around_it(tmp_path: Path) -> None:
    write_picture(tmp_path / "0.png", 0)
    document = coco(["0.png"], [(0, "dent")], bbox=[], segmentation=[[3, 4, 9, 4, 9, 20], [5, 2, 6, 2, 6, 3]])
    (image,) = listed(write_json(tmp_path / "a.json", document)).values()
    assert image.boxes == ((3.0, 2.0, 6.0, 18.0),)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"image_id": 7}, r"annotations\[0\]: no image has the id 7"),
        ({"category_id": 7}, r"annotations\[0\]: no category has the id 7"),
        ({"bbox": [1, 2, 3]}, "not as COCO writes it"),
        ({"bbox": "wide"}, "not as COCO writes it"),
    ],
)
def test_a_bad_annotation_is_named(tmp_path: Path, change: dict, why: str) -> None:
    write_picture(tmp_path / "0.png", 0)
    document = coco(["0.png"], [(0, "dent")])
    document["annotations"][0].update(change)
    with pytest.raises(DataError, match=rf"a\.json: {why}"):
        listed(write_json(tmp_path / "a.json", document))


def test_an_image_twice_or_outside_is_refused(tmp_path: Path) -> None:
    write_picture(tmp_path / "0.png", 0)
    with pytest.raises(DataError, match=r"images 0 and 1 name the same image"):
        listed(write_json(tmp_path / "a.json", coco(["0.png", "0.png"], [])))
    with pytest.raises(DataError, match=r"images\[1\]: '\.\./0\.png' climbs out"):
        listed(write_json(tmp_path / "a.json", coco(["0.png", "../0.png"], [])))


def test_a_json_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": [')
    with pytest.raises(DataError, match=r"want .*COCO.*found a\.json"):
        listed(tmp_path / "a.json")


# --- YOLO


def make_yolo(root: Path, text: str = "1 0.5 0.5 0.25 0.5\n") -> Path:
    write_set(root, {"images/train": 2, "images/val": 1})
    (root / "labels" / "train").mkdir(parents=True)
    (root / "labels" / "train" / "000.txt").write_text(text)
    (root / "labels" / "train" / "001.txt").write_text("\n")
    (root / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: {0: dent, 1: scratch}\n")
    return root


def test_yolo_boxes_become_pixels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = listed(make_yolo(tmp_path))
    assert found(tmp_path) == "yolo"
    bad = images["images/train/000.png"]
    assert (bad.label, bad.defect_type, bad.boxes) == ("bad", "scratch", ((18.0, 9.0, 12.0, 18.0),))
    assert [image.label for image in images.values()] == ["bad", "good", "good"]
    assert [image.shipped for image in images.values()] == ["train", "train", "validation"]
    assert "images_without_label_file_are_good count=1 files=images/val/000.png" in caplog.text


def test_yolo_boxes_are_those_of_the_upright_picture(tmp_path: Path) -> None:
    make_yolo(tmp_path)
    path = tmp_path / "images" / "train" / "000.png"
    with Image.open(path) as picture:
        exif = picture.getexif()
        exif[0x0112] = 6  # turn by 90 degrees
        picture.save(path, exif=exif)
    assert listed(tmp_path)["images/train/000.png"].boxes == ((13.5, 12.0, 9.0, 24.0),)


def test_an_outline_gives_the_rectangle_around_it(tmp_path: Path) -> None:
    make_yolo(tmp_path, "0 0.25 0.25 0.5 0.25 0.5 0.75\n")
    assert listed(tmp_path)["images/train/000.png"].boxes == ((12.0, 9.0, 12.0, 18.0),)


def test_yolo_as_cvat_exports_it_is_read(tmp_path: Path) -> None:
    write_set(tmp_path, {"obj_train_data": 2})
    (tmp_path / "obj_train_data" / "000.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "obj.names").write_text("dent\n")
    (tmp_path / "train.txt").write_text("data/obj_train_data/000.png\n")
    assert [image.defect_type for image in listed(tmp_path).values()] == ["dent", None]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("dent 0.5 0.5 0.1 0.1", "want a class number and numbers from 0 to 1"),
        ("0 0.5 0.5 0.1", "want 4 numbers of a box or the corners of an outline, found 3"),
        ("0 24 18 10 8", "want shares from 0 to 1, found .*, which look like pixels"),
        ("7 0.5 0.5 0.1 0.1", "no class has the number 7; there are 2"),
        ("0 nan 0.5 0.1 0.1", "want numbers from 0 to 1"),
    ],
)
def test_a_bad_line_of_a_label_file_is_named(tmp_path: Path, line: str, why: str) -> None:
    with pytest.raises(DataError, match=rf"labels/train/000\.txt: line 2: {why}"):
        listed(make_yolo(tmp_path, f"1 0.5 0.5 0.1 0.1\n{line}\n"))


def test_a_picture_that_cannot_be_decoded_keeps_its_label(tmp_path: Path) -> None:
    make_yolo(tmp_path)
    (tmp_path / "images" / "train" / "000.png").write_text("no picture")
    bad = listed(tmp_path)["images/train/000.png"]
    assert (bad.label, bad.defect_type, bad.boxes) == ("bad", "scratch", ())


# --- CVAT

CVAT_HEAD = '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n'


def write_cvat(root: Path, body: str, head: str = CVAT_HEAD) -> Path:
    (root / "annotations.xml").write_text(f"{head}{body}\n</annotations>\n")
    return root


def cvat_image(name: str, body: str = "", attributes: str = "") -> str:
    return f'<image id="0" name="{name}" {attributes} width="48" height="36">{body}</image>'


def test_cvat_shapes_are_defects(tmp_path: Path) -> None:
    write_set(tmp_path, {"images": 3})
    shapes = (
        '<box label="dent" source="manual" xtl="1" ytl="2" xbr="11" ybr="10" />'
        '<polygon label="crack" points="3.0,4.0;9.0,4.0;9.0,20.0" />'
        '<ellipse label="dent" cx="20" cy="20" rx="4" ry="2" />'
        '<mask label="stain" rle="3,4" left="5" top="6" width="7" height="8" />'
    )
    write_cvat(tmp_path, cvat_image("000.png") + cvat_image("001.png", shapes))
    good, bad = listed(tmp_path).values()
    assert found(tmp_path) == "cvat"
    assert (good.uri, good.label) == ("images/000.png", "good")
    assert (bad.label, bad.defect_type, bad.human_annotated) == ("bad", "dent", True)
    assert bad.box_types == ("dent", "crack", "dent", "stain")
    assert bad.boxes == (
        (1.0, 2.0, 10.0, 8.0),
        (3.0, 4.0, 6.0, 16.0),
        (16.0, 18.0, 8.0, 4.0),
        (5.0, 6.0, 7.0, 8.0),
    )


def test_cvat_tags_are_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_set(tmp_path, {"images/train": 3})
    body = "".join(
        cvat_image(f"{index:03d}.png", tag, 'subset="train"')
        for index, tag in enumerate(['<tag label="ok"/>', '<tag label="scratch" source="auto"/>', ""])
    )
    good, bad = listed(write_cvat(tmp_path, body), bad_labels=("scratch",)).values()
    assert (good.label, bad.label, bad.defect_type) == ("good", "bad", "scratch")
    assert (bad.human_annotated, bad.shipped) == (False, "train")
    assert "images_without_label_ignored count=1 files=002.png" in caplog.text


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ('<track id="0" label="dent"/>', '"CVAT for video"; export as "CVAT for images"'),
        ('<image id="0" width="3"/>', "not as CVAT writes it"),
        (cvat_image("000.png", '<box label="dent" xtl="a"/>'), "not as CVAT writes it"),
        (cvat_image("000.png", '<tag label="odd"/>'), "unknown label 'odd'"),
        (
            cvat_image("000.png", '<tag label="ok"/><box label="dent" xtl="1" ytl="2" xbr="3" ybr="4"/>'),
            "is labelled good and has defects",
        ),
        ("<image>", "not as CVAT writes it"),
    ],
)
def test_a_bad_cvat_export_is_refused(tmp_path: Path, body: str, why: str) -> None:
    write_set(tmp_path, {"images": 1})
    with pytest.raises(DataError, match=why):
        listed(write_cvat(tmp_path, body))


def test_a_document_type_is_refused(tmp_path: Path) -> None:
    write_set(tmp_path, {"images": 1})
    head = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;&b;">]>\n<annotations>'
    with pytest.raises(DataError, match="has a document type, which CVAT does not write"):
        listed(write_cvat(tmp_path, cvat_image("&c;.png"), head))


# --- Label Studio


def result(kind: str, **value: object) -> dict:
    return {"type": kind, "original_width": 200, "original_height": 100, "value": value}


def task(reference: str, *results: dict, **annotation: object) -> dict:
    return {"data": {"image": reference}, "annotations": [{"result": list(results), **annotation}]}


def test_label_studio_rectangles_are_defects(tmp_path: Path) -> None:
    write_set(tmp_path, {"images": 3})
    tasks = [
        task("/data/local-files/?d=images/000.png"),
        task(
            "/data/local-files/?d=images/001.png",
            result("rectanglelabels", x=10.0, y=20.0, width=30.0, height=40.0, rectanglelabels=["dent"]),
            result("polygonlabels", points=[[0, 0], [5, 0], [5, 10]], polygonlabels=["crack"]),
            result("brushlabels", format="rle", rle=[1], brushlabels=["dent"]),
        ),
        {"data": {"image": "/data/local-files/?d=images/002.png"}, "annotations": []},
    ]
    good, bad = listed(write_json(tmp_path / "export.json", tasks)).values()
    assert found(tmp_path) == "labelstudio"
    assert good.label == "good"
    assert (bad.label, bad.defect_type, bad.human_annotated) == ("bad", "dent", True)
    assert bad.boxes == ((20.0, 20.0, 60.0, 40.0), (0.0, 0.0, 10.0, 10.0))


def test_label_studio_choices_are_labels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_set(tmp_path, {"images": 4})
    tasks = [
        task("images/000.png", result("choices", choices=["good"])),
        task("images/001.png", result("choices", choices=["bad"])),
        task("images/002.png"),
        task("images/003.png", result("choices", choices=["bad"]), was_cancelled=True),
    ]
    tasks[1]["annotations"].insert(0, {"result": [result("choices", choices=["good"])]})
    good, bad = listed(write_json(tmp_path / "export.json", tasks)).values()
    assert (good.label, bad.label) == ("good", "bad"), "the last annotation counts"
    assert "annotators_disagree count=1 files=images/001.png" in caplog.text
    assert "images_without_label_ignored count=2 files=images/002.png, images/003.png" in caplog.text


def test_label_studios_short_form_is_read(tmp_path: Path) -> None:
    write_set(tmp_path, {"up": 3})
    shape = {"x": 10, "y": 20, "width": 30, "height": 40, "original_width": 200, "original_height": 100}
    tasks = [
        {"image": "/data/upload/1/000.png", "choice": "good", "annotation_id": 1},
        {"image": "/data/upload/1/001.png", "choice": {"choices": ["bad"]}, "annotation_id": 2},
        {"image": "/data/upload/1/002.png", "label": [{**shape, "rectanglelabels": ["dent"]}], "annotation_id": 3},
    ]
    path = write_json(tmp_path / "export.json", tasks)
    with pytest.raises(DataError, match=r"tasks\[0\]: .*is an absolute path.*--map /data/upload/1="):
        listed(path)
    images = listed(path, maps=(("/data/upload/1", f"{tmp_path}/up"),))
    assert [image.label for image in images.values()] == ["good", "bad", "bad"]
    assert images["/data/upload/1/002.png"].boxes == ((20.0, 20.0, 60.0, 40.0),)


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ({"data": {}}, r"tasks\[1\]: want a task with an image"),
        ([1], r"tasks\[1\]: want a task with an image"),
        (task("images/001.png", {"type": "choices"}), r"tasks\[1\]: not as Label Studio writes it"),
        (task("images/001.png", result("choices", choices=["odd"])), r"tasks\[1\]: unknown label 'odd'"),
        (
            task("images/001.png", result("choices", choices=["ok"]), result("brushlabels", brushlabels=["dent"])),
            r"tasks\[1\]: 'images/001\.png' is labelled good and has defects",
        ),
    ],
)
def test_a_bad_task_is_named(tmp_path: Path, bad: object, why: str) -> None:
    write_set(tmp_path, {"images": 2})
    with pytest.raises(DataError, match=why):
        listed(write_json(tmp_path / "a.json", [task("images/000.png", result("choices", choices=["good"])), bad]))


def test_many_json_files_beside_images_are_no_lists(tmp_path: Path) -> None:
    write_set(tmp_path, {"good": 12, "dent": 1})
    for index in range(12):
        write_json(tmp_path / "good" / f"{index:03d}.json", coco(["000.png"], []))
    assert found(tmp_path) == "folder"

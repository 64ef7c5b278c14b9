"""VOC, read by its rules: every name of a set has a picture and an XML file with boxes in the picture."""

from pathlib import Path

import defusedxml.ElementTree as ElementTree

from tests.datasets.made import MOVING, ROTATED, SIZE, export, write_tasks


def test_each_picture_has_an_annotation(tmp_path: Path) -> None:
    write_tasks(tmp_path, "constant", "ntsc", regions=(MOVING, ROTATED))
    assert export(tmp_path, "voc", "--split-field", "set", "--max", "12") == 0
    root, found = tmp_path / "out" / "VOCdevkit" / "VOC2012", set[tuple[str, ...]]()
    names = {split: (root / "ImageSets" / "Main" / f"{split}.txt").read_text().split() for split in ("train", "val")}
    assert [len(listed) for listed in names.values()] == [12, 12]
    for name in names["train"] + names["val"]:
        assert (root / "JPEGImages" / f"{name}.jpg").is_file()
        read = ElementTree.parse(root / "Annotations" / f"{name}.xml").getroot()
        assert read is not None
        assert (read.findtext("filename"), read.findtext("size/width")) == (f"{name}.jpg", str(SIZE[0]))
        for item in read.findall("object"):
            x0, y0, x1, y1 = (float(item.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax"))
            assert 1 <= x0 < x1 <= SIZE[0]
            assert 1 <= y0 < y1 <= SIZE[1]
            found.add((name, str(item.findtext("name"))))
    assert {label for _, label in found} == {"Car", "Person"}
    # The box is turned by 30 degrees about its upper left corner.
    first = ElementTree.parse(root / "Annotations" / "1-1_000000.xml").getroot()
    assert first is not None
    assert first.findtext("object/bndbox/xmin") == f"{0.6 * SIZE[0] - 0.1 * SIZE[1] / 2 + 1:.2f}"


def test_an_export_goes_on_where_folders_are_there(tmp_path: Path) -> None:
    write_tasks(tmp_path, "constant")
    (tmp_path / ".out.part" / "VOCdevkit" / "VOC2012" / "Annotations").mkdir(parents=True)
    assert export(tmp_path, "voc", "--max", "2") == 0

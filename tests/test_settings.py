"""A line's settings: what they refuse and how they say so, and that the files to copy keep up with them."""

import dataclasses
import json
import re
import tomllib
from typing import get_type_hints

import pytest

from edge.contract import InputContract, Roi
from inspection.dataset import options
from inspection.errors import SettingsError
from inspection.sample import plan_sample
from inspection.settings import (
    REPOSITORY,
    DataSettings,
    InputSettings,
    LineSettings,
    Settings,
    TrainingSettings,
    load_settings,
    override_settings,
    parse_settings,
    parse_toml,
)

LINES = REPOSITORY / "flows" / "lines"


def parse(text: str, name: str = 'name = "bottles"') -> Settings:
    return parse_settings(parse_toml(f"[line]\n{name}\n{text}", "lines/bottles.toml"), "lines/bottles.toml")


def refusal(text: str, name: str = 'name = "bottles"') -> str:
    """The message with which this addition to a good file is refused."""
    with pytest.raises(SettingsError) as error:
        parse(text, name)
    message = str(error.value)
    assert message.startswith("lines/bottles.toml: ")
    assert "\n" not in message
    return message.removeprefix("lines/bottles.toml: ")


class TestReading:
    def test_a_name_is_enough(self):
        settings = parse("")
        assert settings == Settings(line=LineSettings(name="bottles"))
        assert settings.training.backbone == "mobilenet_v2"

    def test_every_section_reads_its_values(self):
        settings = parse(
            "[input]\nwidth = 320\n[training.augmentation]\nnoise = 0\n[operating_point]\nconfidence = 0.9"
        )
        assert settings.input.width == 320
        assert settings.training.augmentation.noise == 0.0
        assert settings.operating_point.confidence == 0.9

    def test_a_whole_number_serves_as_a_fraction(self):
        weight_decay = parse("[training]\nweight_decay = 0").training.weight_decay
        assert isinstance(weight_decay, float)

    def test_settings_cannot_be_changed(self):
        with pytest.raises(dataclasses.FrozenInstanceError):
            parse("").line.name = "other"  # type: ignore[misc]

    def test_the_input_contract_follows_the_settings(self):
        contract = parse('[input]\nwidth = 320\nheight = 256\nresize = "letterbox"\nroi = [10, 20, 300, 200]').input
        assert contract.contract() == InputContract(320, 256, "letterbox", Roi(10, 20, 300, 200))
        assert InputSettings().contract() == InputContract(224, 224)


class TestRefusals:
    @pytest.mark.parametrize(
        ("text", "place", "hint"),
        [
            ("[training]\nepoch = 3", "[training] epoch: unknown key, found 3", "did you mean epochs?"),
            ("[trainin]\nepochs = 3", "[trainin]: unknown key, found {'epochs': 3}", "did you mean training?"),
            ("[training.augmentation]\nrotation = 3", "[training.augmentation] rotation: unknown", "rotation_deg"),
            ("[data]\nxyz = 1", "[data] xyz: unknown key, found 1", "remove it"),
        ],
    )
    def test_an_unknown_key_is_named_with_the_one_that_may_be_meant(self, text, place, hint):
        message = refusal(text)
        assert message.startswith(place)
        assert hint in message
        assert "flows/lines/line.toml" in message

    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ('[training]\nepochs = "ten"', "[training] epochs: want a whole number, found 'ten'"),
            ("[training]\nepochs = 1.5", "[training] epochs: want a whole number, found 1.5"),
            ("[training]\nepochs = true", "[training] epochs: want a whole number, found True"),
            ('[training]\nlearning_rate = "1e-3"', "[training] learning_rate: want a number, found '1e-3'"),
            ("[training]\nlearning_rate = inf", "[training] learning_rate: want a finite number, found inf"),
            ("[training]\nlearning_rate = nan", "[training] learning_rate: want a finite number, found nan"),
            ("[training]\nweights = 3", "[training] weights: want text in quotes, found 3"),
            ("[training.augmentation]\nvertical_flip = 1", "vertical_flip: want true or false, found 1"),
            ("[input]\nroi = 5", "[input] roi: want a list, found 5"),
            ('[input]\nroi = [0, 0, "x", 5]', "[input] roi[2]: want a whole number, found 'x'"),
            ("[data]\nsource = 2026-11-22", "[data] source: want text in quotes, found {'date': '2026-11-22'}"),
            ("[training]\naugmentation = 3", "[training] augmentation: want a section with keys, found 3"),
        ],
    )
    def test_a_wrong_type_is_named_with_what_was_wanted_and_found(self, text, wanted):
        assert wanted in refusal(text)

    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ('[training]\nbackbone = "vgg16"', "found 'vgg16'"),
            ("[training]\nepochs = 0", "[training] epochs: want a value greater than or equal to 1, found 0"),
            ('[training]\nweights = ""', "[training] weights: want at least 1 character, found ''"),
            ("[input]\nwidth = 1024", "[input] width: want a value less than or equal to 512, found 1024"),
            ("[input]\nheight = 16", "[input] height: want a value greater than or equal to 32, found 16"),
            ("[data]\nholdout_fraction = 1.0", "[data] holdout_fraction: want a value less than 1, found 1.0"),
            ("[operating_point]\nmax_escape_rate = 5", "max_escape_rate: want a value less than 1, found 5"),
            ("[operating_point]\nescape_cost = 0", "escape_cost: want a value greater than 0, found 0"),
            ("[export]\nparity_images = 5", "parity_images: want a value greater than or equal to 100, found 5"),
            ('[registry]\nbackend = "cloud"', "[registry] backend: want 'local' or 'sagemaker', found 'cloud'"),
        ],
    )
    def test_a_value_out_of_range_is_named_with_the_range(self, text, wanted):
        assert wanted in refusal(text)

    def test_an_unknown_backbone_is_refused_with_those_there_are(self):
        message = refusal('[training]\nbackbone = "vgg16"')
        assert "[training] backbone" in message
        for name in ("mobilenet_v2", "mobilenet_v3_small", "resnet18", "efficientnet_b0", "squeezenet1_1"):
            assert f"'{name}'" in message

    def test_every_fault_is_named_at_once(self):
        message = refusal("[training]\nepochs = 0\nfolds = 1\n[input]\nwdth = 3")
        assert all(name in message for name in ("[training] epochs", "[training] folds", "[input] wdth"))

    @pytest.mark.parametrize(
        ("document", "place"), [({}, "[line]: want a value"), ({"line": {}}, "[line] name: want a value")]
    )
    def test_a_line_without_a_name_is_refused(self, document, place):
        with pytest.raises(SettingsError, match=re.escape(f"f.toml: {place}, found none")):
            parse_settings(document, "f.toml")

    def test_a_section_that_is_a_value_is_refused(self):
        with pytest.raises(SettingsError, match=r"f\.toml: \[line\]: want a section with keys, found 'bottles'"):
            parse_settings({"line": "bottles"}, "f.toml")


class TestRulesAcrossFields:
    @pytest.mark.parametrize("name", ["Bottles", "bot tles", "-bottles", "bottles-", "", "x" * 33, "b/c", "böttles"])
    def test_a_name_that_would_break_topics_or_prefixes_is_refused(self, name):
        assert refusal("", f'name = "{name}"').endswith(f"hyphen at either end, found {name!r}")

    @pytest.mark.parametrize("name", ["registry", "datasets", "cache"])
    def test_a_name_that_all_lines_share_in_storage_is_refused(self, name):
        assert f"which all lines share, found {name!r}" in refusal("", f'name = "{name}"')

    def test_a_name_with_a_line_break_is_refused(self):
        assert "[line] name: want" in refusal("", r'name = "bottles\n"')

    @pytest.mark.parametrize("name", ["b", "b2", "bottles-left-2", "x" * 32])
    def test_a_name_of_a_line_is_accepted(self, name):
        assert parse("", f'name = "{name}"').line.name == name

    @pytest.mark.parametrize("topic", ["", "/lineside", "lineside/", "a//b", "a/+/b", "#", "a b"])
    def test_a_topic_root_that_no_broker_takes_is_refused(self, topic):
        message = refusal("", f'name = "bottles"\ntopic_root = "{topic}"')
        assert message == f"[line] topic_root: want names joined by '/', found {topic!r}"

    @pytest.mark.parametrize("storage", ["s3:/bucket", "s3://", "s3://Bucket/x", "gs://bucket", "https://host/x"])
    def test_a_storage_that_is_no_folder_and_no_bucket_is_refused(self, storage):
        message = refusal("", f'name = "bottles"\nstorage = "{storage}"')
        assert message == f"[line] storage: want a folder or s3://bucket/prefix, found {storage!r}"

    def test_splits_that_leave_too_little_for_training_are_refused(self):
        message = refusal("[data]\ncalibration_fraction = 0.5\nholdout_fraction = 0.4")
        assert message.startswith("[data] calibration_fraction + holdout_fraction: want at most 0.8")
        assert message.endswith("found 0.5 + 0.4")

    def test_a_group_pattern_that_is_no_expression_is_refused(self):
        assert "want a regular expression, found '('" in refusal('[data]\ngroup_pattern = "("')

    def test_a_group_pattern_without_a_group_is_refused(self):
        assert "found none in 'lot'" in refusal('[data]\ngroup_pattern = "lot"')

    @pytest.mark.parametrize("roi", [[1, 2, 3], [-1, 0, 5, 5], [0, 0, 0, 5], [0, 0, 5, -5]])
    def test_a_region_that_is_no_rectangle_is_refused(self, roi):
        assert refusal(f"[input]\nroi = {roi}") == f"[input] roi: want [left, top, width, height] in px, found {roi}"

    def test_a_region_with_five_numbers_is_refused(self):
        assert "[input] roi: want at most 4 items" in refusal("[input]\nroi = [1, 2, 3, 4, 5]")

    @pytest.mark.parametrize(
        ("priority", "wanted"),
        [
            (
                '["escape", "escape", "review"]',
                "[operating_point] priority: want each of escape, overkill, review once",
            ),
            ('["escape"]', "[operating_point] priority: want at least 3 items"),
            ('["escape", "overkil", "review"]', "[operating_point] priority[1]: want 'escape', 'overkill' or 'review'"),
        ],
    )
    def test_a_priority_that_does_not_order_all_three_is_refused(self, priority, wanted):
        assert wanted in refusal(f"[operating_point]\npriority = {priority}")

    @pytest.mark.parametrize(
        ("line", "registry", "wanted"),
        [
            ("", 'container_image = "x"', 'want [line] storage = "s3://bucket/prefix" for the archives'),
            ('storage = "s3://bucket/x"', "", "[registry] container_image: SageMaker asks for the URI"),
            (
                'storage = "s3://bucket/x"',
                'prefix = "a--b"',
                "[registry] prefix: want letters, digits and single hyphens",
            ),
            ('storage = "s3://bucket/x"', f'prefix = "{"p" * 56}"', "[registry] prefix: want at most 63 characters"),
        ],
    )
    def test_a_registry_that_sagemaker_cannot_keep_is_refused(self, line, registry, wanted):
        text = f'[registry]\nbackend = "sagemaker"\n{registry}'
        assert wanted in refusal(text, f'name = "bottles"\n{line}')

    def test_all_broken_rules_are_named_at_once(self):
        message = refusal('[data]\ngroup_pattern = "x"\n[input]\nroi = [1]', 'name = "A"')
        assert all(name in message for name in ("[line] name", "[data] group_pattern", "[input] roi"))


class TestFiles:
    def test_a_missing_file_says_what_to_copy(self, tmp_path):
        with pytest.raises(SettingsError, match=r"gone\.toml: cannot read .*copy flows/lines/line\.toml"):
            load_settings(tmp_path / "gone.toml")

    def test_a_file_that_is_not_toml_is_refused_with_the_place(self, tmp_path):
        (tmp_path / "bad.toml").write_text("[line\nname = 3")
        with pytest.raises(SettingsError, match=r"bad\.toml: not valid TOML: .*line 1"):
            load_settings(tmp_path / "bad.toml")

    def test_a_file_that_is_not_utf8_is_refused_with_the_place(self, tmp_path):
        (tmp_path / "latin.toml").write_bytes('[line]\nname = "b"  # größer'.encode("latin-1"))
        with pytest.raises(SettingsError, match=r"latin\.toml: want TOML in UTF-8, found byte 23"):
            load_settings(tmp_path / "latin.toml")

    def test_a_folder_in_place_of_the_file_is_refused(self, tmp_path):
        with pytest.raises(SettingsError, match="cannot read the line's settings"):
            load_settings(tmp_path)


class TestStorageRoot:
    def test_the_default_lies_in_the_repository_whatever_the_working_directory(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert parse("").storage_root == str(REPOSITORY / ".lineside")
        assert parse("", 'name = "bottles"\nstorage = "data/store"').storage_root == str(REPOSITORY / "data/store")

    def test_an_absolute_folder_a_home_folder_and_a_bucket_stay_as_they_are(self, monkeypatch):
        monkeypatch.setenv("HOME", "/home/anna")
        for storage, root in [
            ("/srv/lines", "/srv/lines"),
            ("~/lines", "/home/anna/lines"),
            ("s3://lines/one", "s3://lines/one"),
        ]:
            assert parse("", f'name = "bottles"\nstorage = "{storage}"').storage_root == root


class TestDigest:
    def test_it_changes_with_the_named_sections_only(self):
        one, other = parse("[training]\nseed = 1"), parse("[training]\nseed = 2\n[export]\nparity_images = 200")
        assert one.digest("input", "data") == other.digest("input", "data")
        assert one.digest("training") != other.digest("training")
        assert one.digest("training", "input") != one.digest("training")

    def test_it_does_not_tell_a_default_from_the_same_value_written_out(self):
        written_out = f"[training]\nseed = 0\nlearning_rate = {TrainingSettings().learning_rate!r}"
        assert parse(written_out).digest("training") == parse("").digest("training")


class TestFlags:
    def test_flags_beat_the_file_and_empty_ones_change_nothing(self):
        settings = parse('[data]\nsource = "images"\n[training]\nrecipe = "both"')
        assert override_settings(settings) == settings
        changed = override_settings(settings, data="other", weights="none", max_minutes=0.5)
        assert (changed.data.source, changed.training.weights, changed.training.max_minutes) == ("other", "none", 0.5)
        assert changed.training.recipe == "both"

    def test_a_flag_with_a_wrong_value_is_refused(self):
        with pytest.raises(SettingsError, match=r"flags: \[training\] recipe: want 'auto'.*found 'best'"):
            override_settings(parse(""), recipe="best")


def _fields(kind: type, prefix: str = "") -> set[str]:
    """Every key that a settings file may have, as section.key."""
    names: set[str] = set()
    hints = get_type_hints(kind)
    for entry in dataclasses.fields(kind):
        name = f"{prefix}{entry.name}"
        names |= _fields(hints[entry.name], f"{name}.") if dataclasses.is_dataclass(hints[entry.name]) else {name}
    return names


TABLES_OF_ONES_OWN = ("fleet.inspector", "fleet.local.groups")  # whose keys are names that a user gives


def _keys(document: dict, prefix: str = "") -> set[str]:
    names: set[str] = set()
    for key, value in document.items():
        table = isinstance(value, dict) and f"{prefix}{key}" not in TABLES_OF_ONES_OWN
        names |= _keys(value, f"{prefix}{key}.") if table else {f"{prefix}{key}"}
    return names


def test_the_words_for_good_and_bad_are_those_that_sources_know():
    data = DataSettings()
    assert (tuple(data.good_labels), tuple(data.bad_labels)) == (options.GOOD_LABELS, options.BAD_LABELS)


class TestTheFileToCopy:
    def test_it_names_every_setting_there_is(self):
        assert _keys(tomllib.loads((LINES / "line.toml").read_text())) == _fields(Settings)

    def test_its_values_are_the_defaults(self):
        settings = load_settings(LINES / "line.toml")
        assert settings == Settings(line=LineSettings(name=settings.line.name))

    def test_every_key_has_a_comment(self):
        lines = (LINES / "line.toml").read_text().splitlines()
        bare = [line for line in lines if re.match(r"\w+ = ", line) and "#" not in line]
        assert bare == ["horizontal_flip = true", "vertical_flip = true"], "these two speak for themselves"


class TestTheSampleLine:
    def test_it_needs_no_download_and_no_images(self):
        settings = load_settings(LINES / "sample.toml")
        assert (settings.line.name, settings.data.source) == ("sample", "sample")
        assert settings.training.weights == "none"

    def test_it_says_only_what_differs_from_the_defaults(self):
        document = tomllib.loads((LINES / "sample.toml").read_text())
        defaults = json.loads(json.dumps(dataclasses.asdict(Settings(line=LineSettings(name="x")))))
        same = [
            f"{section}.{key}"
            for section in document
            for key in document[section]
            if document[section][key] == defaults[section][key]
        ]
        assert same == []

    def test_its_pattern_groups_by_part_and_names_the_lot(self):
        pattern = re.compile(load_settings(LINES / "sample.toml").data.group_pattern)
        parts = plan_sample(images=40)
        matches = [pattern.search(part.picture) for part in parts]
        assert len({match["group"] for match in matches}) == len(parts)
        assert {match["lot"] for match in matches} == {f"lot-{part.lot:02d}" for part in parts}

    def test_its_promise_can_be_kept_by_the_images_it_has(self):
        settings = load_settings(LINES / "sample.toml")
        bad = sum(part.defect_type is not None for part in plan_sample(settings.data.sample_images))
        calibration_bad = bad * settings.data.calibration_fraction
        point = settings.operating_point
        # Clopper-Pearson without an escape: (1 - rate)^n <= 1 - confidence
        assert (1 - point.max_escape_rate) ** calibration_bad <= 1 - point.confidence

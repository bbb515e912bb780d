"""The inspector's settings: from file, nucleus and flags, checked at once, followed while it runs."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import settings_table

from edge.configuration import Configuration, is_live
from edge.errors import SettingsError
from edge.settings import InspectorSettings, changes, default_thing, read_file, read_settings, set_value
from edge.topics import THING

LEAST: dict[str, Any] = {"model": "package", "state": "state", "source": {"uri": "folder:parts"}}


def test_defaults_need_only_a_model_and_a_source() -> None:
    settings = read_settings({"model": "package", "source": {"uri": "folder:parts"}})
    assert settings.sink == "file"
    assert settings.thing == default_thing()
    assert settings.file.path == f"{settings.state}/results.jsonl"
    assert Path(settings.state).is_absolute()  # found from the files, not from the working directory
    assert settings.check() == []


def test_later_documents_win_table_by_table() -> None:
    first = {**LEAST, "review": {"audit_share": 0.5, "max_per_hour": 7}, "deadline_ms": 100}
    settings = read_settings(first, {"review": {"audit_share": 0.25}}, {"deadline_ms": "300"})
    assert (settings.review.audit_share, settings.review.max_per_hour) == (0.25, 7)
    assert settings.deadline_ms == 300.0


def test_values_may_come_as_strings_as_recipes_give_them() -> None:
    recipe = {
        "workers": "2",
        "deadline_ms": "250",
        "source": {"folder": {"once": "true", "suffixes": ".jpg, .png"}},
        "spool": {"quota_bytes": "20000000.0"},
    }
    settings = read_settings(LEAST, recipe)
    assert settings.workers == 2
    assert settings.source.folder.once is True
    assert settings.source.folder.suffixes == (".jpg", ".png")
    assert settings.spool.quota_bytes == 20_000_000


def test_every_fault_is_named_at_once() -> None:
    wrong = {
        "workers": "many",
        "deadline_ms": True,
        "colour": "red",
        "source": {"folder": {"once": "perhaps", "speed": 3}},
        "spool": 5,
        "threads": 1.5,
        "review": {"audit_share": "nan"},
        "topic_root": "a b",  # the form is right, the value is not
    }
    with pytest.raises(SettingsError) as error:
        read_settings(LEAST, wrong)
    text = str(error.value)
    assert "\n  topic_root: want" in text
    assert text.count("\n  workers: ") == 1
    for name in ("workers", "deadline_ms", "colour", "source.folder.once", "source.folder.speed", "spool", "threads"):
        assert f"\n  {name}: " in text
    assert "review.audit_share: want float, found 'nan'" in text


def test_values_out_of_range_are_named_with_their_table() -> None:
    wrong = {"workers": 0, "thing": "a/b", "line": "UPPER", "sink": "pigeon", "review": {"audit_share": 2}, "model": ""}
    with pytest.raises(SettingsError) as error:
        read_settings(LEAST, wrong)
    for name in ("workers", "thing", "line", "sink", "review.audit_share", "model"):
        assert f"\n  {name}: want" in str(error.value)


def test_a_camera_that_is_triggered_may_not_wait_for_a_frame_beyond_the_deadline() -> None:
    camera = {"uri": "v4l2:/dev/video0", "trigger": {"kind": "gpio"}, "camera": {"timeout_ms": 300}}
    with pytest.raises(
        SettingsError, match=r"source.camera.timeout_ms: want at most deadline_ms, 200, or 0 .* found 300"
    ):
        read_settings(LEAST, {"source": camera, "deadline_ms": 200})
    assert read_settings(LEAST, {"source": camera, "deadline_ms": 300}).deadline_ms == 300
    read_settings(LEAST, {"source": {**camera, "trigger": {"kind": "interval"}}, "deadline_ms": 200})
    read_settings(LEAST, {"source": {**camera, "camera": {}}, "deadline_ms": 200})


def test_only_the_chosen_transport_must_be_complete() -> None:
    assert read_settings(LEAST, {"sink": "none"}).mqtt.host == ""
    with pytest.raises(SettingsError, match=r"mqtt\.host"):
        read_settings(LEAST, {"sink": "mqtt"})


def test_a_file_is_toml_or_json(tmp_path: Path) -> None:
    as_json = tmp_path / "a.json"
    as_json.write_text(json.dumps(LEAST), encoding="utf-8")
    assert read_settings(read_file(as_json)).model == "package"
    as_toml = tmp_path / "a.toml"
    as_toml.write_text('model = "p"\n[source]\nuri = "folder:x"\n[source.folder]\nonce = true\n', encoding="utf-8")
    assert read_settings(read_file(as_toml)).source.folder.once is True


def test_a_file_that_cannot_be_read_is_said_by_name(tmp_path: Path) -> None:
    for name, content in (("a.json", b"{"), ("b.json", b"\xff"), ("c.json", b"[1]"), ("d.json", None)):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SettingsError, match=name):
            read_file(path)


def test_the_things_name_can_be_a_topic() -> None:
    assert THING.fullmatch(default_thing())


def test_changes_name_what_differs() -> None:
    old = read_settings(LEAST)
    new = dataclasses.replace(old, workers=3, review=dataclasses.replace(old.review, audit_share=0.5))
    assert changes(old, new) == {"workers": 3, "review.audit_share": 0.5}
    assert is_live("review.audit_share")
    assert not is_live("workers")


def test_a_changed_file_is_followed_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "inspector.json"
    write(path, LEAST)
    configuration = Configuration({"threads": 2}, path)
    assert configuration.poll() is None
    write(path, {**LEAST, "deadline_ms": 111, "workers": 4, "threads": 9})
    changed = configuration.poll()
    assert changed is not None
    assert changed[0].deadline_ms == 111
    assert changed[0].threads == 2  # flags beat the file
    assert changed[1] == ["workers"]  # needs a restart
    write(path, {**LEAST, "deadline_ms": "soon"})
    assert configuration.poll() is None
    assert "deadline_ms" in configuration.fault
    assert configuration.settings.deadline_ms == 111
    path.unlink()
    assert configuration.poll() is None
    assert "cannot read" in configuration.fault
    write(path, {**LEAST, "deadline_ms": 222, "workers": 4})
    assert configuration.poll() is not None
    assert configuration.fault == ""
    assert configuration.settings.deadline_ms == 222


def test_the_nucleus_configuration_is_followed_between_file_and_flags() -> None:
    flags: dict[str, Any] = dict(LEAST)
    set_value(flags, "review.max_per_day", 5)
    configuration = Configuration(flags, None, {"deadline_ms": "100"})
    configuration.offer({"deadline_ms": "200", "review": {"max_per_day": "9", "audit_share": "0.1"}})
    changed = configuration.poll()
    assert changed is not None
    assert changed[0].deadline_ms == 200
    assert changed[0].review.max_per_day == 5
    assert changed[0].review.audit_share == 0.1
    configuration.offer({"deadline_ms": "-3"})
    assert configuration.poll() is None
    assert "deadline_ms" in configuration.fault
    configuration.offer({"deadline_ms": "200", "review": {"max_per_day": "9", "audit_share": "0.1"}})
    assert configuration.poll() is None  # as it is already
    assert configuration.fault == ""


def test_a_deployment_with_faults_does_not_stop_the_device_at_its_next_start(tmp_path: Path) -> None:
    memory = tmp_path / "state" / "nucleus.json"
    with pytest.raises(SettingsError, match="workers"):
        Configuration(LEAST, None, {"workers": "many"}, memory)
    Configuration(LEAST, None, {"workers": "2", "deadline_ms": "50"}, memory)
    bad = Configuration(LEAST, None, {"workers": "many"}, memory)
    assert (bad.settings.workers, bad.settings.deadline_ms) == (2, 50)
    assert "workers" in bad.fault
    bad.offer({"workers": "2", "deadline_ms": "60"})
    assert bad.poll() is not None
    assert bad.fault == ""
    assert Configuration(LEAST, None, {"workers": "none"}, memory).settings.deadline_ms == 60
    memory.write_text("{", encoding="utf-8")
    with pytest.raises(SettingsError, match="workers"):
        Configuration(LEAST, None, {"workers": "many"}, memory)


def test_every_setting_is_a_plain_value_with_a_default() -> None:
    def walk(value: Any) -> None:
        for entry in dataclasses.fields(value):
            inner = getattr(value, entry.name)
            if dataclasses.is_dataclass(inner):
                walk(inner)
            else:
                assert isinstance(inner, str | int | float | bool | tuple), entry.name

    walk(InspectorSettings())


def write(path: Path, document: dict[str, Any]) -> None:
    """Replace a file, as a careful writer does."""
    staged = path.with_suffix(".new")
    staged.write_text(json.dumps(document), encoding="utf-8")
    staged.replace(path)


def test_the_table_of_settings_on_the_page_is_that_of_the_code() -> None:
    text = settings_table.PAGE.read_text(encoding="utf-8")
    assert settings_table.on_page(text) == settings_table.table(), "renew it: python tests/settings_table.py"

"""The contract file: what is read, what is refused, and that past versions stay readable."""

import json
from pathlib import Path
from typing import Any

import pytest
from golden_package import make_package

from edge.contract import SCHEMA, Contract, Roi, dump_contract, parse_contract
from edge.errors import ContractError

PAST = Path(__file__).with_name("golden") / "contract-1.0.json"


def document(**changes: Any) -> dict[str, Any]:
    return {**json.loads(PAST.read_text(encoding="utf-8")), **changes}


def changed(path: str, value: Any) -> str:
    """The golden contract as text with one field changed, named by its dotted path."""
    content = document()
    *parents, name = path.split(".")
    target = content
    for parent in parents:
        target = target[parent]
    target[name] = value
    return json.dumps(content)


def test_a_contract_of_schema_1_0_stays_readable() -> None:
    contract = parse_contract(PAST.read_text(encoding="utf-8"))
    assert contract.schema == "1.0"
    assert contract.line == "tiny"
    assert contract.defect_types == ("scratch", "stain")
    assert contract.input.resize == "letterbox"
    assert contract.input.roi == Roi(left=1, top=2, width=90, height=80)
    assert contract.operating_point.lower == -4.0
    assert contract.operating_point.on_error == "reject"
    assert contract.self_test.images[1].file == "golden/part-1.png"
    assert len(contract.drift_reference.score) == 11


def test_a_contract_reads_back_as_it_was_written(tmp_path: Path) -> None:
    text = (make_package(tmp_path / "package") / "contract.json").read_text(encoding="utf-8")
    contract = parse_contract(text)
    assert isinstance(contract, Contract)
    assert contract.schema == SCHEMA
    assert dump_contract(contract) == text


def test_another_major_version_is_refused() -> None:
    for schema in ("2.0", "0.9"):
        with pytest.raises(ContractError, match=rf"schema {schema} has another major version than 1.*update"):
            parse_contract(json.dumps(document(schema=schema)))


@pytest.mark.parametrize("schema", [None, 1.0, "1", "one", "1.0.0"])
def test_a_version_that_is_no_version_is_refused(schema: Any) -> None:
    with pytest.raises(ContractError, match=r"schema: want major\.minor"):
        parse_contract(json.dumps(document(schema=schema)))


def test_unknown_fields_of_a_newer_minor_are_ignored() -> None:
    content = document(schema="1.7", invented="later")
    content["input"]["also_invented"] = [1, 2]
    assert parse_contract(json.dumps(content)).schema == "1.7"


def test_an_unknown_requirement_is_refused() -> None:
    for requires in (["anomaly-map"], "anomaly-map"):
        with pytest.raises(ContractError, match=r"requires .*anomaly-map.*which this program does not know"):
            parse_contract(json.dumps(document(schema="1.7", requires=requires)))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("operating_point.lower", 9.0, "operating_point: want lower <= upper, found 9.0 and 1.0"),
        ("operating_point.lower", "low", "lower: want float, found 'low'"),
        ("operating_point.upper", 10**400, "upper: want a finite number"),
        ("operating_point.on_error", "pass", r"on_error: want one of \['reject', 'review'\], found 'pass'"),
        ("operating_point.autonomous", 1, "autonomous: want bool, found 1"),
        ("calibration.temperature", 0, "calibration.temperature: want > 0"),
        ("self_test.images", [], "self_test.images: want at least one golden image"),
        ("self_test.tolerance", -1.0, "self_test.tolerance: want >= 0"),
        ("input.width", 0, "input: want a positive size"),
        ("input.width", True, "width: want int, found True"),
        ("input.resize", "stretch", "resize: want one of"),
        ("input.white_level", 0, "input.white_level: want 1 to 65535, found 0"),
        ("input.roi", {"left": -1, "top": 0, "width": 5, "height": 5}, "input.roi: want a region inside the picture"),
        ("defect_types", "scratch", "defect_types: want a list, found 'scratch'"),
        ("files", ["model.tflite"], "files: want an object"),
        ("guard", None, "guard: want an object, found None"),
    ],
)
def test_a_field_that_makes_no_sense_is_named(path: str, value: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        parse_contract(changed(path, value))


def test_a_number_that_is_not_finite_is_refused() -> None:
    text = PAST.read_text(encoding="utf-8").replace('"lower": -4.0', '"lower": NaN')
    assert "NaN" in text
    with pytest.raises(ContractError, match="lower: want a finite number, found nan"):
        parse_contract(text)


def test_a_missing_field_and_what_is_no_json_are_named_with_the_file() -> None:
    content = document()
    del content["calibration"]
    with pytest.raises(ContractError, match=r"here/contract\.json: calibration is missing"):
        parse_contract(json.dumps(content), "here/contract.json")
    for text in ("", "{", "[]", "null"):
        with pytest.raises(ContractError, match=r"here/contract\.json: (not valid JSON|want a JSON object)"):
            parse_contract(text, "here/contract.json")

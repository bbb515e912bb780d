"""Settings of one line: `line.toml` read into frozen dataclasses and checked once.

A section of the file is a dataclass here. Unknown keys and wrong types are refused: the message names the file,
the key, what was wanted and what was found.
"""

import dataclasses
import hashlib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from edge.contract import InputContract, Roi
from inspection.errors import SettingsError
from inspection.settings_faults import describe_fault, find_faults, find_line, name_type

REPOSITORY = Path(__file__).resolve().parents[2]

GOOD_LABELS = ("good", "ok", "normal", "pass", "0", "false")  # as inspection.dataset.options has them
BAD_LABELS = (
    *("bad", "nok", "ng", "not ok", "anomaly", "anomalous", "abnormal", "defect", "defective", "fail", "1", "true"),
)
Fraction = Annotated[float, Field(gt=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Whole = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
Backbone = Literal["mobilenet_v2", "mobilenet_v3_small", "resnet18", "efficientnet_b0", "squeezenet1_1"]
Recipe = Literal["auto", "frozen", "finetune", "both"]

_section = dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False))


@_section
class LineSettings:
    """Which line this is and where its data lives."""

    name: str  # lower-case letters, digits, hyphens; at most 32: it enters topics, prefixes, component names
    storage: str = ""  # folder (relative: in the repository) or s3://bucket/prefix; "" = .lineside/
    topic_root: str = "lineside"  # first part of every MQTT topic


@_section
class ColumnSettings:
    """How the columns of a CSV or JSONL list are called."""

    path: Text = "path"  # of the image, relative to the list, absolute, or below a prefix of [data] map
    label: Text = "label"
    defect_type: Text = "defect_type"
    mask: Text = "mask"
    group: Text = "group"
    lot: Text = "lot"
    station: Text = "station"
    view: Text = "view"
    split: Text = "split"


@_section
class DataSettings:
    """Where the images are, how they are read, what is checked and how they are divided."""

    source: str = ""  # folder, list or manifest of images; "sample" = the built-in generator; --data beats it
    format: str = ""  # how the set is laid out, such as "folder", "mvtec", "csv", "manifest"; "" = found by looking
    map: list[str] = field(default_factory=list)  # "s3://bucket/prefix=folder": where a manifest's images lie here
    columns: ColumnSettings = field(default_factory=ColumnSettings)
    good_labels: list[str] = field(default_factory=lambda: list(GOOD_LABELS))  # spellings, in any case
    bad_labels: list[str] = field(
        default_factory=lambda: list(BAD_LABELS)
    )  # spellings, in any case; one of your own also names the defect type, and "*" takes every other label for one
    drop_bad_images: bool = False  # leave out images that cannot be decoded, and list them, instead of stopping
    group_near_duplicates: bool = False  # keep pictures of one capture in one split
    suspicious_labels: bool = False  # also look for images whose nearest neighbours bear the other label; takes longer
    group_pattern: str = ""  # regular expression on the path; its first group names the part or lot; "" = each image
    calibration_fraction: Fraction = 0.25  # share of all images that sets the thresholds
    holdout_fraction: Fraction = 0.25  # share of all images that judges the model; a shipped validation set beats it
    min_images_per_class: Count = 10  # fewer good or fewer bad images stop the flow
    sample_images: Count = 400  # size of the built-in sample
    sample_seed: Whole = 0  # seed of the built-in sample


@_section
class InputSettings:
    """What the model sees of a picture."""

    width: Annotated[int, Field(ge=32, le=512)] = 224  # px
    height: Annotated[int, Field(ge=32, le=512)] = 224  # px
    resize: Literal["squash", "letterbox", "center-crop"] = "squash"  # what to do when the aspect ratio differs
    roi: Annotated[list[int], Field(max_length=4)] = field(
        default_factory=list
    )  # [left, top, width, height] px; [] = all
    white_level: Annotated[int, Field(ge=255, le=65535)] = 65535  # 16-bit images: raw value that becomes 255
    guard_margin: Positive = 0.5  # how far outside the range seen in training a picture may lie, in ranges

    def contract(self) -> InputContract:
        """The part of these settings that the device must follow."""
        roi = Roi(*self.roi) if self.roi else None
        return InputContract(
            width=self.width, height=self.height, resize=self.resize, roi=roi, white_level=self.white_level
        )


@_section
class AugmentationSettings:
    """Which changes of a picture leave the part good or bad as it was."""

    horizontal_flip: bool = True
    vertical_flip: bool = True
    rotation_deg: Annotated[float, Field(ge=0, le=45)] = 5.0  # largest, to either side
    scale: Annotated[float, Field(ge=0, le=0.5)] = 0.05  # largest change of size, as a share
    shift: Annotated[float, Field(ge=0, le=0.5)] = 0.03  # largest, as a share of the width and height
    brightness: Annotated[float, Field(ge=0, le=0.5)] = 0.1  # largest, as a share of full scale
    contrast: Annotated[float, Field(ge=0, le=0.9)] = 0.1  # largest relative change
    noise: Annotated[float, Field(ge=0, le=64)] = 2.0  # standard deviation, grey levels of 255


@_section
class TrainingSettings:
    """How the classifier is trained."""

    backbone: Backbone = "mobilenet_v2"
    weights: Text = "imagenet"  # "imagenet" (torchvision's download), a file of a state dict, or "none"
    recipe: Recipe = "auto"  # frozen features + logistic head, fine-tuning, both averaged, or a comparison of them
    folds: Annotated[int, Field(ge=2, le=10)] = 3  # of the cross-validation that compares recipes
    epochs: Count = 15  # of fine-tuning, at most
    batch_size: Count = 16
    learning_rate: Positive = 1e-3  # of the head when fine-tuning; the backbone gets a tenth of it
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    patience: Count = 4  # epochs without progress after which fine-tuning stops
    views: Count = 4  # augmented views per image that the frozen recipe learns from
    fixed_pose: bool = False  # parts always lie the same way: also learn what is normal at each place (needs no flips)
    seed: Whole = 0
    max_minutes: Annotated[float, Field(ge=0)] = 0.0  # of all training of a run together, roughly; 0 = no limit
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)


@_section
class ExportSettings:
    """What ships, and what it must prove first."""

    target: Literal["int8", "float32"] = "int8"
    parity_images: Annotated[int, Field(ge=100)] = 1000  # compared at least; augmented copies fill up
    max_auroc_loss: Fraction = 0.005  # of the converted model against the trained one
    max_flip_rate: Fraction = 0.01  # images on the other side of the trained model's best threshold
    min_correlation: Fraction = 0.98  # of the scores
    confidence: Fraction = 0.95  # of the bounds printed
    jpeg_gate: Literal["warn", "stop"] = "warn"  # when raw frames and their own JPEGs get other verdicts beyond chance
    device_python: str = ""  # interpreter with the device's packages; "" = .venv-edge when it exists, else this one
    device_benchmark: str = ""  # file with the output of `python -m edge --benchmark` on a device; "" = not measured


@_section
class OperatingPointSettings:
    """What may go wrong, and how sure to be of it."""

    max_escape_rate: Fraction = 0.05  # of bad parts, passed
    max_overkill_rate: Fraction = 0.05  # of good parts, failed
    max_review_rate: Annotated[float, Field(gt=0, le=1)] = 0.10  # of all parts, at expected_defect_rate
    confidence: Fraction = 0.95  # of the bounds on the rates
    priority: Annotated[list[Literal["escape", "overkill", "review"]], Field(min_length=3, max_length=3)] = field(
        default_factory=lambda: ["escape", "overkill", "review"]
    )  # the last gives way first
    review_action: Literal["review", "fail", "pass"] = "review"  # what happens to a part under review
    on_error: Literal["reject", "review"] = "reject"  # what happens to a part without a trustworthy score
    expected_defect_rate: Fraction = 0.01  # on the line, for predictions per 1,000 parts
    escape_cost: Positive = 100.0  # of one escape, in units of one false alarm
    review_cost: Positive = 0.2  # of one review, in units of one false alarm


@_section
class RegistrySettings:
    """Where model versions are kept."""

    backend: Literal["local", "sagemaker"] = "local"  # objects under the line's storage, or SageMaker Model Registry
    prefix: Text = "lineside"  # sagemaker: the model package group of a line is <prefix>-<line>
    region: str = ""  # sagemaker: AWS region; "" = the environment's
    kms_key: str = ""  # key (id, alias or ARN) that encrypts archives (sagemaker) and components (greengrass) in S3;
    # "" = the bucket's default
    container_image: str = ""  # sagemaker: image URI of the inference specification, which SageMaker asks for


@_section
class LocalFleetSettings:
    """Devices on this machine: folders with processes, for trying things out and for tests."""

    folder: str = ""  # of the devices (relative: in the repository); "" = fleet/devices/<line> in the line's storage
    groups: dict[Text, list[Text]] = field(
        default_factory=lambda: {"canary": ["device-1"], "fleet": ["device-2", "device-3"]}
    )  # devices of each thing group; a group is named as canary_group and wave_groups name it
    parts: str = ""  # what the devices see: "sample" = ever new parts of the sample line, a folder of images to go
    # round in, or "" = only what is put into their inbox folders
    parts_per_minute: Positive = 120.0  # for each device


@_section
class FleetSettings:
    """Where models are deployed, how, and what stops a deployment."""

    backend: Literal["local", "greengrass"] = "local"  # devices on this machine, or AWS IoT Greengrass v2
    region: str = ""  # greengrass: AWS region; "" = the environment's
    nucleus: Literal["lite", "classic"] = "lite"  # greengrass: kind of nucleus on the devices
    component_prefix: Text = "lineside"  # components are <prefix>.Runtime, <prefix>.Model.<line>, …
    publisher: Text = "Lineside"  # of the components
    architectures: list[Literal["aarch64", "amd64", "arm"]] = field(
        default_factory=list
    )  # of the devices, as Greengrass names them; [] = local: this machine's; greengrass: aarch64 and amd64
    pythons: list[Literal["3.10", "3.11", "3.12", "3.13"]] = field(
        default_factory=list
    )  # of the devices; [] = local: this one; greengrass: 3.11 (Debian 12) and 3.13 (Debian 13)
    wheels: str = ""  # folder of wheels (relative: in the repository); "" = fetched
    runtime_extras: list[Literal["camera", "gpio", "upload"]] = field(
        default_factory=list
    )  # Python packages of the runtime besides those that [fleet.inspector] needs, for devices that are set otherwise
    canary_group: Text = "canary"  # thing group that gets a model first
    wave_groups: list[Text] = field(default_factory=lambda: ["fleet"])  # thing groups after it, one after the other
    comparison: Literal["shadow", "live", "none"] = "shadow"  # how a challenger is compared on the canaries
    shadow_parts: Count = 500  # parts that champion and challenger both judge before one is chosen, at most
    canary_parts: Count = 50  # parts that each canary must have inspected with the new model
    wave_parts: Count = 1  # parts that each device of a wave must have inspected before the next wave
    max_disagreement: Fraction = 0.05  # of parts: one model accepts, the other does not
    max_reject_shift: Fraction = 0.02  # change of the share of parts that are not accepted, either way
    max_review_shift: Fraction = 0.05  # rise of the share of parts for review
    max_error_rate: Fraction = 0.01  # of parts without a trustworthy score, above the champion's
    false_rollback_rate: Annotated[float, Field(gt=0, le=0.01)] = 0.01  # of models within these limits, rolled back
    max_failed_devices: Share = 0.0  # share of a wave's devices that may fail or stay away before it is rolled back
    canary_timeout_minutes: Positive = 1440.0  # a canary that has not seen its parts by then: rolled back
    wave_timeout_minutes: Positive = 1440.0  # for one wave
    poll_seconds: Positive = 30.0  # between two looks at the devices
    devices_per_minute: Annotated[int, Field(ge=1, le=1000)] = 50  # greengrass: that get a deployment at once
    memory_mb: Annotated[int, Field(ge=64)] = 512  # limit for the inspector and its uploader
    cpus: Positive = 1.0  # limit for them, cores
    notify: str = ""  # ARN of an SNS topic; "" = a file in the line's storage
    notify_region: str = ""  # of the topic; "" = as region
    inspector: dict[str, Any] = field(default_factory=dict)  # settings of the inspector, see docs/inspector.md
    local: LocalFleetSettings = field(default_factory=LocalFleetSettings)


@_section
class FeedbackSettings:
    """How doubtful images come back; filled by the retrain flow."""

    backend: Literal["local"] = "local"


@_section
class Settings:
    """All settings of one line."""

    line: LineSettings
    data: DataSettings = field(default_factory=DataSettings)
    input: InputSettings = field(default_factory=InputSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    export: ExportSettings = field(default_factory=ExportSettings)
    operating_point: OperatingPointSettings = field(default_factory=OperatingPointSettings)
    registry: RegistrySettings = field(default_factory=RegistrySettings)
    fleet: FleetSettings = field(default_factory=FleetSettings)
    feedback: FeedbackSettings = field(default_factory=FeedbackSettings)

    @property
    def storage_root(self) -> str:
        """Folder or s3:// prefix under which everything of every line is kept.

        A relative folder lies in the repository, so that it is the same one from every working directory.
        """
        if self.line.storage.startswith("s3://"):
            return self.line.storage
        return str(REPOSITORY / Path(self.line.storage or ".lineside").expanduser())

    @property
    def local_fleet_folder(self) -> Path:
        """Folder of the devices on this machine; those of lines with a storage of their own lie in that storage."""
        if self.fleet.local.folder:
            return REPOSITORY / Path(self.fleet.local.folder).expanduser()
        storage = ".lineside" if self.line.storage.startswith("s3://") else self.storage_root
        return REPOSITORY / storage / "fleet" / "devices" / self.line.name

    def digest(self, *sections: str) -> str:
        """Sha256 (hex) of the named sections, the same on every machine."""
        content = {name: dataclasses.asdict(getattr(self, name)) for name in sections}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def parse_settings(document: Mapping[str, Any], where: str, text: str = "") -> Settings:
    """Check a parsed `line.toml`.

    Args:
        document: section name to section, as `tomllib` gives it.
        where: name of the file, for messages.
        text: the file's own words, so that messages name the lines.

    Raises:
        SettingsError: an unknown key, a wrong type, a value out of range; every fault is named.
    """
    try:
        settings = TypeAdapter(Settings).validate_json(json.dumps(dict(document), default=name_type))
    except ValidationError as error:
        raise _refusal(where, [describe_fault(fault, Settings) for fault in error.errors()], text) from None
    faults = find_faults(settings)
    if faults:
        raise _refusal(where, faults, text)
    return settings


def _refusal(where: str, faults: Sequence[str], text: str) -> SettingsError:
    return SettingsError(f"{where}: " + "; ".join(find_line(fault, text) + fault for fault in faults))


def load_settings(path: Path) -> Settings:
    """Read and check a `line.toml`.

    Raises:
        SettingsError: the file is missing, is not TOML or breaks a rule.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(
            f"{path}: cannot read the line's settings ({error.strerror}); copy flows/lines/line.toml and adapt it"
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{path}: want TOML in UTF-8, found byte {error.start} that is not; save it as UTF-8"
        ) from None
    return parse_settings(parse_toml(text, str(path)), str(path), text)


def override_settings(
    settings: Settings,
    data: str = "",
    weights: str = "",
    recipe: str = "",
    max_minutes: float = -1.0,
    *,
    data_flags: Mapping[str, Any] | None = None,
    storage: str = "",
    where: str = "the flow's flags",
) -> Settings:
    """The settings with the flags of a command line in their places; an empty flag changes nothing.

    Args:
        settings: as the file has them.
        data: beats `[data] source`.
        weights: beats `[training] weights`.
        recipe: beats `[training] recipe`.
        max_minutes: beats `[training] max_minutes`; negative = not given.
        data_flags: other keys of `[data]`; "", False and an empty list = not given.
        storage: beats `[line] storage`.
        where: what to call the flags in messages.

    Raises:
        SettingsError: a flag has a value that the setting may not have.
    """
    document = dataclasses.asdict(cast(Any, settings))
    flags: list[tuple[str, str, Any]] = [
        ("data", "source", data),
        ("training", "weights", weights),
        ("training", "recipe", recipe),
        ("training", "max_minutes", max_minutes if max_minutes >= 0 else ""),
        ("line", "storage", storage),
        *(("data", key, value) for key, value in (data_flags or {}).items()),
    ]
    for section, key, value in flags:
        if value not in ("", False, [], ()):
            document[section][key] = value
    return parse_settings(document, where)


def parse_toml(text: str, where: str = "line settings") -> dict[str, Any]:
    """Parse TOML with an error that names the file.

    Raises:
        SettingsError: the text is not TOML.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"{where}: not valid TOML: {error}; correct that place, flows/lines/line.toml shows how it is written"
        ) from None

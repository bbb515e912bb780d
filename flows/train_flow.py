"""From a folder of images to a verified int8 model in a registry.

    python flows/train_flow.py run                                           the built-in sample line
    python flows/train_flow.py run --data ~/images/bottles                   images of your own, default settings
    python flows/train_flow.py --config line lines/bottles.toml run          a line of your own
    python flows/train_flow.py card server                                   look at the reports

A step calls one or two functions of `inspection.train_path` and keeps what they return. Arrays and models stay in
storage, under the keys that the steps hand on.
"""

import sys
from pathlib import Path

from metaflow import (
    Config,
    FlowSpec,
    Parameter,
    card,
    current,
    package_sources,
    resources,
    retry,
    step,
    timeout,
)

from inspection.arguments import MAPS_JOINED_BY, SAMPLE_LINE, check_line, name_user, with_line, with_values
from inspection.errors import SettingsError
from inspection.known_errors import ends_clearly
from inspection.settings import Settings, override_settings, parse_settings


@package_sources("../edge", suffixes=[".py", ".txt", ".json", ".sh", ".md"])
class TrainFlow(FlowSpec):
    """Train, verify and register a model of one line."""

    line = Config(
        "line",
        default=str(Path(__file__).with_name("lines") / Path(SAMPLE_LINE).name),
        parser="inspection.settings.parse_toml",
        help="Settings of the line (TOML); copy lines/line.toml.",
    )
    data = Parameter("data", default="", help="Images: folder, list, manifest or s3:// address; beats [data] source.")
    format = Parameter("format", default="", help="How the images are laid out; beats [data] format.")
    map = Parameter("map", default="", help="PREFIX=FOLDER of a manifest's images; may be repeated.")
    drop_bad_images = Parameter("drop-bad-images", default=False, help="Leave out images that cannot be used.")
    group_near_duplicates = Parameter("group-near-duplicates", default=False, help="Keep copies in one split.")
    weights = Parameter("weights", default="", help="imagenet, none or a file; beats [training] weights.")
    recipe = Parameter("recipe", default="", help="auto, frozen, finetune or both; beats [training] recipe.")
    max_minutes = Parameter("max-minutes", default=-1.0, help="Limit of all training; beats [training] max_minutes.")

    def settings(self) -> Settings:
        """The line's settings; flags beat the file."""
        settings = parse_settings(self.line.to_dict(), "--config line")
        images = {
            "format": self.format,
            "map": [one for one in self.map.split(MAPS_JOINED_BY) if one],
            "drop_bad_images": self.drop_bad_images,
            "group_near_duplicates": self.group_near_duplicates,
        }
        return override_settings(settings, self.data, self.weights, self.recipe, self.max_minutes, data_flags=images)

    @card(id="dataset", type="blank")
    @ends_clearly
    @resources(cpu=4, memory=16000)
    @retry(times=2)
    @timeout(hours=8)
    @step
    def start(self):
        """Check the settings, the weights and every image; decode and divide them."""
        from inspection.train_path import advice, learning, reporting

        settings = self.settings()
        snapshot = learning.prepare(settings)
        self.snapshot_id = snapshot.id
        self.image_counts = learning.count_images(snapshot)
        self.recipes = learning.recipes_to_compare(settings, snapshot.id)
        current.run.add_tags(learning.tags(settings, snapshot))
        self.input_warning = advice.warn_of_small_defects(settings, snapshot)
        reporting.show_dataset(current.card["dataset"], settings, snapshot, self.input_warning)
        self.next(self.compare, foreach="recipes")

    @ends_clearly
    @resources(cpu=4, memory=16000)
    @retry(times=2)
    @timeout(hours=24)
    @step
    def compare(self):
        """Cross-validate one recipe on the training part."""
        from inspection.train_path import learning

        self.comparison = learning.compare_recipe(self.settings(), self.snapshot_id, self.input, len(self.recipes))
        self.next(self.train)

    @card(id="training", type="blank", refresh_interval=1)
    @ends_clearly
    @resources(cpu=8, memory=32000)
    @retry(times=3)
    @timeout(hours=24)
    @step
    def train(self, inputs):
        """Choose the recipe and train it on the whole training part."""
        from inspection.train_path import budget, larger_input, learning, reporting

        self.merge_artifacts(inputs, exclude=["comparison"])
        settings, card = self.settings(), current.card["training"]
        comparisons = [each.comparison for each in inputs]
        self.choice = learning.choose_recipe(settings, self.snapshot_id, comparisons)
        self.larger_input = larger_input.try_larger_input(settings, self.snapshot_id)
        spent_s = budget.spent_s(comparisons, self.larger_input)
        self.trained = learning.train_model(
            settings, self.snapshot_id, self.choice.recipe, reporting.watch_training(card), spent_s
        )
        reporting.show_trained(card, self.trained, self.larger_input)
        self.next(self.export)

    @card(id="parity", type="blank")
    @ends_clearly
    @resources(cpu=4, memory=16000)
    @retry(times=2)
    @timeout(hours=4)
    @step
    def export(self):
        """Convert to TFLite and prove that it decides as the trained model does."""
        from inspection.train_path import proving

        self.exported = proving.export_model(self.settings(), self.snapshot_id, self.trained, current.card["parity"])
        self.next(self.decide)

    @ends_clearly
    @resources(cpu=4, memory=16000)
    @retry(times=2)
    @timeout(hours=4)
    @step
    def decide(self):
        """Choose the thresholds from the calibration split, with the artifact that ships."""
        from inspection.train_path import proving

        self.decision = proving.choose_thresholds(self.settings(), self.snapshot_id, self.exported)
        self.next(self.evaluate)

    @card(id="report", type="blank")
    @ends_clearly
    @resources(cpu=4, memory=16000)
    @retry(times=2)
    @timeout(hours=4)
    @step
    def evaluate(self):
        """Judge that artifact, once, on the holdout."""
        from inspection.train_path import proving, reporting

        settings = self.settings()
        self.evaluation = proving.evaluate_holdout(settings, self.snapshot_id, self.exported, self.decision)
        self.metrics_json = self.evaluation.to_json()
        reporting.show_report(current.card["report"], settings, self, f"{current.flow_name}/{current.run_id}")
        self.next(self.register)

    @ends_clearly
    @resources(cpu=2, memory=8000)
    @retry(times=2)
    @timeout(hours=1)
    @step
    def register(self):
        """Pack what a device needs, run its self-test, and register it as pending."""
        from inspection.train_path import releasing

        self.release = releasing.release(self.settings(), self, f"{current.flow_name}/{current.run_id}")
        self.next(self.end)

    @ends_clearly
    @step
    def end(self):
        """Say what was made."""
        from inspection.train_path.summary import summarise

        self.summary = summarise(self, current.run_id)
        print(self.summary)


if __name__ == "__main__":
    name_user()
    try:
        sys.argv[1:] = with_line(with_values(sys.argv[1:]), Path(__file__))
        check_line(sys.argv[1:])
    except SettingsError as error:
        sys.exit(f"error: {error}")
    TrainFlow()

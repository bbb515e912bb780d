"""From an approved model to a healthy fleet, in stages, with a way back.

    python flows/deploy_flow.py run                                          the sample line's newest approved model
    python flows/deploy_flow.py run --model 7                                this version; an ARN works too
    python flows/deploy_flow.py run --rollback                               back to the version before
    python flows/deploy_flow.py --config line lines/bottles.toml run         a line of your own
    python flows/deploy_flow.py card server                                  watch it

A step calls one or two functions of `inspection.deploy_path` and keeps what they return. What a rollout did lies in the
line's storage, not in the run: a step that is killed and repeated, a `resume` and a new `run` all go on with it.
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

from inspection.arguments import SAMPLE_LINE, check_line, name_user, with_line, with_values
from inspection.errors import SettingsError
from inspection.known_errors import ends_clearly
from inspection.settings import Settings, parse_settings


@package_sources("../edge", suffixes=[".py", ".txt", ".json", ".sh", ".md"])
class DeployFlow(FlowSpec):
    """Bring a model to the devices of one line."""

    line = Config(
        "line",
        default=str(Path(__file__).with_name("lines") / Path(SAMPLE_LINE).name),
        parser="inspection.settings.parse_toml",
        help="Settings of the line (TOML); copy lines/line.toml.",
    )
    model = Parameter("model", default="", help="Registry version or model package ARN; default: newest approved.")
    rollback = Parameter(
        "rollback", default=False, help="Withdraw the model that serves, and go back to the one before."
    )
    by = Parameter("by", default="", help="Who wants it, for the record; default: the user who runs the flow.")
    why = Parameter("why", default="", help="The reason, for the record.")

    def settings(self) -> Settings:
        """The line's settings."""
        return parse_settings(self.line.to_dict(), "--config line")

    @ends_clearly
    @resources(cpu=1, memory=4000)
    @retry(times=2)
    @timeout(hours=1)
    @step
    def start(self):
        """Choose the version, and refuse here what could not work, before anything is changed."""
        from inspection.deploy_path import choosing

        request = choosing.Request(self.model, self.rollback, self.by or current.username, self.why)
        self.choice = choosing.choose(self.settings(), request, current)
        current.run.add_tags(choosing.tags(self.choice))
        self.next(self.publish)

    @ends_clearly
    @resources(cpu=2, memory=8000)
    @retry(times=3)
    @timeout(hours=2)
    @step
    def publish(self):
        """Build the components, and publish those that the fleet does not have."""
        from inspection.deploy_path import publishing

        self.published = publishing.publish(self.settings(), self.choice)
        self.next(self.canary)

    @card(id="rollout", type="blank", refresh_interval=1)
    @ends_clearly
    @resources(cpu=1, memory=4000)
    @retry(times=4)
    @timeout(hours=72)
    @step
    def canary(self):
        """Run the new model beside the old one, then alone, on the canary group; or take it back."""
        from inspection.deploy_path import reporting, rolling

        show = reporting.watch(current.card["rollout"], self.settings(), self.choice, self.published)
        self.canary_outcome = rolling.run_canary(self.settings(), self.choice, self.published, current, show)
        self.next(self.fleet)

    @card(id="rollout", type="blank", refresh_interval=1)
    @ends_clearly
    @resources(cpu=1, memory=4000)
    @retry(times=4)
    @timeout(hours=72)
    @step
    def fleet(self):
        """Go on to the other groups, wave by wave, unless it was taken back; tell the outcome."""
        from inspection.deploy_path import reporting, rolling

        show = reporting.watch(current.card["rollout"], self.settings(), self.choice, self.published)
        self.outcome = rolling.run_waves(self.settings(), self.choice, self.published, current, show)
        reporting.show_outcome(current.card["rollout"], self.settings(), self.choice, self.published)
        self.next(self.end)

    @ends_clearly
    @step
    def end(self):
        """Say what serves now; a model that was taken back ends the run in red."""
        from inspection.deploy_path import reporting

        self.summary = reporting.summarise(self.settings(), self.choice, self.outcome, current.run_id)
        print(self.summary)
        reporting.refuse_unless_deployed(self.choice, self.outcome)


if __name__ == "__main__":
    name_user()
    try:
        sys.argv[1:] = with_line(with_values(sys.argv[1:]), Path(__file__))
        check_line(sys.argv[1:])
    except SettingsError as error:
        sys.exit(f"error: {error}")
    DeployFlow()

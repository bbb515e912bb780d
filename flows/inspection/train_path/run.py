"""What the steps of the train path leave behind for those after them: the artifacts of a run."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from inspection.decision.evaluation import Evaluation
    from inspection.model.selection import RecipeChoice
    from inspection.train_path.larger_input import LargerInput
    from inspection.train_path.learning import TrainedModel
    from inspection.train_path.proving import Decision, Exported
    from inspection.train_path.releasing import Release


class TrainRun(Protocol):
    """A flow on the train path, or anything else that holds its artifacts."""

    snapshot_id: str
    choice: "RecipeChoice"
    larger_input: "LargerInput | None"
    trained: "TrainedModel"
    exported: "Exported"
    decision: "Decision"
    evaluation: "Evaluation"
    release: "Release"  # once it is registered

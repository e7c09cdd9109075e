"""MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from dlp_plugins.registry import trackers
from dlp_plugins.trackers._accelerate import AccelerateTracker
from dlp_plugins.trackers.contract import Metrics


@trackers.register("mlflow", requires=("mlflow",), extra="mlflow")
class Mlflow(AccelerateTracker):
    """Parameters and metrics in an MLflow experiment; a resumed run goes on in the same one."""

    def __init__(
        self,
        folder: Path,
        experiment: Annotated[str, Field(description="the experiment's name")] = "dlp-plugins",
        tracking_uri: Annotated[
            str | None,
            Field(description="server or store; by default MLFLOW_TRACKING_URI or MLflow's own"),
        ] = None,
    ) -> None:
        super().__init__(folder)
        self.experiment, self.tracking_uri = experiment, tracking_uri

    def _open(self, name: str, resumed: bool) -> Any:
        import mlflow
        from accelerate.tracking import MLflowTracker

        if self.tracking_uri is not None:
            mlflow.set_tracking_uri(self.tracking_uri)
        run_id = self._run_id.read_text().strip() if resumed and self._run_id.is_file() else None
        return MLflowTracker(self.experiment, run_name=name, run_id=run_id)

    def begin(self, name: str, settings: dict[str, Any], history: Sequence[Metrics]) -> None:
        super().begin(name, settings, history)
        self._run_id.write_text(self._tracker.tracker.info.run_id)

    @property
    def _run_id(self) -> Path:
        """Where the MLflow run's id is kept for a resumed run."""
        return self.folder / "mlflow_run_id"

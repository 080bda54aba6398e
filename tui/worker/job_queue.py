"""The order of work, without a screen: what is open, what runs, what waits."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Generic, TypeVar

from longmamba_mlx.events import ReadDone
from longmamba_mlx.tui.worker.jobs import Ask, Job, Open, Switch, UseModel

View = TypeVar("View")


@dataclass(frozen=True, slots=True, eq=False)
class Task(Generic[View]):
    """A job and, for a question, the view that shows it."""

    job: Job
    view: View | None = None


class JobQueue(Generic[View]):
    """Runs one task at a time, in order; questions wait for a document."""

    def __init__(self) -> None:
        self.document: ReadDone | None = None
        self.running: Task[View] | None = None
        self.waiting: deque[Task[View]] = deque()
        self.paths: tuple[str, ...] = ()  # of the open document
        self.last_paths: tuple[str, ...] = ()  # of the one that was begun last
        self._read_now = False

    @property
    def reading(self) -> bool:
        """Whether a document is being read now, so that questions have to wait."""
        return self.running is not None and isinstance(self.running.job, Open | UseModel)

    @property
    def coming_paths(self) -> tuple[str, ...]:
        """Files of the document that will be open when all waiting tasks are done."""
        tasks = [*([self.running] if self.running is not None else []), *self.waiting]
        return next((task.job.paths for task in reversed(tasks) if isinstance(task.job, Open | Switch)), self.paths)

    def add(self, task: Task[View]) -> None:
        """Append a task."""
        self.waiting.append(task)

    def start_next(self) -> Task[View] | None:
        """Start the first task that can run; None when none can, or one runs already."""
        if self.running is not None:
            return None
        for task in self.waiting:
            if not isinstance(task.job, Ask) or self.document is not None:
                self.waiting.remove(task)
                self.running = task
                if isinstance(task.job, Open):
                    self.last_paths, self._read_now = task.job.paths, False
                return task
        return None

    def read_done(self, event: ReadDone) -> None:
        """Note that the running task's document is ready for questions."""
        self.document, self._read_now = event, True
        if self.running is not None and isinstance(self.running.job, Open):
            self.paths = self.running.job.paths

    def finish(self) -> tuple[Task[View] | None, list[View]]:
        """The running task has ended: returns it, and the questions that lost their document.

        Questions typed while a second document was read are for that one: when its reading does not come to
        its end they are dropped, never asked of the document that is still open. With none open they wait.
        """
        task, self.running = self.running, None
        if task is None or not isinstance(task.job, Open) or self._read_now or self.document is None:
            return task, []
        return task, self.drop_questions()

    def drop_questions(self) -> list[View]:
        """Remove and return all waiting questions."""
        views = [task.view for task in self.waiting if task.view is not None]
        self.waiting = deque(task for task in self.waiting if task.view is None)
        return views

    def withdraw(self) -> View | None:
        """Remove and return the question that came last; None when none waits."""
        for task in reversed(self.waiting):
            if task.view is not None:
                self.waiting.remove(task)
                return task.view
        return None

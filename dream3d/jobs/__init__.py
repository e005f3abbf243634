"""One job runner under everything: `JobStore` for clients, a worker process for each job. See docs/jobs.md."""

from dream3d.jobs.lease import LeaseTaken
from dream3d.jobs.records import ENDED, MAX_PROMPT, STATES, Job, JobRequest, State
from dream3d.jobs.store import JobStore

__all__ = ["ENDED", "MAX_PROMPT", "STATES", "Job", "JobRequest", "JobStore", "LeaseTaken", "State"]

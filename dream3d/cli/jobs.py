"""`dream3d jobs ...`: list, show, cancel, resume and delete the jobs below a directory."""

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from dream3d.cli.options import Command, Outcome, Parser, UsageError, printable

if TYPE_CHECKING:
    from dream3d.jobs import Job

DEFAULT_ROOT = Path("outputs/app")


def add_options(name: str, parser: Parser) -> Command:
    """Declare the command's options; returns what runs it."""
    action = name.split()[1]
    parser.add_argument(
        "--root",
        type=Path,
        default=DEFAULT_ROOT,
        metavar="DIR",
        help="where the jobs are: of the web page by default, of a batch DIR/jobs",
    )
    if action == "list":
        parser.description = "All jobs, the newest first."
        parser.add_argument("--state", help="only those: queued, running, done, failed, ...")
        return _list
    parser.add_argument("job", help="id of a job")
    if action == "show":
        parser.description = "A job and what happened to it."
        return _show
    parser.description = {
        "cancel": "Stop a job; it saves a checkpoint and what there is.",
        "resume": "Go on with a job that was cancelled, failed or lost.",
        "delete": "Remove a job and all its files.",
    }[action]
    return {"cancel": _cancel, "resume": _resume, "delete": _delete}[action]


def _list(arguments: argparse.Namespace) -> Outcome:
    from dream3d.jobs import STATES, JobStore

    if arguments.state not in (None, *STATES):
        raise UsageError(f"--state is '{arguments.state}'; choose one of {', '.join(STATES)}")
    found = JobStore(arguments.root).list_jobs()
    jobs = [job for job in found if arguments.state in (None, job.state)]
    lines = [
        f"{job.id}  {job.state:9}  {job.step:5}/{job.steps:<5}  {printable(job.request.prompt[:60])}"
        for job in jobs
    ]
    return Outcome({"jobs": [job.as_data() for job in jobs]}, "\n".join(lines) or "no jobs")


def _show(arguments: argparse.Namespace) -> Outcome:
    from dream3d.jobs import JobStore

    store = JobStore(arguments.root)
    job = store.status(arguments.job)
    events, _ = store.events(job.id)
    lines = [
        f"{job.id}  {job.state}{': ' + job.message if job.message else ''}",
        f"  {printable(job.request.prompt)}",
        f"  preset {job.request.preset}, step {job.step} of {job.steps}, attempts {job.attempts}",
        f"  {store.run_path(job.id)}",
    ]
    for event in events:
        told = " ".join(f"{k}={v}" for k, v in event.items() if k not in ("time", "event"))
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.get("time", 0)))
        lines.append(f"  {clock}  {event.get('event')}  {printable(told)}".rstrip())
    run = str(store.run_path(job.id))
    return Outcome({"job": job.as_data(), "run": run, "events": events}, "\n".join(lines))


def _cancel(arguments: argparse.Namespace) -> Outcome:
    from dream3d.jobs import JobStore

    store = JobStore(arguments.root)
    store.cancel(arguments.job)
    return _standing(store.status(arguments.job))


def _resume(arguments: argparse.Namespace) -> Outcome:
    from dream3d.jobs import JobStore

    store = JobStore(arguments.root)
    store.resume(arguments.job)
    return _standing(store.status(arguments.job))


def _delete(arguments: argparse.Namespace) -> Outcome:
    from dream3d.jobs import JobStore

    JobStore(arguments.root).delete(arguments.job)
    return Outcome({"deleted": arguments.job}, f"{arguments.job} deleted")


def _standing(job: "Job") -> Outcome:
    return Outcome({"job": job.as_data()}, f"{job.id}  {job.state}")

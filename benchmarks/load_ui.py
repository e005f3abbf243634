"""Load on the web server: 50 queued jobs, 20 clients that each ask for their job once a second, as the page does.

    python benchmarks/load_ui.py [--seconds 60]

Prints the answers' median and 95th percentile in milliseconds and the server's memory early and late, as JSON. The jobs
stay queued: what is measured is the server, not the optimisation beside it.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

JOBS, CLIENTS = 50, 20
SERVE = """
import os, sys
from pathlib import Path
os.environ["GRADIO_TEMP_DIR"] = sys.argv[1] + "/cache"
from dream3d.ui.server import Address, Server
server = Server(Path(sys.argv[1]) / "app", Address(port=int(sys.argv[2])))
server.store.tend = list
server.run()
"""


def ask(url: str, body: dict | None = None) -> dict:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def resident_megabytes(pid: int) -> float:
    """Linux only."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


def poll(url: str, until: float, spent: list[float], failures: list[str]) -> None:
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            ask(url)
        except OSError as error:
            failures.append(str(error))
        spent.append(time.monotonic() - began)
        time.sleep(max(0.0, 1.0 - spent[-1]))


def measure(server: str, pid: int, seconds: float) -> dict:
    body = {"prompt": "a mug", "preset": "gaussian"}
    jobs = [ask(f"{server}/api/jobs", body)["job"]["id"] for _ in range(JOBS)]
    spent: list[float] = []
    failures: list[str] = []
    until = time.monotonic() + seconds
    clients = [
        threading.Thread(target=poll, args=(f"{server}/api/jobs/{job}", until, spent, failures))
        for job in jobs[-CLIENTS:]
    ]
    for client in clients:
        client.start()
    time.sleep(seconds / 3)
    early = resident_megabytes(pid)
    for client in clients:
        client.join()
    return {
        "jobs": JOBS,
        "clients": CLIENTS,
        "answers": len(spent),
        "failures": len(failures),
        "median_ms": round(1000 * statistics.median(spent), 1),
        "p95_ms": round(1000 * statistics.quantiles(spent, n=20)[-1], 1),
        "megabytes_early": early,
        "megabytes_late": resident_megabytes(pid),
        "load_average": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--port", type=int, default=7999)
    arguments = parser.parse_args()
    server = f"http://127.0.0.1:{arguments.port}"
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-c", SERVE, place, str(arguments.port)]
        child = subprocess.Popen(command)
        try:
            for _ in range(600):
                try:
                    ask(f"{server}/api/server")
                    break
                except OSError:
                    time.sleep(0.5)
            print(json.dumps(measure(server, child.pid, arguments.seconds), indent=2))
        finally:
            child.terminate()
            child.wait(20)


if __name__ == "__main__":
    main()

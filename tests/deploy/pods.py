"""Pods of the chart as processes of this machine: started, probed, ended and exchanged as a kubelet
and a Deployment's controller do it.

Arguments, environment, probes, periods and grace come from the rendered manifests. What differs: a
mounted path is a folder of the test's, 0.0.0.0 is 127.0.0.1 with ports of its own for each pod, and
probes come ``HASTE`` times as often.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.deploy.manifests import Manifest, of_kind, one
from tests.ports import free_port

HASTE = 5
# A late answer of a busy machine is no answer of a kubelet's, and no fault of the service either.
LATE = 60.0
# From a pod's readiness to everybody who balances knowing of it.
PROPAGATION = 1.0
PATIENCE = 120.0

Places = Mapping[str, Path]


def eventually(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.02)


@dataclass
class Pod:
    """One process, and what its probes said."""

    name: str
    process: subprocess.Popen[bytes]
    ports: dict[str, int]
    log: Path
    grace: float
    started: bool = False
    ready: bool = False
    ending: bool = False
    faults: list[str] = field(default_factory=list)

    def tell(self) -> str:
        return f"{self.name}: {self.faults} {self.log.read_text()[-3000:]}"

    def end(self) -> int:
        """SIGTERM, and SIGKILL when the grace is over; returns the exit code."""
        self.ending = True
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(self.grace)
        except subprocess.TimeoutExpired:
            self.faults.append("did not end within its grace")
            self.process.kill()
            return self.process.wait()


@dataclass(frozen=True)
class Container:
    """What the manifests say about the first container of a pod.

    Args:
        manifests: Rendered.
        spec: The pod's.
        places: The folder of every mounted path but the data's, which each pod has of its own.
        command: Runs what the image's entrypoint runs.
        addresses: Where Services are, by the ``host:port`` that is meant.
    """

    manifests: list[Manifest]
    spec: Manifest
    places: Places
    command: tuple[str, ...]
    addresses: Mapping[str, str] = field(default_factory=dict)

    @property
    def container(self) -> Manifest:
        found: Manifest = self.spec["containers"][0]
        return found

    def arguments(self, ports: Mapping[int, int], data: Path) -> list[str]:
        return [
            *self.command,
            *(self._placed(part, ports, data) for part in self.container["args"]),
        ]

    def environment(self, ports: Mapping[int, int], data: Path) -> dict[str, str]:
        told: dict[str, str] = {}
        for source in self.container.get("envFrom", ()):
            if "configMapRef" in source:
                maps = {
                    each["metadata"]["name"]: each for each in of_kind(self.manifests, "ConfigMap")
                }
                told |= maps[source["configMapRef"]["name"]]["data"]
        told |= {each["name"]: each["value"] for each in self.container.get("env", ())}
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith("RESIGHT_")
        }
        return kept | {name: self._placed(value, ports, data) for name, value in told.items()}

    def _placed(self, value: str, ports: Mapping[int, int], data: Path) -> str:
        if value == "0.0.0.0":  # noqa: S104
            return "127.0.0.1"
        if value.isdecimal():
            return str(ports.get(int(value), value))
        if value in self.addresses:
            return self.addresses[value]
        scheme, mark, rest = value.rpartition("://")
        for path, folder in ({"/data": data} | dict(self.places)).items():
            if rest == path or rest.startswith(f"{path}/"):
                return f"{scheme}{mark}{folder}{rest.removeprefix(path)}"
        return value


class Deployment:
    """The chart's Deployment; ``endpoints`` are those of its Service."""

    def __init__(
        self,
        manifests: list[Manifest],
        places: Places,
        folder: Path,
        *,
        command: tuple[str, ...],
        extra: Mapping[str, str] | None = None,
    ) -> None:
        self._manifest = one(manifests, "Deployment")
        self._folder = folder
        self._extra = dict(extra or {})
        self.use(manifests, places, command)
        self.pods: list[Pod] = []
        self.gone: list[tuple[Pod, int]] = []
        self._number = 0
        self._known: list[tuple[float, frozenset[str]]] = []
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._watching: list[threading.Thread] = []

    def use(self, manifests: list[Manifest], places: Places, command: tuple[str, ...]) -> None:
        """What pods are made of from now on."""
        spec = one(manifests, "Deployment")["spec"]["template"]["spec"]
        self._template = Container(manifests, spec, places, command)

    @property
    def replicas(self) -> int:
        count: int = self._manifest["spec"]["replicas"]
        return count

    def endpoints(self) -> list[Pod]:
        """Ready pods, as somebody knows them to whom that takes ``PROPAGATION`` seconds."""
        with self._lock:
            known: frozenset[str] = frozenset()
            for at, names in self._known:
                if at <= time.monotonic() - PROPAGATION:
                    known = names
            return [pod for pod in self.pods if pod.name in known]

    def ready(self) -> list[Pod]:
        return [pod for pod in self.pods if pod.ready and not pod.ending]

    def start(self) -> Pod:
        """Run one more pod."""
        self._number += 1
        name = f"pod-{self._number}"
        data = self._folder / name
        data.mkdir(parents=True)
        listed = self._template.container["ports"]
        ports = {each["name"]: free_port() for each in listed}
        by_number = {each["containerPort"]: ports[each["name"]] for each in listed}
        environment = self._template.environment(by_number, data) | self._extra
        environment["RESIGHT_REPLICAS__NAME"] = name
        log = data / "log"
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                self._template.arguments(by_number, data),
                env=environment,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                cwd=data,
            )
        grace = float(self._template.spec["terminationGracePeriodSeconds"])
        pod = Pod(name, process, ports, log, grace)
        with self._lock:
            self.pods.append(pod)
        watching = threading.Thread(target=self._probe, args=(pod, self._template.container))
        watching.start()
        self._watching.append(watching)
        return pod

    def start_all(self) -> None:
        for _ in range(self.replicas):
            self.start()
        eventually(lambda: len(self.endpoints()) == self.replicas, "all are endpoints")

    def replace(self, old: Pod) -> None:
        """maxSurge 1, maxUnavailable 0: the new one is ready before the old one is told to end."""
        rolling = self._manifest["spec"]["strategy"]["rollingUpdate"]
        assert (rolling["maxSurge"], rolling["maxUnavailable"]) == (1, 0)
        new = self.start()
        eventually(lambda: new.ready or new.process.poll() is not None, f"{new.name} is ready")
        assert new.ready, new.tell()
        self.remove(old)

    def remove(self, old: Pod) -> None:
        old.ending = True
        self._tell()
        code = old.end()
        with self._lock:
            self.pods.remove(old)
            self.gone.append((old, code))

    def restart(self) -> None:
        """`kubectl rollout restart`."""
        for pod in list(self.pods):
            self.replace(pod)

    def close(self) -> None:
        self._over.set()
        for pod in self.pods:
            pod.process.kill()
            pod.process.wait()
        for watching in self._watching:
            watching.join()

    def _tell(self) -> None:
        with self._lock:
            names = frozenset(pod.name for pod in self.pods if pod.ready and not pod.ending)
            if not self._known or self._known[-1][1] != names:
                self._known.append((time.monotonic(), names))

    def _probe(self, pod: Pod, container: Manifest) -> None:
        failures: dict[str, int] = {}
        due: dict[str, float] = {}
        while pod.process.poll() is None and not self._over.is_set():
            names = ("readinessProbe", "livenessProbe") if pod.started else ("startupProbe",)
            for name in names:
                probe = container[name]
                if time.monotonic() < due.get(name, 0.0):
                    continue
                due[name] = time.monotonic() + probe["periodSeconds"] / HASTE
                passed = _passes(probe, pod.ports)
                failures[name] = 0 if passed else failures.get(name, 0) + 1
                failed = failures[name] >= probe.get("failureThreshold", 3) * (
                    1 if name == "readinessProbe" else HASTE
                )
                if name == "startupProbe":
                    pod.started = passed
                elif name == "readinessProbe" and (passed or failed):
                    pod.ready = passed
                if failed and name != "readinessProbe" and not pod.ending:
                    pod.faults.append(f"{name} failed")
                    pod.process.kill()
            self._tell()
            time.sleep(0.05)
        pod.ready = False
        self._tell()


def _passes(probe: Manifest, ports: Mapping[str, int]) -> bool:
    asked = probe["httpGet"]
    url = f"http://127.0.0.1:{ports[asked['port']]}{asked['path']}"
    with suppress(httpx.HTTPError):
        # As a kubelet: any status from 200 to 399 is a success, and each probe connects anew.
        answer = httpx.get(url, timeout=max(LATE, float(probe.get("timeoutSeconds", 1))))
        return 200 <= answer.status_code < 400
    return False


def run_job(
    manifests: list[Manifest],
    spec: Manifest,
    places: Places,
    data: Path,
    *,
    command: tuple[str, ...],
    extra: Mapping[str, str] | None = None,
    more: tuple[str, ...] = (),
    addresses: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """A Job's container, to its end."""
    container = Container(manifests, spec, places, command, addresses or {})
    data.mkdir(parents=True, exist_ok=True)
    return subprocess.run(
        [*container.arguments({}, data), *more],
        env=container.environment({}, data) | dict(extra or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


@contextmanager
def running(deployment: Deployment) -> Iterator[Deployment]:
    """All pods are endpoints; none is left at the end."""
    try:
        deployment.start_all()
        yield deployment
    except AssertionError as error:
        told = "\n".join(pod.tell() for pod in deployment.pods)
        raise AssertionError(f"{error}\n{told}") from error
    finally:
        deployment.close()


def probe_paths(container: Manifest) -> dict[str, Any]:
    """Path of each probe, by its name."""
    return {
        name: container[name]["httpGet"]["path"]
        for name in ("startupProbe", "readinessProbe", "livenessProbe")
    }

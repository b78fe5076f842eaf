"""A client in a process of its own: tries for the lease, says what it was told, then holds on."""

from __future__ import annotations

import sys
import time

import grpc
from google.protobuf.duration_pb2 import Duration

from resight.v1.adaptation_service_pb2 import StartAdaptationRunRequest
from resight.v1.adaptation_service_pb2_grpc import AdaptationServiceStub

target, gallery, holder, seconds = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])


def say(*words: str) -> None:
    sys.stdout.write(" ".join(words) + "\n")
    sys.stdout.flush()


with grpc.insecure_channel(target) as channel:
    grpc.channel_ready_future(channel).result(timeout=60)
    stub = AdaptationServiceStub(channel)
    say("ready")
    sys.stdin.readline()
    lease = Duration()
    lease.FromMicroseconds(int(seconds * 1e6))
    request = StartAdaptationRunRequest(gallery=gallery, holder=holder, lease_duration=lease)
    try:
        started = stub.StartAdaptationRun(request, timeout=60)
    except grpc.RpcError as error:
        say("refused", error.code().name)
    else:
        say("won", started.run.run_id, started.lease_token)
    time.sleep(600)

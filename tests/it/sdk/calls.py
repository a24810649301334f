"""Calls Livepeer's own Python SDK as its users do.

Usage: calls.py CALL JSON
CALL is a function below, JSON its arguments as an object. Prints one JSON object: {"ok": ...}, or {"error": ..., "type": ...}
with what the SDK raised.
"""

import asyncio
import dataclasses
import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import livepeer_gateway as sdk
from livepeer_gateway import discovery, selection


class Signer(BaseHTTPRequestHandler):
    """A remote signer in form only: it signs whatever it is asked to."""

    ADDRESS = "0x" + "11" * 20
    ANSWERS = {
        "/sign-orchestrator-info": {"address": ADDRESS, "signature": "0x" + "22" * 65},
        "/sign-byoc-job": {"sender": ADDRESS, "signature": "0x" + "22" * 65},
        "/generate-live-payment": {"payment": "cGF5" * 2000, "segCreds": "c2Vn", "state": {}},
    }

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = json.dumps(self.ANSWERS[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


def start_signer():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Signer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def start_grpc(host, certificate, key):
    """The gRPC half of an orchestrator that works for nothing: it has no ticket parameters. The SDK asks port 8935."""
    import grpc
    from livepeer_gateway import lp_rpc_pb2, lp_rpc_pb2_grpc

    class Orchestrator(lp_rpc_pb2_grpc.OrchestratorServicer):
        def GetOrchestrator(self, request, context):
            return lp_rpc_pb2.OrchestratorInfo(transcoder=f"https://{host}:8935")

    server = grpc.server(ThreadPoolExecutor(2))
    lp_rpc_pb2_grpc.add_OrchestratorServicer_to_server(Orchestrator(), server)
    pair = (open(key, "rb").read(), open(certificate, "rb").read())
    server.add_secure_port(f"{host}:8935", grpc.ssl_server_credentials([pair]))
    server.start()
    return server


def sdk_version():
    return version("livepeer-gateway")


def submit_byoc_job(capability, payload, signed=False, grpc=None, **where):
    server = start_grpc(**grpc) if grpc else None
    if signed:
        where["signer_url"] = start_signer()
    request = sdk.ByocJobRequest(capability=capability, payload=payload, timeout_seconds=30)
    done = sdk.submit_byoc_job(request, **where)
    if server:
        server.stop(None)
    return {"status": done.status_code, "data": done.data, "headers": done.headers, "url": done.orchestrator_url}


def list_capabilities(adapter_url):
    return sdk.list_capabilities(adapter_url)


def discover_orchestrators(discovery_url):
    return discovery.discover_orchestrators(discovery_url=discovery_url)


def discover_runners(**filters):
    return asyncio.run(discovery.discover_runners(**filters))


def call_runner(paid=False, **arguments):
    if paid:
        arguments.update(signer_url=start_signer(), payment_unit="fixed")
    done = asyncio.run(sdk.call_runner(timeout=30, **arguments))
    return {"data": done.data, "content_type": done.content_type, "session_id": done.session_id}


def select_runner(**arguments):
    """What runner_selector finds, and what its first candidate answers at the URL of its entry."""

    async def select():
        cursor = await selection.runner_selector(timeout=30, **arguments)
        found = [dataclasses.asdict(runner) for runner in cursor.candidates]
        try:
            return {"found": found, "data": (await cursor.next()).data}
        except sdk.NoRunnerAvailableError as why:
            return {"found": found, "rejections": [rejection.reason for rejection in why.rejections]}

    return asyncio.run(select())


def register_runner(gpu, beats, **arguments):
    """Registers, beats this often, and leaves."""

    async def register():
        card = sdk.LiveRunnerGPU(**gpu)
        registration = await sdk.register_runner(gpu=card, heartbeat_interval_s=0.05, timeout=2, **arguments)
        count, send = 1, registration._send_heartbeat

        async def counted():
            nonlocal count
            await send()
            count += 1

        registration._send_heartbeat = counted
        while count < beats:
            await asyncio.sleep(0.05)
        result = {"runner_id": registration.runner_id, "orchestrator": registration.orchestrator_url}
        await registration.close()
        return result

    return asyncio.run(register())


def main():
    name, arguments = sys.argv[1], json.loads(sys.argv[2])
    try:
        result = {"ok": globals()[name](**arguments)}
    except sdk.LivepeerGatewayError as why:
        result = {"error": str(why), "type": type(why).__name__}
    print(json.dumps(result))


main()

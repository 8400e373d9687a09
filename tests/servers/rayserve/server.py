"""More than zero behind Ray Serve, which has no protocol of its own: a deployment that speaks this one."""

import json
import signal
import sys

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

TENSORS = {
    "name": "threshold",
    "versions": ["1"],
    "platform": "ray",
    "inputs": [{"name": "image", "datatype": "INT16", "shape": [-1, -1, -1]}],
    "outputs": [{"name": "mask", "datatype": "UINT8", "shape": [-1, -1, -1]}],
}
LENGTH = "inference-header-content-length"


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0.5})
class Threshold:
    async def __call__(self, request: Request):
        path = request.url.path
        if path in ("/v2/health/live", "/v2/health/ready", "/v2/models/threshold/ready"):
            return Response()
        if path == "/v2":
            return JSONResponse(
                {"name": "ray", "version": ray.__version__, "extensions": ["binary_tensor_data"]}
            )
        if path == "/v2/models/threshold":
            return JSONResponse(TENSORS)
        if path != "/v2/models/threshold/infer":
            return JSONResponse({"error": "no such path"}, status_code=404)
        body = await request.body()
        split = int(request.headers.get(LENGTH, len(body)))
        asked = json.loads(body[:split])
        shape = asked["inputs"][0]["shape"]
        if split < len(body):
            image = np.frombuffer(body[split:], np.int16)
        else:
            image = np.array(asked["inputs"][0]["data"], np.int16)
        mask = (image > 0).astype(np.uint8)
        output = {"name": "mask", "datatype": "UINT8", "shape": shape}
        told = {"model_name": "threshold", "model_version": "1", "id": asked["id"]}
        if split == len(body):
            return JSONResponse({**told, "outputs": [{**output, "data": mask.tolist()}]})
        output["parameters"] = {"binary_data_size": mask.nbytes}
        head = json.dumps({**told, "outputs": [output]}).encode()
        return Response(
            head + mask.tobytes(),
            media_type="application/octet-stream",
            headers={LENGTH: str(len(head))},
        )


ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
serve.run(Threshold.bind())
signal.sigwait([signal.SIGTERM, signal.SIGINT])
serve.shutdown()
ray.shutdown()

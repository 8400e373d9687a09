"""1 where the image is above a number, behind Ray Serve. It has no protocol of its own: this deployment
speaks the open one, versions and binary tensors included, as somebody would write it."""

import json
import signal
import sys

import numpy as np
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

MODELS = {"threshold": ("INT16", np.int16, 0), "half": ("FP32", np.float32, 0.5)}
LENGTH = "inference-header-content-length"


def refusal(status, words):
    return JSONResponse({"error": words}, status_code=status)


def metadata(name):
    def tensor(name, datatype):
        return {"name": name, "datatype": datatype, "shape": [-1, -1, -1]}

    return {
        "name": name,
        "versions": ["1"],
        "platform": "ray",
        "inputs": [tensor("image", MODELS[name][0])],
        "outputs": [tensor("mask", "UINT8")],
    }


def infer(name, body, split):
    _, kind, above = MODELS[name]
    asked = json.loads(body[:split])
    shape = asked["inputs"][0]["shape"]
    if split < len(body):
        image = np.frombuffer(body[split:], kind)
    else:
        image = np.array(asked["inputs"][0]["data"], kind)
    if image.size != np.prod(shape):
        return refusal(400, f"{image.size} values do not make {shape}")
    mask = (image > above).astype(np.uint8)
    output = {"name": "mask", "datatype": "UINT8", "shape": shape}
    told = {"model_name": name, "model_version": "1", "id": asked["id"]}
    if split == len(body):
        return JSONResponse({**told, "outputs": [{**output, "data": mask.ravel().tolist()}]})
    output["parameters"] = {"binary_data_size": mask.nbytes}
    head = json.dumps({**told, "outputs": [output]}).encode()
    return Response(
        head + mask.tobytes(),
        media_type="application/octet-stream",
        headers={LENGTH: str(len(head))},
    )


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0.5})
class OpenInference:
    async def __call__(self, request: Request):
        match request.url.path.strip("/").split("/"):
            case ["v2"]:
                about = {"name": "ray", "version": ray.__version__}
                return JSONResponse({**about, "extensions": ["binary_tensor_data"]})
            case ["v2", "health", "live" | "ready"]:
                return Response()
            case ["v2", "models", name, *rest] if name in MODELS:
                if rest[:1] == ["versions"]:
                    if rest[1:2] != ["1"]:
                        return refusal(404, "no such version")
                    rest = rest[2:]
                match rest:
                    case []:
                        return JSONResponse(metadata(name))
                    case ["ready"]:
                        return Response()
                    case ["infer"]:
                        body = await request.body()
                        return infer(name, body, int(request.headers.get(LENGTH, len(body))))
        return refusal(404, "no such path")


ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
serve.run(OpenInference.bind())
signal.sigwait([signal.SIGTERM, signal.SIGINT])
serve.shutdown()
ray.shutdown()

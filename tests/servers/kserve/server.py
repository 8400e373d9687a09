"""1 where the image is above a number, in the words of KServe's Python server."""

import argparse

import numpy as np
import uvicorn
from kserve import InferOutput, InferResponse, Model, ModelServer, model_server


class Above(Model):
    def __init__(self, name, datatype, above):
        super().__init__(name)
        self.datatype, self.above, self.ready = datatype, above, True

    def get_input_types(self):
        return [{"name": "image", "datatype": self.datatype, "shape": [-1, -1, -1]}]

    def get_output_types(self):
        return [{"name": "mask", "datatype": "UINT8", "shape": [-1, -1, -1]}]

    def predict(self, payload, headers=None, response_headers=None):
        mask = (payload.inputs[0].as_numpy() > self.above).astype(np.uint8)
        output = InferOutput(name="mask", shape=list(mask.shape), datatype="UINT8")
        output.set_data_from_numpy(mask, binary_data=False)
        # As bytes or as JSON is the server's affair, by what was asked for.
        return InferResponse(
            response_id=payload.id,
            model_name=self.name,
            infer_outputs=[output],
            use_binary_outputs=payload.use_binary_outputs,
            requested_outputs=payload.request_outputs,
        )


def on_this_machine_alone(self, *arguments, host, made=uvicorn.Config.__init__, **more):
    made(self, *arguments, host="127.0.0.1", **more)


if __name__ == "__main__":
    # It listens on all interfaces and has no setting for that.
    uvicorn.Config.__init__ = on_this_machine_alone
    argparse.ArgumentParser(parents=[model_server.parser]).parse_known_args()
    ModelServer().start([Above("threshold", "INT16", 0), Above("half", "FP32", 0.5)])

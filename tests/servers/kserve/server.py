"""More than zero, in the words of KServe's Python server."""

import argparse

import numpy as np
from kserve import InferOutput, InferResponse, Model, ModelServer, model_server


class Threshold(Model):
    def load(self):
        self.ready = True
        return self.ready

    def get_input_types(self):
        return [{"name": "image", "datatype": "INT16", "shape": [-1, -1, -1]}]

    def get_output_types(self):
        return [{"name": "mask", "datatype": "UINT8", "shape": [-1, -1, -1]}]

    def predict(self, payload, headers=None, response_headers=None):
        mask = (payload.inputs[0].as_numpy() > 0).astype(np.uint8)
        output = InferOutput(name="mask", shape=list(mask.shape), datatype="UINT8")
        output.set_data_from_numpy(mask, binary_data=payload.inputs[0].raw_data is not None)
        return InferResponse(
            response_id=payload.id, model_name=self.name, infer_outputs=[output]
        )


parser = argparse.ArgumentParser(parents=[model_server.parser])
parser.parse_known_args()
model = Threshold("threshold")
model.load()
ModelServer().start([model])

"""A model for tests: 1 where the image is above a number that its configuration gives."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        parameters = json.loads(args["model_config"])["parameters"]
        self.above = float(parameters["above"]["string_value"])

    def execute(self, requests):
        answers = []
        for request in requests:
            image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
            mask = pb_utils.Tensor("mask", (image > self.above).astype(np.uint8))
            answers.append(pb_utils.InferenceResponse(output_tensors=[mask]))
        return answers

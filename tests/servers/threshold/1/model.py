"""A model for tests: 1 where the image is above zero."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            image = pb_utils.get_input_tensor_by_name(request, "image").as_numpy()
            mask = pb_utils.Tensor("mask", (image > 0).astype(np.uint8))
            answers.append(pb_utils.InferenceResponse(output_tensors=[mask]))
        return answers

"""1 where the image is above a number, in MLServer's words."""

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Above(MLModel):
    async def load(self) -> bool:
        self.above = self.settings.parameters.extra["above"]
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        image = NumpyCodec.decode_input(payload.inputs[0])
        mask = (image > self.above).astype(np.uint8)
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            model_version=self.version,
            outputs=[NumpyCodec.encode_output("mask", mask)],
        )

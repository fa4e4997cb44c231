"""Networks on columns as Polars gives them: views of bytes and of text, and categories as dictionaries."""

from functools import partial

import numpy as np
import pyarrow as pa
import pytest

from sparkopt import images
from sparkopt.deep import TorchEstimator
from sparkopt.deep.networks import ConvNet

PIPELINE = images.Compose([images.Decode(), images.Resize(8, 8), images.Rescale(1 / 255)])
PICTURES = [images.encode(np.full((9, 9, 3), 20 * shade, np.uint8), "png") for shade in range(6)]


def fitted(images_column):
    table = pa.table({"content": images_column, "label": [0, 1] * 3})
    estimator = TorchEstimator(
        module=partial(ConvNet, classes=2, channels=3, widths=(8,)), loss="multinomial", featuresCol="content",
        imagePipeline=PIPELINE, launcher="local", epochs=1,
    )  # fmt: skip
    return estimator.fit(table).transform(table)["probability"].to_pylist()


@pytest.mark.parametrize("kind", ["binary_view", "string_view", "dictionary"])
def test_images_in_views_are_as_others(kind, tmp_path):
    paths = [tmp_path / f"{place}.png" for place in range(6)]
    for path, content in zip(paths, PICTURES, strict=True):
        path.write_bytes(content)
    plain = pa.array(list(map(str, paths)) if kind == "string_view" else PICTURES)
    other = plain.dictionary_encode() if kind == "dictionary" else plain.cast(getattr(pa, kind)())
    assert fitted(other) == fitted(plain)

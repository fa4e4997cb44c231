"""Image pipelines of networks: what is refused of one, and what a network is given of its result.

A network is given batches, and their layout is its framework's: (rows, channels, height, width) for PyTorch, what
``image_data_format`` says for Keras. So a pipeline gives one image (height, width, channels) of a row.
"""

from __future__ import annotations

from sparkopt.errors import ParameterError, SchemaError
from sparkopt.images import Compose, Encode, ToCHW
from sparkopt.images.pipeline import DividingTransform
from sparkopt.shards.fields import Fields

__all__ = ["check_pipeline", "network_pipeline"]


def network_pipeline(text: str) -> Compose:
    """Return the pipeline of a text that ``check_pipeline`` has passed, with results (height, width, channels).

    ``ToCHW`` at the end asks for what PyTorch's batches have anyway; they are made of images with channels last.
    """
    found = Compose.from_json(text)
    if not (found.transforms and isinstance(found.transforms[-1], ToCHW)):
        return found
    return Compose(found.transforms[:-1], found.device)


def check_pipeline(fields: Fields, text: str | None, name: str = "imagePipeline", takes_chw: bool = True) -> None:
    """Refuse images without a pipeline that makes one image of each.

    Parameters
    ----------
    fields : Fields
        What the columns are.
    text : str or None
        The pipeline as JSON.
    name : str, default "imagePipeline"
        The parameter that it is of.
    takes_chw : bool, default True
        Whether the network's batches have the channels first, so that ``ToCHW`` means what they are.

    Raises
    ------
    SchemaError
        Where there is none.
    ParameterError
        Naming the step that is in the way, and the way out.
    """
    for entry in fields.inputs:
        if entry.is_image and text is None:
            raise SchemaError(
                f"features column {entry.title!r} holds {entry.held}: set imagePipeline to say how images are "
                'decoded, such as images.Compose([images.Decode("rgb"), images.Resize(224, 224), '
                "images.Rescale(1 / 255)])."
            )
    if text is None or not any(entry.is_image for entry in fields.inputs):
        return
    pipeline = Compose.from_json(text)
    if not pipeline.decodes and any(entry.is_encoded for entry in fields.inputs):
        raise ParameterError(f"{name} must begin with Decode: the images are encoded.")
    if pipeline.transforms:
        _check_steps(pipeline, name, takes_chw)


def _check_steps(pipeline: Compose, name: str, takes_chw: bool) -> None:
    """Look at each step; those that choose others hold none of these."""
    *others, last = pipeline.transforms
    if isinstance(last, Encode):
        raise ParameterError(f"{name} ends in Encode, which leaves bytes, and a network takes pixels. Leave it out.")
    ends_in_chw = takes_chw and isinstance(last, ToCHW) and last.p == 1
    for step in others if ends_in_chw else pipeline.transforms:
        if isinstance(step, DividingTransform):
            raise ParameterError(
                f"{name} has {type(step).__name__}, which makes several images of one, and a network takes one image "
                "of a row. Take one part, by CenterCrop or RandomCrop, or make a row of each part before."
            )
        if isinstance(step, ToCHW):
            raise ParameterError(f"{name} has ToCHW{_WHY_NOT_CHW[takes_chw]} Leave ToCHW out.")


_WHY_NOT_CHW = {
    True: " before its end, or for some images only: networks of PyTorch are given the channels first anyway.",
    False: ", and where the channels of a batch are is said by Keras's image_data_format.",
}
"""By whether a network's batches have the channels first."""

"""Setters of networks' parameters; each returns what it was called on, so that calls can be chained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from sparkopt.deep.params import InferenceParams, OutputParams, StepParams, TrainingParams
from sparkopt.images import BatchMixing, Compose

__all__ = ["InferenceSetters", "OutputSetters", "StepSetters", "TrainingSetters"]

M = TypeVar("M", bound="InferenceSetters")
E = TypeVar("E", bound="TrainingSetters")
T = TypeVar("T", bound="OutputSetters")
S = TypeVar("S", bound="StepSetters")


class InferenceSetters(InferenceParams):
    """Setters that estimator and model have."""

    def setBatchSize(self: M, value: int) -> M:
        """Set the rows of a batch, on each process."""
        return self._set(batchSize=value)

    def setDevice(self: M, value: str) -> M:
        """Set where to compute."""
        return self._set(device=value)

    def setEvaluationPipeline(self: M, value: Compose | str) -> M:
        """Set how images are decoded otherwise."""
        return self._set(evaluationPipeline=value)

    def setFeaturesCol(self: M, value: str) -> M:
        """Set the column of features."""
        return self._set(featuresCol=value)

    def setFeaturesCols(self: M, value: list[Any]) -> M:
        """Set several columns of features, those in a list of their own joined."""
        return self._set(featuresCols=value)

    def setHandleInvalid(self: M, value: str) -> M:
        """Set what becomes of invalid rows."""
        return self._set(handleInvalid=value)

    def setImagePipeline(self: M, value: Compose | str) -> M:
        """Set how images are decoded and augmented in training."""
        return self._set(imagePipeline=value)

    def setLabelCol(self: M, value: str) -> M:
        """Set the column of labels."""
        return self._set(labelCol=value)

    def setPredictionCol(self: M, value: str) -> M:
        """Set the column of predictions."""
        return self._set(predictionCol=value)

    def setProbabilityCol(self: M, value: str) -> M:
        """Set the column of probabilities."""
        return self._set(probabilityCol=value)

    def setRawPredictionCol(self: M, value: str) -> M:
        """Set the column of scores."""
        return self._set(rawPredictionCol=value)

    def setWeightCol(self: M, value: str) -> M:
        """Set the column of row weights."""
        return self._set(weightCol=value)


class TrainingSetters(InferenceSetters, TrainingParams):
    """Setters that only the estimator has."""

    def setModule(self: E, value: Any) -> E:
        """Set the network, or what builds it."""
        return self._set(module=value)

    def setLoss(self: E, value: Any) -> E:
        """Set the loss."""
        return self._set(loss=value)

    def setOptimizer(self: E, value: Any) -> E:
        """Set what makes the optimiser, or its name."""
        return self._set(optimizer=value)

    def setScheduler(self: E, value: Any) -> E:
        """Set what makes the scheduler."""
        return self._set(scheduler=value)

    def setAccumulationSteps(self: E, value: int) -> E:
        """Set the batches whose gradients make a step."""
        return self._set(accumulationSteps=value)

    def setBatchMixing(self: E, value: BatchMixing | Sequence[BatchMixing] | str) -> E:
        """Set how the rows of a batch are mixed in training."""
        return self._set(batchMixing=value)

    def setCacheBytes(self: E, value: int) -> E:
        """Set the bytes of decoded images that are kept."""
        return self._set(cacheBytes=value)

    def setCheckpointDir(self: E, value: str) -> E:
        """Set where checkpoints are kept."""
        return self._set(checkpointDir=value)

    def setCheckpointInterval(self: E, value: int) -> E:
        """Set the steps between checkpoints within an epoch."""
        return self._set(checkpointInterval=value)

    def setCompression(self: E, value: str) -> E:
        """Set how gradients between processes are compressed."""
        return self._set(compression=value)

    def setEpochs(self: E, value: int) -> E:
        """Set the passes over the training rows."""
        return self._set(epochs=value)

    def setLabelKind(self: E, value: str) -> E:
        """Set what labels are: numbers, or a mask, boxes or keypoints of the image."""
        return self._set(labelKind=value)

    def setLauncher(self: E, value: str) -> E:
        """Set what runs the processes."""
        return self._set(launcher=value)

    def setLoaderThreads(self: E, value: int) -> E:
        """Set the threads that prepare batches."""
        return self._set(loaderThreads=value)

    def setMaskFill(self: E, value: float) -> E:
        """Set the label of pixels outside of the image."""
        return self._set(maskFill=value)

    def setMaxGradNorm(self: E, value: float) -> E:
        """Set the largest norm of a step's gradient."""
        return self._set(maxGradNorm=value)

    def setMaxRestarts(self: E, value: int) -> E:
        """Set how often to continue after losing a process."""
        return self._set(maxRestarts=value)

    def setMinDelta(self: E, value: float) -> E:
        """Set by how much the loss must fall to count as an improvement."""
        return self._set(minDelta=value)

    def setMinProc(self: E, value: int) -> E:
        """Set the fewest processes to continue with."""
        return self._set(minProc=value)

    def setMinVisibility(self: E, value: float) -> E:
        """Set the least fraction of a box that must be left."""
        return self._set(minVisibility=value)

    def setNumProc(self: E, value: int) -> E:
        """Set the number of processes."""
        return self._set(numProc=value)

    def setPaddedCols(self: E, value: list[str]) -> E:
        """Set the features that are lists of unlike lengths."""
        return self._set(paddedCols=value)

    def setPatience(self: E, value: int) -> E:
        """Set the epochs without improvement that end training."""
        return self._set(patience=value)

    def setPrecision(self: E, value: str) -> E:
        """Set the type of the forward pass."""
        return self._set(precision=value)

    def setPrefetch(self: E, value: int) -> E:
        """Set the batches prepared in advance."""
        return self._set(prefetch=value)

    def setResume(self: E, value: bool) -> E:
        """Set whether to continue from checkpointDir."""
        return self._set(resume=value)

    def setSeed(self: E, value: int) -> E:
        """Set what determines weights, order, augmentation and dropout."""
        return self._set(seed=value)

    def setShuffleRows(self: E, value: int) -> E:
        """Set the rows that are shuffled together."""
        return self._set(shuffleRows=value)

    def setStepSize(self: E, value: float) -> E:
        """Set the learning rate of a named optimiser."""
        return self._set(stepSize=value)

    def setStepSizeSchedule(self: E, value: str) -> E:
        """Set how the learning rate changes over the steps."""
        return self._set(stepSizeSchedule=value)

    def setStorePath(self: E, value: str) -> E:
        """Set where rows are put."""
        return self._set(storePath=value)

    def setStreams(self: E, value: int) -> E:
        """Set the parts that the rows are divided into."""
        return self._set(streams=value)

    def setValidationFraction(self: E, value: float) -> E:
        """Set the share of the rows held out."""
        return self._set(validationFraction=value)

    def setValidationIndicatorCol(self: E, value: str) -> E:
        """Set the boolean column that is true in rows held out."""
        return self._set(validationIndicatorCol=value)


class OutputSetters(OutputParams):
    """Setters of estimators and models whose network may give more than one tensor."""

    def setOutputKey(self: T, value: str | int) -> T:
        """Set which part of the output is the prediction."""
        return self._set(outputKey=value)


class StepSetters(OutputSetters, StepParams):
    """Setters of estimators that take a step of the user's own."""

    def setLabelCols(self: S, value: list[str]) -> S:
        """Set several columns of labels, for step."""
        return self._set(labelCols=value)

    def setSavedWeights(self: S, value: str) -> S:
        """Set which weights are saved."""
        return self._set(savedWeights=value)

    def setStep(self: S, value: Any) -> S:
        """Set a function of (module, batch) in place of the loss."""
        return self._set(step=value)

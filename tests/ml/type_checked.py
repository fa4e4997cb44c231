"""What type checkers must accept, and what they must refuse: mypy reads this file with the package.

The first calls are the table of ``test_estimator_contract.py``, which compares them with it. In each other call mypy
must find the error that its line ignores: it reports a line that ignores none.
"""

from __future__ import annotations

from sparkopt import ml

__all__: list[str] = []


def accepted() -> None:
    """Every argument of every estimator, with a value of its type."""
    ml.LinearRegression(
        featuresCol="f",
        featuresCols=["a", "b"],
        labelCol="l",
        weightCol="w",
        predictionCol="p",
        maxIter=7,
        tol=0.5,
        regParam=0.25,
        elasticNetParam=0.75,
        fitIntercept=False,
        standardization=False,
        optimizer="adam",
        stepSize=0.125,
        stepSizeSchedule="cosine",
        miniBatchFraction=0.5,
        localSteps=4,
        localStepsWarmUp=2,
        outerOptimizer="diloco",
        outerStepSize=0.5,
        compression="int8",
        blockCodec="zstd",
        handleInvalid="skip",
        seed=11,
        aggregationDepth=3,
        maxBlockSizeInMB=2.0,
        engine="local",
        validationIndicatorCol="v",
        patience=4,
        minDelta=0.01,
        checkpointDir="d",
        checkpointInterval=3,
        initialModel=None,
        loss="huber",
        epsilon=2.0,
        solver="l-bfgs",
    )
    ml.QuantileRegression(
        featuresCol="f",
        featuresCols=["a", "b"],
        labelCol="l",
        weightCol="w",
        predictionCol="p",
        maxIter=7,
        tol=0.5,
        regParam=0.25,
        elasticNetParam=0.75,
        fitIntercept=False,
        standardization=False,
        optimizer="adam",
        stepSize=0.125,
        stepSizeSchedule="cosine",
        miniBatchFraction=0.5,
        localSteps=4,
        localStepsWarmUp=2,
        outerOptimizer="diloco",
        outerStepSize=0.5,
        compression="int8",
        blockCodec="zstd",
        handleInvalid="skip",
        seed=11,
        aggregationDepth=3,
        maxBlockSizeInMB=2.0,
        engine="local",
        validationIndicatorCol="v",
        patience=4,
        minDelta=0.01,
        checkpointDir="d",
        checkpointInterval=3,
        initialModel=None,
        quantile=0.25,
    )
    ml.LogisticRegression(
        featuresCol="f",
        featuresCols=["a", "b"],
        labelCol="l",
        weightCol="w",
        predictionCol="p",
        maxIter=7,
        tol=0.5,
        regParam=0.25,
        elasticNetParam=0.75,
        fitIntercept=False,
        standardization=False,
        optimizer="adam",
        stepSize=0.125,
        stepSizeSchedule="cosine",
        miniBatchFraction=0.5,
        localSteps=4,
        localStepsWarmUp=2,
        outerOptimizer="diloco",
        outerStepSize=0.5,
        compression="int8",
        blockCodec="zstd",
        handleInvalid="skip",
        seed=11,
        aggregationDepth=3,
        maxBlockSizeInMB=2.0,
        engine="local",
        validationIndicatorCol="v",
        patience=4,
        minDelta=0.01,
        checkpointDir="d",
        checkpointInterval=3,
        initialModel=None,
        rawPredictionCol="r",
        threshold=0.25,
        classWeights={1: 2.0},
        family="binomial",
        probabilityCol="q",
        thresholds=[0.75, 0.25],
        lowerBoundsOnCoefficients=[[1.0, 2.0]],
        upperBoundsOnCoefficients=[[1.0, 2.0]],
        lowerBoundsOnIntercepts=[1.0],
        upperBoundsOnIntercepts=[1.0],
    )
    ml.LinearSVC(
        featuresCol="f",
        featuresCols=["a", "b"],
        labelCol="l",
        weightCol="w",
        predictionCol="p",
        maxIter=7,
        tol=0.5,
        regParam=0.25,
        elasticNetParam=0.75,
        fitIntercept=False,
        standardization=False,
        optimizer="adam",
        stepSize=0.125,
        stepSizeSchedule="cosine",
        miniBatchFraction=0.5,
        localSteps=4,
        localStepsWarmUp=2,
        outerOptimizer="diloco",
        outerStepSize=0.5,
        compression="int8",
        blockCodec="zstd",
        handleInvalid="skip",
        seed=11,
        aggregationDepth=3,
        maxBlockSizeInMB=2.0,
        engine="local",
        validationIndicatorCol="v",
        patience=4,
        minDelta=0.01,
        checkpointDir="d",
        checkpointInterval=3,
        initialModel=None,
        rawPredictionCol="r",
        threshold=0.25,
        classWeights={1: 2.0},
        loss="squaredHinge",
    )
    ml.GeneralizedLinearRegression(
        featuresCol="f",
        featuresCols=["a", "b"],
        labelCol="l",
        weightCol="w",
        predictionCol="p",
        maxIter=7,
        tol=0.5,
        regParam=0.25,
        elasticNetParam=0.75,
        fitIntercept=False,
        standardization=False,
        optimizer="adam",
        stepSize=0.125,
        stepSizeSchedule="cosine",
        miniBatchFraction=0.5,
        localSteps=4,
        localStepsWarmUp=2,
        outerOptimizer="diloco",
        outerStepSize=0.5,
        compression="int8",
        blockCodec="zstd",
        handleInvalid="skip",
        seed=11,
        aggregationDepth=3,
        maxBlockSizeInMB=2.0,
        engine="local",
        validationIndicatorCol="v",
        patience=4,
        minDelta=0.01,
        checkpointDir="d",
        checkpointInterval=3,
        initialModel=None,
        family="tweedie",
        link="log",
        variancePower=1.5,
        linkPower=0.5,
        linkPredictionCol="k",
        offsetCol="o",
        solver="irls",
    )
    ml.AFTSurvivalRegression(
        featuresCol="f",
        featuresCols=["a", "b"],
        labelCol="l",
        weightCol="w",
        predictionCol="p",
        maxIter=7,
        tol=0.5,
        regParam=0.25,
        elasticNetParam=0.75,
        fitIntercept=False,
        standardization=False,
        optimizer="adam",
        stepSize=0.125,
        stepSizeSchedule="cosine",
        miniBatchFraction=0.5,
        localSteps=4,
        localStepsWarmUp=2,
        outerOptimizer="diloco",
        outerStepSize=0.5,
        compression="int8",
        blockCodec="zstd",
        handleInvalid="skip",
        seed=11,
        aggregationDepth=3,
        maxBlockSizeInMB=2.0,
        engine="local",
        validationIndicatorCol="v",
        patience=4,
        minDelta=0.01,
        checkpointDir="d",
        checkpointInterval=3,
        initialModel=None,
        censorCol="e",
        quantileProbabilities=[0.5],
        quantilesCol="q",
    )
    ml.OrdinalRegression(
        featuresCol="f",
        featuresCols=["a", "b"],
        labelCol="l",
        weightCol="w",
        predictionCol="p",
        maxIter=7,
        tol=0.5,
        regParam=0.25,
        elasticNetParam=0.75,
        fitIntercept=False,
        standardization=False,
        optimizer="adam",
        stepSize=0.125,
        stepSizeSchedule="cosine",
        miniBatchFraction=0.5,
        localSteps=4,
        localStepsWarmUp=2,
        outerOptimizer="diloco",
        outerStepSize=0.5,
        compression="int8",
        blockCodec="zstd",
        handleInvalid="skip",
        seed=11,
        aggregationDepth=3,
        maxBlockSizeInMB=2.0,
        engine="local",
        validationIndicatorCol="v",
        patience=4,
        minDelta=0.01,
        checkpointDir="d",
        checkpointInterval=3,
        initialModel=None,
        probabilityCol="q",
    )
    ml.NegativeBinomialRegression(
        featuresCol="f",
        featuresCols=["a", "b"],
        labelCol="l",
        weightCol="w",
        predictionCol="p",
        maxIter=7,
        tol=0.5,
        regParam=0.25,
        elasticNetParam=0.75,
        fitIntercept=False,
        standardization=False,
        optimizer="adam",
        stepSize=0.125,
        stepSizeSchedule="cosine",
        miniBatchFraction=0.5,
        localSteps=4,
        localStepsWarmUp=2,
        outerOptimizer="diloco",
        outerStepSize=0.5,
        compression="int8",
        blockCodec="zstd",
        handleInvalid="skip",
        seed=11,
        aggregationDepth=3,
        maxBlockSizeInMB=2.0,
        engine="local",
        validationIndicatorCol="v",
        patience=4,
        minDelta=0.01,
        checkpointDir="d",
        checkpointInterval=3,
        initialModel=None,
        offsetCol="o",
    )
    ml.MultiLabelLogisticRegression(
        featuresCol="f",
        featuresCols=["a", "b"],
        labelCol="l",
        weightCol="w",
        predictionCol="p",
        maxIter=7,
        tol=0.5,
        regParam=0.25,
        elasticNetParam=0.75,
        fitIntercept=False,
        standardization=False,
        optimizer="adam",
        stepSize=0.125,
        stepSizeSchedule="cosine",
        miniBatchFraction=0.5,
        localSteps=4,
        localStepsWarmUp=2,
        outerOptimizer="diloco",
        outerStepSize=0.5,
        compression="int8",
        blockCodec="zstd",
        handleInvalid="skip",
        seed=11,
        aggregationDepth=3,
        maxBlockSizeInMB=2.0,
        engine="local",
        validationIndicatorCol="v",
        patience=4,
        minDelta=0.01,
        checkpointDir="d",
        checkpointInterval=3,
        initialModel=None,
        labelCols=["u", "v"],
        rawPredictionCol="r",
        probabilityCol="q",
        threshold=0.25,
    )
    ml.ProbabilityCalibration(
        featuresCol="f",
        featuresCols=["a", "b"],
        labelCol="l",
        weightCol="w",
        predictionCol="p",
        maxIter=7,
        tol=0.5,
        regParam=0.25,
        elasticNetParam=0.75,
        fitIntercept=False,
        standardization=False,
        optimizer="adam",
        stepSize=0.125,
        stepSizeSchedule="cosine",
        miniBatchFraction=0.5,
        localSteps=4,
        localStepsWarmUp=2,
        outerOptimizer="diloco",
        outerStepSize=0.5,
        compression="int8",
        blockCodec="zstd",
        handleInvalid="skip",
        seed=11,
        aggregationDepth=3,
        maxBlockSizeInMB=2.0,
        engine="local",
        validationIndicatorCol="v",
        patience=4,
        minDelta=0.01,
        checkpointDir="d",
        checkpointInterval=3,
        initialModel=None,
        method="isotonic",
        probabilityCol="q",
    )


def refused() -> None:
    """A wrong type, an unknown name and a position, at every estimator."""
    ml.LinearRegression(maxIter="many")  # type: ignore[arg-type]
    ml.LinearRegression(weightCol=1)  # type: ignore[arg-type]
    ml.LinearRegression(callbacks=(1,))  # type: ignore[arg-type]
    ml.LinearRegression(maxIters=3)  # type: ignore[call-arg]
    ml.LinearRegression("features")  # type: ignore[call-arg]
    ml.QuantileRegression(maxIter="many")  # type: ignore[arg-type]
    ml.QuantileRegression(weightCol=1)  # type: ignore[arg-type]
    ml.QuantileRegression(callbacks=(1,))  # type: ignore[arg-type]
    ml.QuantileRegression(maxIters=3)  # type: ignore[call-arg]
    ml.QuantileRegression("features")  # type: ignore[arg-type, call-arg]
    ml.LogisticRegression(maxIter="many")  # type: ignore[arg-type]
    ml.LogisticRegression(weightCol=1)  # type: ignore[arg-type]
    ml.LogisticRegression(callbacks=(1,))  # type: ignore[arg-type]
    ml.LogisticRegression(maxIters=3)  # type: ignore[call-arg]
    ml.LogisticRegression("features")  # type: ignore[call-arg]
    ml.LinearSVC(maxIter="many")  # type: ignore[arg-type]
    ml.LinearSVC(weightCol=1)  # type: ignore[arg-type]
    ml.LinearSVC(callbacks=(1,))  # type: ignore[arg-type]
    ml.LinearSVC(maxIters=3)  # type: ignore[call-arg]
    ml.LinearSVC("features")  # type: ignore[call-arg]
    ml.GeneralizedLinearRegression(maxIter="many")  # type: ignore[arg-type]
    ml.GeneralizedLinearRegression(weightCol=1)  # type: ignore[arg-type]
    ml.GeneralizedLinearRegression(callbacks=(1,))  # type: ignore[arg-type]
    ml.GeneralizedLinearRegression(maxIters=3)  # type: ignore[call-arg]
    ml.GeneralizedLinearRegression("features")  # type: ignore[call-arg]
    ml.AFTSurvivalRegression(maxIter="many")  # type: ignore[arg-type]
    ml.AFTSurvivalRegression(weightCol=1)  # type: ignore[arg-type]
    ml.AFTSurvivalRegression(callbacks=(1,))  # type: ignore[arg-type]
    ml.AFTSurvivalRegression(maxIters=3)  # type: ignore[call-arg]
    ml.AFTSurvivalRegression("features")  # type: ignore[call-arg]
    ml.OrdinalRegression(maxIter="many")  # type: ignore[arg-type]
    ml.OrdinalRegression(weightCol=1)  # type: ignore[arg-type]
    ml.OrdinalRegression(callbacks=(1,))  # type: ignore[arg-type]
    ml.OrdinalRegression(maxIters=3)  # type: ignore[call-arg]
    ml.OrdinalRegression("features")  # type: ignore[call-arg]
    ml.NegativeBinomialRegression(maxIter="many")  # type: ignore[arg-type]
    ml.NegativeBinomialRegression(weightCol=1)  # type: ignore[arg-type]
    ml.NegativeBinomialRegression(callbacks=(1,))  # type: ignore[arg-type]
    ml.NegativeBinomialRegression(maxIters=3)  # type: ignore[call-arg]
    ml.NegativeBinomialRegression("features")  # type: ignore[call-arg]
    ml.MultiLabelLogisticRegression(maxIter="many")  # type: ignore[arg-type]
    ml.MultiLabelLogisticRegression(weightCol=1)  # type: ignore[arg-type]
    ml.MultiLabelLogisticRegression(callbacks=(1,))  # type: ignore[arg-type]
    ml.MultiLabelLogisticRegression(maxIters=3)  # type: ignore[call-arg]
    ml.MultiLabelLogisticRegression("features")  # type: ignore[arg-type, call-arg]
    ml.ProbabilityCalibration(maxIter="many")  # type: ignore[arg-type]
    ml.ProbabilityCalibration(weightCol=1)  # type: ignore[arg-type]
    ml.ProbabilityCalibration(callbacks=(1,))  # type: ignore[arg-type]
    ml.ProbabilityCalibration(maxIters=3)  # type: ignore[call-arg]
    ml.ProbabilityCalibration("features")  # type: ignore[call-arg]

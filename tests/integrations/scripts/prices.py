"""Other estimators of pyspark.ml as users write them; one is of a kind that sparkopt refuses, another not in it."""

import json
import sys

import pyspark.ml.regression as regression
from pyspark.ml.classification import LinearSVC, LogisticRegression, LogisticRegressionModel, OneVsRest
from pyspark.ml.evaluation import RegressionEvaluator
from pyspark.ml.linalg import Vectors
from pyspark.ml.tuning import ParamGridBuilder, TrainValidationSplit
from pyspark.sql import SparkSession

folder = sys.argv[1]
spark = SparkSession.builder.appName("prices").getOrCreate()
pairs = [(i, (i * 37 % 101) / 50 - 1, (i * 53 % 97) / 40 - 1) for i in range(400)]
rows = [
    (Vectors.dense([x, z]), 3 * x - z + (i * 71 % 89) / 89, float(i % 150), float((i * 7 + (x > 0)) % 3), 1.0 + i % 2)
    for i, x, z in pairs
]
df = spark.createDataFrame(rows, ["features", "price", "many", "kind", "weight"]).cache()

ridge = regression.LinearRegression(labelCol="price", weightCol="weight")
grid = ParamGridBuilder().addGrid(ridge.regParam, [0.0, 0.1, 1.0]).build()
split = TrainValidationSplit(
    estimator=ridge, estimatorParamMaps=grid, evaluator=RegressionEvaluator(labelCol="price"), seed=3
)
found = split.fit(df)
glm = regression.GeneralizedLinearRegression(family="gaussian", labelCol="price").fit(df)
rest = OneVsRest(classifier=LinearSVC(maxIter=200, regParam=0.01), labelCol="kind").fit(df)
tree = regression.DecisionTreeRegressor(labelCol="price", maxDepth=2).fit(df)
many = LogisticRegression(labelCol="many", maxIter=2).fit(df)  # 150 classes
kinds = LogisticRegression(labelCol="kind", regParam=0.01, tol=1e-9)
kinds.fit(df).write().overwrite().save(f"{folder}/kinds")
loaded = LogisticRegressionModel.load(f"{folder}/kinds")
print(
    "RESULT "
    + json.dumps(
        {
            "validation": found.validationMetrics,
            "r2": found.bestModel.summary.r2,
            "errors": glm.summary.coefficientStandardErrors,
            "deviance": glm.summary.deviance,
            "rest": [model.coefficients.toArray().tolist() for model in rest.models],
            "depth": tree.depth,
            "classes": many.numClasses,
            "kinds": loaded.coefficientMatrix.toArray().tolist(),
        }
    )
)
spark.stop()

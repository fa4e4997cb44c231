"""A script of pyspark.ml as users write it: feature stages, a search, an evaluator, saving and loading."""

import json
import sys
import time

from pyspark.ml import Pipeline, PipelineModel
from pyspark.ml.classification import LogisticRegression, RandomForestClassifier
from pyspark.ml.evaluation import BinaryClassificationEvaluator
from pyspark.ml.feature import OneHotEncoder, StringIndexer, VectorAssembler
from pyspark.ml.tuning import CrossValidator, CrossValidatorModel, ParamGridBuilder
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

rows, folder = int(sys.argv[1]), sys.argv[2]
spark = SparkSession.builder.appName("churn").getOrCreate()
raw = spark.range(rows, numPartitions=2).select(
    F.concat(F.lit("city"), (F.col("id") % 7).cast("string")).alias("city"),
    (F.hash("id") % 1000 / 500.0).alias("age"),
    (F.xxhash64("id") % 1000 / 700.0).alias("income"),
    "id",
)
score = F.col("age") + F.when(F.col("city") == "city3", 1.5).otherwise(-0.3) - 0.5 * F.col("income")
noise = (F.hash(F.col("id") + 17) % 100) / 60.0
df = raw.withColumn("churned", F.when(score + noise > 0, "yes").otherwise("no")).drop("id")
train, test = df.randomSplit([0.8, 0.2], seed=7)

label = StringIndexer(inputCol="churned", outputCol="label")
city = StringIndexer(inputCol="city", outputCol="cityIndex", handleInvalid="keep")
encoder = OneHotEncoder(inputCols=["cityIndex"], outputCols=["cityVector"])
assembler = VectorAssembler(inputCols=["cityVector", "age", "income"], outputCol="features")
lr = LogisticRegression(maxIter=200, tol=1e-10)
pipeline = Pipeline(stages=[label, city, encoder, assembler, lr])
grid = ParamGridBuilder().addGrid(lr.regParam, [0.001, 0.01, 0.1]).addGrid(lr.elasticNetParam, [0.0, 0.5]).build()
evaluator = BinaryClassificationEvaluator()
search = CrossValidator(estimator=pipeline, estimatorParamMaps=grid, evaluator=evaluator, numFolds=3, seed=1)

start = time.perf_counter()
found = search.fit(train)
seconds = time.perf_counter() - start
found.write().overwrite().save(f"{folder}/search")
found.bestModel.write().overwrite().save(f"{folder}/model")
best = PipelineModel.load(f"{folder}/model")
again = CrossValidatorModel.load(f"{folder}/search")
forest = Pipeline(stages=[label, city, encoder, assembler, RandomForestClassifier(numTrees=3, seed=1)]).fit(train)

last = best.stages[-1]
print(
    "RESULT "
    + json.dumps(
        {
            "metrics": found.avgMetrics,
            "again": again.avgMetrics,
            "area": evaluator.evaluate(best.transform(test)),
            "accuracy": found.bestModel.stages[-1].summary.accuracy,
            "coefficients": last.coefficients.toArray().tolist(),
            "intercept": last.intercept,
            "regParam": last.getRegParam(),
            "predictions": best.transform(test)
            .groupBy("prediction")
            .count()
            .sort("prediction")
            .toPandas()
            .values.tolist(),
            "forest": evaluator.evaluate(forest.transform(test)),
        }
    )
)
print("SECONDS", seconds)
spark.stop()

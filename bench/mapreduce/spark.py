"""PySpark's side: a session that stays, and does what lines of its input say: TASK OUTPUT FILE...; a line of JSON each.

DataFrames, so that all work is done in the JVM's generated code; word count by Python functions on RDDs takes several
times as long.
"""

from __future__ import annotations

import json
import sys
import time

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F


def count(lines: DataFrame) -> DataFrame:
    return lines.select(F.explode(F.split("value", " ")).alias("word")).groupBy("word").count()


def index(lines: DataFrame) -> DataFrame:
    """Of each word, the numbers of its lines, ascending; numbers are Spark's own."""
    numbered = lines.select(
        F.monotonically_increasing_id().alias("line"), F.array_distinct(F.split("value", " ")).alias("words")
    )
    words = numbered.select("line", F.explode("words").alias("word"))
    return words.groupBy("word").agg(F.sort_array(F.collect_list("line")).alias("lines"))


def main() -> None:
    master, memory, partitions = sys.argv[1:]
    spark = (
        SparkSession.builder.master(master)
        .config("spark.driver.memory", memory)
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", partitions)
        # By default lists of more than 128 words are sorted for, which takes far longer; here they fit in memory.
        .config("spark.sql.objectHashAggregate.sortBased.fallbackThreshold", str(1 << 30))
        .getOrCreate()
    )
    spark.sparkContext.setLogLevel("ERROR")
    java = spark.sparkContext._jvm.System.getProperty("java.version")
    print(json.dumps({"spark": spark.version, "java": java}), flush=True)
    for line in sys.stdin:
        task, output, *paths = line.split()
        begin = time.perf_counter()
        lines = spark.read.text(paths)
        {"count": count, "index": index}[task](lines).write.mode("overwrite").parquet(output)
        print(json.dumps({"seconds": time.perf_counter() - begin}), flush=True)
    spark.stop()


if __name__ == "__main__":
    main()

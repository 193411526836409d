"""MapReduce beside PySpark: a corpus, its oracle, and the two contestants. See bench/mapreduce.py."""

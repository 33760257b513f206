"""Recipe of the bundled arrival times: the public Azure LLM inference traces of 2023, reduced to their times.

    EESIM_RAW_DATA=DIR python recipe.py     # writes azure-llm-2023-conv.parquet and azure-llm-2023-code.parquet

DIR holds arrivals/azure_llm_2023_{conv,code}.csv with one column arrival_s, seconds from the first request.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from recipes.raw import raw_file

HERE = Path(__file__).resolve().parent
SOURCE = {
    "name": "Azure LLM inference trace 2023",
    "licence": "CC BY 4.0",
    "origin": "https://github.com/Azure/AzurePublicDataset",
    "cite": "Patel et al., Splitwise: Efficient generative LLM inference using phase splitting, ISCA 2024",
}


def main():
    import csv
    import json

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    for kind in ("conv", "code"):
        with raw_file("arrivals", f"azure_llm_2023_{kind}.csv").open() as file:
            seconds = [row["arrival_s"] for row in csv.DictReader(file)]
        times = np.array([round(float(value) * 1e7) for value in seconds], np.int64) * 100  # the resolution is 100 ns
        table = pa.table({"arrival_ns": times}).replace_schema_metadata({b"source": json.dumps(SOURCE).encode()})
        path = HERE / f"azure-llm-2023-{kind}.parquet"
        pq.write_table(table, path, compression="zstd", compression_level=19, use_dictionary=False, column_encoding="DELTA_BINARY_PACKED")
        print(f"wrote {path.name}: {len(times)} arrivals, {path.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()

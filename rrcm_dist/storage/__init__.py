"""Files in folders and in stores that fsspec speaks to (https, s3 …): whole, in time, or told in words why not."""

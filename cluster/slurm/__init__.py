"""Runs under Slurm: submitted by submitit, kept going by a supervisor within the job."""

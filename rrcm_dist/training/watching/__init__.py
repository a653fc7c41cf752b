"""What a run tells of itself, and what stops it: metrics, probe, evaluations, profiler, guard, spikes."""

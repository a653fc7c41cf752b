"""`python -m benchmarks NAME …` runs one; without a name, those that need no data and no GPU, one after the other."""

import importlib
import subprocess
import sys

DESCRIPTIONS = {
    "pretraining_step": "one pre-training step beside the released one, with data or without (CPU or GPU)",
    "communication": "bytes a rank sends per step, computed and on the wire, ZeRO stages 0 to 3 (CPU, 2 and 4 ranks)",
    "loss_memory": "memory of one rank's loss at batches to 65 536 beside all logits at once (CPU or GPU)",
    "zero_stages": "ZeRO stages 0 to 3 side by side: seconds, memory, bytes (CPU, 2 ranks)",
    "elastic": "one pre-training on 1, on 2 and on 2, 1 and 2 ranks: three loss curves (--shards FOLDER)",
    "scaling": "images/s at 8 to 512 GPUs predicted from step, gather and reduce costs (--validate on this machine)",
    "host_syncs": "where a steady pre-training step has the host wait for the device (CPU or GPU)",
    "loader": "images/s per core of the loader beside torchvision's pipeline (--shards FOLDER)",
    "data_wait": "share of step time spent waiting for batches at 0, 10 and 25 % of margin (--shards FOLDER)",
    "store_reading": "samples/s out of a store with latency: read ahead, one by one, cached, from the local disk",
    "certification_worker": "draws/s of a worker beside the bare forward pass and a plain loop (CPU or GPU)",
    "certification_pool": "several Ray workers beside one",
    "certification_ledger": "size of a large ledger, time to report on it",
    "certification_driver": "blocks per second of the driver with workers that answer at once",
    "adaptive_replay": "adaptive certification replayed on published logs beside a fixed n (--logs FOLDER)",
    "cluster_events": "what each event costs a run on a real Slurm (needs root and Slurm)",
    "cluster_timings": "from submit to the first step, seconds lost per restart, cost of checkpoints (root and Slurm)",
    "ibp": "certified training by bounds on digits, with and without each of its parts, over seeds (CPU)",
    "ibp_bounds": "our bounds beside auto_LiRPA's, where that is installed (CPU)",
    "representation_warmup": "probe accuracy over cost with and without representation warm-up, on digits",
    "hard_negatives": "linear probe and k-NN with hard negatives: none, random, static, dynamic, guarded (digits, CPU)",
    "demo_seeds": "the demo over several seeds: pre-trained against from scratch",
}
WITHOUT_DATA = ("pretraining_step",)


def main() -> None:
    """Run the named benchmark, or the default ones."""
    if len(sys.argv) > 1 and sys.argv[1] in DESCRIPTIONS:
        importlib.import_module(f"benchmarks.{sys.argv.pop(1)}").main()
        return
    print("python -m benchmarks NAME [--help]\n")
    for name, description in DESCRIPTIONS.items():
        print(f"  {name:22s}{description}")
    if len(sys.argv) > 1:
        sys.exit(f"\nerror: there is no benchmark {sys.argv[1]!r}")
    for name in WITHOUT_DATA:
        subprocess.run([sys.executable, "-m", "benchmarks", name], check=True)


if __name__ == "__main__":
    main()

"""Fine-tune a classifier on image folders: data -> audit -> model -> training -> calibration -> evaluation -> report.

    python train_hf.py                                             the embedded sample, to check the installation
    python train_hf.py recipes/faces.yaml --data DATA --output_dir runs/NAME
    torchrun --nproc_per_node 2 train_hf.py …                      the same on several processes

The job itself is :mod:`bonaface.cli.train`, read from top to bottom; ``bonaface train`` is the same command.
"""

from bonaface.environment import check_hub
from bonaface.errors import stop_quietly, usage_errors_exit

if __name__ == "__main__":
    with usage_errors_exit():
        check_hub()
    stop_quietly()  # Ctrl-C, while torch is imported

# isort: split

from bonaface.cli.train import main, run

__all__ = ["main"]

if __name__ == "__main__":
    run()

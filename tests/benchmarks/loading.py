"""CPU seconds and memory to load each kind of model and look at it, beside the bare import of what reads it.

python tests/benchmarks/loading.py            (median of three whole processes each; the sample networks)
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from camsweep.tests.benchmarks.race import Bench

SAMPLES = Path(__file__).resolve().parents[2] / "sample_data"
INSPECT = "import sys; from camsweep.cli.app import main; sys.argv[1:] = ['inspect', '--json', *{!r}]; main()"
MAKE = """
import torch, sys, os
from camsweep.sample_data.models import EcgNet
net = EcgNet().eval(); net.load_state_dict(torch.load("{samples}/ecg.pt"))
torch.jit.save(torch.jit.trace(net, torch.zeros(1, 3, 500)), "{folder}/ecg-script.pt")
os.environ["KERAS_BACKEND"] = "tensorflow"
import keras
keras.models.load_model("{samples}/ecg.keras").export("{folder}/saved")
"""


def measured(code: str) -> dict[str, float]:
    """Of a process that runs ``code``, and of those that it starts."""
    seconds, peak = [], []
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        assert status == 0, code
        seconds.append(usage.ru_utime + usage.ru_stime)
        peak.append(usage.ru_maxrss / 1024)
    return {"cpu_s": round(statistics.median(seconds), 2), "peak_MiB": round(statistics.median(peak))}


def case_kinds(bench: Bench) -> None:
    """Each kind of model, and the import that it needs."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-c", MAKE.format(samples=SAMPLES, folder=folder)], check=True,
                       capture_output=True)  # fmt: skip
        ecg = f"{SAMPLES}/ecg"
        cases = {
            "import torch": "import torch",
            "import onnx, torch": "import onnx, torch",
            "import onnxruntime": "import onnxruntime",
            "import keras on torch": "import os; os.environ['KERAS_BACKEND'] = 'torch'; import keras",
            "import tensorflow": "import tensorflow",
            "torch: code and weights": [f"{ecg}.toml"],
            "onnx": [f"{ecg}.onnx"],
            "torchscript": [f"{folder}/ecg-script.pt", "--shape", "3,500"],
            "keras": [f"{ecg}.keras"],
            "keras, native": [f"{ecg}.keras", "--native"],
            "saved model": [f"{folder}/saved", "--shape", "3,500"],
            "saved model, native": [f"{folder}/saved", "--shape", "3,500", "--native"],
        }
        for name, asked in cases.items():
            found = measured(asked if isinstance(asked, str) else INSPECT.format(asked))
            bench.add("loading", name, found["cpu_s"], unit="s", note=f"{found['peak_MiB']} MiB")


if __name__ == "__main__":
    Bench("loading", __doc__ or "", {"kinds": case_kinds}).run()

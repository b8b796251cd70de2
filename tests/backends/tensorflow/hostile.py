"""Files that would run code: each writes a marker where it is run."""

from __future__ import annotations

import json
import pickle
import zipfile
from pathlib import Path

import h5py


def written(folder, marker, keras):
    """Paths of such files, written by ``keras``."""
    lambda_ = _lambda(keras, marker)
    system = {"module": "os", "class_name": "function", "config": "system", "registered_name": "system"}
    popen = {
        "module": "subprocess",
        "class_name": "Popen",
        "config": {"args": ["touch", str(marker)]},
        "registered_name": None,
    }
    places = {
        "layer": lambda config, code: config["layers"].append(code),
        "time": lambda config, code: config["layers"].append(_layer("TimeDistributed", layer=code)),
        "both": lambda config, code: config["layers"].append(_layer("Bidirectional", layer=_layer("RNN", cell=code))),
        "model": lambda config, code: config["layers"].append(_layer("Sequential", layers=[code])),
        "activation": lambda config, code: config["layers"][1]["config"].update(activation=code),
        "initializer": lambda config, code: config["layers"][1]["config"].update(kernel_initializer=code),
    }
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.save(folder / "clean.keras")
    model.save(folder / "clean.h5")
    for where, put in places.items():
        for what, code in (("lambda", lambda_), ("system", system), ("popen", popen)):
            for version in ("3.12.0", "2.15.0"):
                yield _keras(
                    folder, f"{where}_{what}_{version}.keras", version, lambda c, put=put, code=code: put(c, code)
                )
                yield _hdf5(folder, f"{where}_{what}_{version}.h5", version, lambda c, put=put, code=code: put(c, code))
    (folder / "pickle.h5").write_bytes(pickle.dumps(_Runs(str(marker))))
    (folder / "pickle.keras").write_bytes(pickle.dumps(_Runs(str(marker))))
    yield folder / "pickle.h5"
    yield folder / "pickle.keras"


class _Runs:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (Path(self.marker),)


def _lambda(keras, marker):
    layer = keras.layers.Lambda(eval(f"lambda x: (open({str(marker)!r}, 'w'), x)[1]"), output_shape=(2,), name="evil")
    return json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))


def _layer(kind, **config):
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": {"name": kind.lower(), **config},
        "registered_name": None,
    }


def _keras(folder, name, version, change):
    with zipfile.ZipFile(folder / "clean.keras") as archive, zipfile.ZipFile(folder / name, "w") as other:
        for member in archive.namelist():
            content = archive.read(member)
            if member == "config.json":
                config = json.loads(content)
                change(config["config"])
                content = json.dumps(config)
            elif member == "metadata.json":
                content = json.dumps({"keras_version": version})
            other.writestr(member, content)
    return folder / name


def _hdf5(folder, name, version, change):
    (folder / name).write_bytes((folder / "clean.h5").read_bytes())
    with h5py.File(folder / name, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        change(config["config"])
        file.attrs["model_config"], file.attrs["keras_version"] = json.dumps(config), version
    return folder / name

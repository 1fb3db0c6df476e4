"""Networks with zeros, for files, and what their files hold."""

import numpy as np
import tf_keras as keras
from ai_edge_litert.interpreter import Interpreter
from tensorflow.lite.python import schema_py_generated as schema

import tf_movprune
from tf_movprune.core.named_weights import NamedWeight
from tf_movprune.export.compressed_files import coding, decoding

QUANTIZATIONS = ("int8", "float16", None)


def compressed_files(model, folder):
    """Writes a model with values of each type, and returns the files."""
    paths = [folder / f"{quantization}.movprune" for quantization in QUANTIZATIONS]
    for path, quantization in zip(paths, QUANTIZATIONS):
        tf_movprune.export_compressed(model, path, quantization=quantization)
    return paths


def network(seed=0, name=None, width=48):
    """An embedding and three layers, two of them with 10 % of their weights."""
    keras.utils.set_random_seed(seed)
    layers = [
        keras.layers.Embedding(50, 16, input_length=3),
        keras.layers.Flatten(),
        keras.layers.Dense(width, "relu"),
        keras.layers.Dense(width, "relu"),
        keras.layers.LayerNormalization(),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential(layers, name=name)
    random = np.random.RandomState(seed)
    for layer in layers[2:4]:
        kernel = layer.kernel.numpy()
        layer.kernel.assign(kernel * (random.uniform(size=kernel.shape) < 0.1))
        layer.bias.assign(random.standard_normal(layer.bias.shape))
    return model


def arrays_of(model):
    return [weight.numpy() for weight in model.weights]


def encoded(array, quantization, part="layers"):
    return coding.encode(NamedWeight("w", part, array), quantization)


def decoded(weight):
    return decoding.decode(weight.entry, weight.payload)


def dense_model(*sizes, inputs=64, seed=0):
    keras.utils.set_random_seed(seed)
    x = first = keras.Input([8, inputs], name="x")
    for i, size in enumerate(sizes):
        x = keras.layers.Dense(size, "tanh", bias_initializer="normal", name=f"dense_{i}")(x)
    return keras.Model(first, x)


def prune(layer, sparsity, block=(1, 1), seed=0):
    """Zeroes random blocks, as many as said; every input and output stays in use."""
    kernel = layer.kernel.numpy()
    shape = (kernel.shape[0] // block[0], kernel.shape[1] // block[1])
    keep = np.random.RandomState(seed).permutation(shape[0] * shape[1]).reshape(shape)
    mask = np.kron(keep >= sparsity * keep.size, np.ones(block, bool))
    layer.kernel.assign(kernel * mask)


def operators(path):
    """(builtin code, version) of each operator of a file."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAsModel(path.read_bytes(), 0))
    codes = [model.operatorCodes[op.opcodeIndex] for op in model.subgraphs[0].operators]
    return [(max(code.builtinCode, code.deprecatedBuiltinCode), code.version) for code in codes]


def outputs_of(path, x):
    """With the default delegate, and without any."""
    from ai_edge_litert.interpreter import OpResolverType

    for kind in (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES):
        interpreter = Interpreter(
            model_path=str(path), experimental_op_resolver_type=kind, num_threads=2
        )
        yield next(iter(interpreter.get_signature_runner()(x=x).values()))


def random_input(model):
    return np.random.RandomState(3).normal(size=(1, *model.input_shape[1:])).astype(np.float32)


def export(model, path, **options):
    return tf_movprune.export_tflite(model, path, inputs={"x": random_input(model)}, **options)

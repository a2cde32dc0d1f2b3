"""Load a model by name, folder, GGUF file or hub name. Knows no loop."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ostinato.errors import InputError, ModelError, UnknownLayout
from ostinato.models.catalog import (
    CATALOG,
    LLAMA,
    adapter_folder,
    installed_folder,
    require_model,
    split_adapter,
    unknown_model,
    user_path,
)
from ostinato.models.device import CPU, compute_dtype, device_of, find_device
from ostinato.models.files.checkpoint_io import reading_weights
from ostinato.models.files.json_values import Values, read_json
from ostinato.models.files.mapped import MappedTensor, remember_map, remember_places
from ostinato.models.files.weight_mapping import from_file
from ostinato.models.hub import hub_folder, is_hub_name
from ostinato.models.llama_cpp_network import LlamaCppConfig, LlamaCppNetwork
from ostinato.models.networks.config import LlamaConfig
from ostinato.models.networks.families import FAMILIES
from ostinato.models.networks.gru import GRU, MODEL_TYPE, GRUConfig
from ostinato.models.networks.llama import Llama
from ostinato.models.networks.lora import load_adapter, merge
from ostinato.models.networks.quantized import BlockMatrix, QuantizedEmbedding, QuantizedLinear
from ostinato.models.tokenizer import Tokenizer
from ostinato.models.transformers_network import (
    TransformersConfig,
    load_network,
)
from ostinato.waiting import waiting

NARROW = (torch.bfloat16, torch.float16)
_DTYPES = {"BF16": torch.bfloat16, "F16": torch.float16}
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class LanguageModel:
    """A network with its tokenizer, and the folder and name of both.

    The network may be of any class that has a `config` and a backend (`open_backend`). `compile`
    and `bits` select how its tokens are computed: see `load_model`. With `compile=None` the fastest
    way is taken. `dtype` is the type to compute in, where it is chosen.
    """

    network: nn.Module
    tokenizer: Tokenizer
    config: LlamaConfig | TransformersConfig | GRUConfig | LlamaCppConfig
    folder: Path
    name: str
    compile: bool | None = False
    bits: int | None = None
    dtype: torch.dtype | None = None

    @property
    def device(self) -> torch.device:
        """The device of the network; llama.cpp's, which has no parameters here, is the CPU."""
        return device_of(self.network)

    def llama(self) -> Llama:
        """Return the network if it is ours. Raises `ModelError` for any other."""
        if isinstance(self.network, Llama):
            return self.network
        raise ModelError(
            f"the network of {self.name} must be one of {', '.join(FAMILIES)} for this, got "
            f"{self.config.model_type!r}. It can generate; train it with transformers and peft, "
            "then load the result."
        )


def load_model(
    name: str | Path,
    *,
    adapter: str | Path | None = None,
    dtype: torch.dtype | None = None,
    compile: bool | None = None,
    bits: int | None = None,
    device: str | None = None,
) -> LanguageModel:
    """Load a causal language model.

    `name` is one of:

    - a name that `ostinato models` lists (`smollm2`), or `smollm2+support`, with an adapter;
    - a folder in the Hugging Face layout: our own network reads Llama, Mistral, Qwen 2, Qwen 3 and
      GPT-2, `transformers` any other (extra `hf`);
    - a GGUF file of one of these families, or `llama:FILE.gguf` of any family, which llama.cpp runs
      (extra `llama`);
    - a name on the Hugging Face hub, `org/name` or `org/name@revision` (extra `hf`).

    `adapter` is a shipped adapter (`support`) or a folder in PEFT's layout; it is merged. `dtype`
    defaults to bfloat16 where the device multiplies it fast, else to that of the file; matrices
    that a GGUF file holds in 8 bits or fewer stay so, unless `dtype` is given. `device` is `cpu`,
    `cuda` or `cuda:N`.

    `compile` generates tokens by one function compiled for this machine, which is faster and gives
    other bits. It needs a network of ours with RMS norms, and a C++ compiler where Ostinato's wheel
    carries no such function for the processor. By default, the fastest way is timed when the model
    is first used on this machine; it is remembered in the cache folder. `bits` also rounds the
    weights to 8 or 4 bits, in groups.

    Raises `ModelError` where the model is missing, damaged or of another layout, `InputError` where
    this machine lacks the device.
    """
    base, chosen = _base_and_adapter(str(name), adapter)
    with waiting(f"Loading the model {base}…"):
        return _loaded(base, chosen, dtype=dtype, compile=compile, bits=bits, device=device)


def _loaded(
    base: str,
    chosen: str | None,
    *,
    dtype: torch.dtype | None,
    compile: bool | None,
    bits: int | None,
    device: str | None,
) -> LanguageModel:
    where = find_device(device)
    if bits not in (None, 8, 4):
        raise InputError(f"bits must be 8, 4 or None, got {bits}. Use 8 for accuracy.")
    if bits and compile is False:
        raise ModelError(
            f"{bits} bits must be given with compile, got them without. Compile the model too."
        )
    compile = True if bits else compile
    if base.startswith(LLAMA):
        other = None if where == CPU else device
        _refuse_with_llama(adapter=chosen, dtype=dtype, compile=compile, device=other)
        return _load_llama_cpp(user_path(base.removeprefix(LLAMA)), base)
    if compile and where != CPU:
        raise ModelError(
            f"compile must be given for the CPU, got it for {device}. Leave out one of them."
        )
    model = _load(base, dtype, where)
    if compile:
        model.llama()  # refuses other networks, which have no compiled pass
    if chosen is not None:
        model = _with_adapter(model, chosen, mapped=dtype is None and where == CPU)
    model.network.to(where)
    return replace(model, compile=compile, bits=bits, dtype=dtype)


def _base_and_adapter(name: str, adapter: str | Path | None) -> tuple[str, str | None]:
    base, plus = split_adapter(name)
    if plus and adapter is not None:
        raise ModelError(
            f"one adapter must be named, got {plus!r} and {str(adapter)!r}. Leave out one of them."
        )
    return base, plus or (None if adapter is None else str(adapter))


def _load(name: str, dtype: torch.dtype | None, device: torch.device) -> LanguageModel:
    path = find_model(name)
    if path.is_file():
        return _load_gguf(path, name, dtype, device)
    return _load_folder(path, name, dtype, device)


def _held_dtype(stored: torch.dtype | None, device: torch.device) -> torch.dtype:
    """Return the type to hold weights in: that of the file where it has 16 bits already."""
    dtype = compute_dtype(device)
    narrow = stored in NARROW and dtype == torch.float32 and device == CPU
    return stored if narrow and stored is not None else dtype


def _with_adapter(model: LanguageModel, adapter: str, *, mapped: bool) -> LanguageModel:
    load_adapter(model.llama(), adapter_folder(adapter))
    merge(model.llama(), mapped=mapped)
    return replace(model, name=f"{model.name}+{adapter}")


def find_model(name: str) -> Path:
    """Return the folder or GGUF file of a model; one on the hub is downloaded.

    Raises `ModelError` where there is none, or one that writes no text.
    """
    if name in CATALOG:
        require_model(name)
        return installed_folder(name)
    path = user_path(name)
    if not path.exists():
        if is_hub_name(name):
            return hub_folder(name)
        raise unknown_model(name, write=True)
    return path


def _load_folder(
    folder: Path, name: str, asked: torch.dtype | None, device: torch.device
) -> LanguageModel:
    dtype = asked or compute_dtype(device)
    values = read_json(folder / "config.json")
    if values.get("model_type") == MODEL_TYPE:
        gru = GRU.load(folder, values, dtype)
        return LanguageModel(gru, Tokenizer.from_folder(folder), gru.config, folder, name)
    check_unpickled(folder)
    _tell_which_weights(folder)
    try:
        config = LlamaConfig.from_folder(folder)
    except UnknownLayout as reason:  # a damaged file raises ModelError: transformers would not help
        tokenizer = Tokenizer.from_folder(folder)
        other = load_network(folder, dtype, reason)
        return LanguageModel(other, tokenizer, other.config, folder, name)
    tokenizer = Tokenizer.from_folder(folder)
    stored = list(_folder_weights(folder))
    weights = from_file(config, ((each.name, each.tensor) for each in stored))
    dtype = asked or _held_dtype(_stored_dtype(folder), device)
    network = _network(config, weights, str(folder), dtype)
    remember_places(network, stored)
    return LanguageModel(network, tokenizer, network.config, folder, name)


def _load_gguf(
    path: Path, name: str, asked: torch.dtype | None, device: torch.device
) -> LanguageModel:
    from ostinato.models.files.gguf import GGUFModel  # 0.14 s of imports

    file = GGUFModel(path)
    config = file.config()
    tokenizer = file.tokenizer()
    dtype = asked or _held_dtype(_DTYPES.get(file.matrix_kind()), device)
    weights = file.weights(dtype) if asked else file.stored(dtype)
    network = _network(config, weights, str(path), dtype)
    remember_map(network, file.mapped)
    return LanguageModel(network, tokenizer, config, path.parent, name)


def _refuse_with_llama(**options: object) -> None:
    for name, value in options.items():
        if value:
            raise ModelError(
                f"{name} must be left out with llama.cpp, which runs the file as it is, got "
                f"{value}. Leave it out, or load the file without '{LLAMA}'."
            )


def _load_llama_cpp(path: Path, name: str) -> LanguageModel:
    if not path.is_file():
        raise ModelError(f"{path} must be a GGUF file, got none there. Check the path.")
    from ostinato.models.files.gguf import GGUFModel  # 0.14 s of imports

    # Our tokenizer, not llama.cpp's: checks and constraints read its vocabulary.
    tokenizer = GGUFModel(path).tokenizer()
    network = LlamaCppNetwork(path)
    return LanguageModel(network, tokenizer, network.config, path.parent, name)


def _network(
    config: LlamaConfig,
    weights: Iterable[tuple[str, Tensor | BlockMatrix]],
    source: str,
    dtype: torch.dtype,
) -> Llama:
    """Build the network around the weights; `source` is their name in messages."""
    with torch.device("meta"):  # without storage, so that the weights are never in memory twice
        network = Llama(config)
    missing = {name: p.shape for name, p in network.named_parameters(remove_duplicate=False)}
    for name, weight in weights:
        if name not in missing:
            raise ModelError(
                f"{source} must hold a {config.model_type} network, got {name!r} too. "
                "Use the config.json that belongs to the weights."
            )
        if weight.shape != missing.pop(name):
            raise ModelError(
                f"{name} in {source} must have the shape of config.json, got "
                f"{tuple(weight.shape)}. Use the config.json that belongs to the weights."
            )
        _set_weight(network, name, weight, dtype)
    if config.tie_word_embeddings:
        _tie(network, missing, source)
    if missing:
        raise ModelError(
            f"{source} must hold {next(iter(missing))!r} ({len(missing)} missing), got none. "
            "Download the weights again."
        )
    return network.eval()


def _set_weight(
    network: nn.Module, name: str, weight: Tensor | BlockMatrix, dtype: torch.dtype
) -> None:
    path, _, leaf = name.rpartition(".")
    layer = network.get_submodule(path)
    if isinstance(weight, Tensor):
        setattr(layer, leaf, nn.Parameter(weight.to(dtype)))
    elif isinstance(layer, nn.Embedding):
        network.set_submodule(path, QuantizedEmbedding(weight, dtype))
    else:
        assert isinstance(layer, nn.Linear)
        network.set_submodule(path, QuantizedLinear(weight, dtype, layer.bias))


def _tie(network: Llama, missing: dict[str, torch.Size], source: str) -> None:
    """Let embedding and head share the matrix that is there, as `transformers` does.

    Two different ones stay apart: then the weights are right, and config.json is not.
    """
    embedding, head = network.model.embed_tokens, network.lm_head
    stored = {"model.embed_tokens.weight", "lm_head.weight"} - set(missing)
    if stored == {"lm_head.weight"}:
        embedding.weight = head.weight
    elif len(stored) == 2 and not torch.equal(embedding.weight, head.weight):
        network.config = replace(network.config, tie_word_embeddings=False)
        warnings.warn(
            f"{source} holds another lm_head.weight than model.embed_tokens.weight, though its "
            "config.json says that they are one: both are used, as transformers does.",
            stacklevel=2,
        )
        return
    elif isinstance(embedding, QuantizedEmbedding):
        network.lm_head = QuantizedLinear(embedding.matrix, network.dtype)
    else:
        network.lm_head.weight = embedding.weight
    for name in ("model.embed_tokens.weight", "lm_head.weight") if stored else ():
        missing.pop(name, None)


def _stored_dtype(folder: Path) -> torch.dtype | None:
    """Return the type of a folder's first matrix."""
    for path in weight_files(folder)[:1]:
        with reading_weights(path, "Download it again."), safe_open(path, framework="pt") as file:
            parts = map(file.get_slice, file.keys())
            kinds = (part.get_dtype() for part in parts if len(part.get_shape()) > 1)
            return _DTYPES.get(next(kinds, ""))
    return None


def _folder_weights(folder: Path) -> Iterator[MappedTensor]:
    for path in weight_files(folder):
        with reading_weights(path, "Download it again."), safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (a safe_open is no mapping)
                yield MappedTensor(file.get_tensor(name), path, name)


def check_unpickled(folder: Path) -> None:
    """Refuse a folder that holds its weights only as pickles."""
    if any(folder.glob("*.safetensors*")):
        return
    pickled = sorted(path.name for kind in PICKLED for path in folder.glob(kind))
    if pickled:
        raise ModelError(
            f"{folder} must hold its weights as safetensors, got {pickled[0]}. Pickled weights are "
            "not read, since they can run code. If you trust them, convert them with "
            "transformers: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)"
        )


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files of a folder that `transformers` takes.

    That is the file that config.json names, else the whole file, else the parts of the index.
    Raises `ModelError` where there is none, or for a damaged index.
    """
    config = Values(read_json(folder / "config.json"), str(folder / "config.json"))
    named = config.text("transformers_weights") if config.has_value("transformers_weights") else ""
    if named and not named.endswith(".index.json"):
        return [folder / _beside(named, config.file)]
    index = folder / (_beside(named, config.file) if named else INDEX)
    if not named and (folder / WHOLE).is_file():
        return [folder / WHOLE]
    if not index.is_file():
        found = _weights_in(folder)
        raise ModelError(
            f"{folder} must hold {WHOLE}, or parts with {INDEX}, got {found or 'none'}. "
            + (
                "Rename the file that you mean, or give a GGUF file by its own path."
                if found
                else "Download the weights too."
            )
        )
    parts = Values(Values(read_json(index), str(index)).mapping("weight_map"), str(index))
    if not parts.raw:
        raise ModelError(f"{index} must have 'weight_map', got none. Download the folder again.")
    names = sorted({parts.text(name) for name in parts.raw})
    return [folder / _beside(name, str(index)) for name in names]


def _beside(name: str, file: str) -> str:
    """Return the name of a file that `file` names. It must not point out of the folder."""
    if Path(name).name != name:
        raise ModelError(
            f"{file} must name files beside it, got {name!r}. Download the folder again."
        )
    return name


def _weights_in(folder: Path) -> str:
    names = sorted(path.name for kind in ("*.safetensors", "*.gguf") for path in folder.glob(kind))
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _tell_which_weights(folder: Path) -> None:
    """Warn where a folder holds its weights twice."""
    if (folder / WHOLE).is_file() and (folder / INDEX).is_file():
        read = ", ".join(path.name for path in weight_files(folder)[:1])
        warnings.warn(
            f"{folder} holds both {WHOLE} and the parts of {INDEX}: {read} is read, as "
            "transformers does. Delete what is older.",
            stacklevel=2,
        )

"""Open a model by name, folder or GGUF file. Knows no loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from ostinato.errors import ModelError, UnknownLayout
from ostinato.models.catalog import (
    CATALOG,
    LLAMA,
    adapter_folder,
    installed_folder,
    known_models,
    split_adapter,
)
from ostinato.models.device import CPU, compute_dtype, device_of, find_device
from ostinato.models.files.json_values import Values, read_json
from ostinato.models.files.weight_mapping import from_file
from ostinato.models.hub import hub_folder, is_hub_name
from ostinato.models.llama_cpp_network import LlamaCppConfig, LlamaCppNetwork
from ostinato.models.networks.config import LlamaConfig
from ostinato.models.networks.families import FAMILIES
from ostinato.models.networks.gru import GRU, MODEL_TYPE, GRUConfig
from ostinato.models.networks.llama import Llama
from ostinato.models.networks.lora import load_adapter, merge
from ostinato.models.tokenizer import Tokenizer
from ostinato.models.transformers_network import (
    TransformersConfig,
    TransformersNetwork,
    load_network,
)

PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")


@dataclass(frozen=True)
class LanguageModel:
    """A network with its tokenizer, and where both come from.

    `compile` and `int8` say how its tokens are to be computed: see `load_model`.
    """

    network: Llama | TransformersNetwork | GRU | LlamaCppNetwork
    tokenizer: Tokenizer
    config: LlamaConfig | TransformersConfig | GRUConfig | LlamaCppConfig
    folder: Path
    name: str
    compile: bool | None = False
    int8: bool = False

    @property
    def device(self) -> torch.device:
        """Where the network computes."""
        return CPU if isinstance(self.network, LlamaCppNetwork) else device_of(self.network)

    def llama(self) -> Llama:
        """Return the network where it is ours; raise `ModelError` where it is `transformers`'."""
        if isinstance(self.network, Llama):
            return self.network
        raise ModelError(
            f"the network of {self.name} must be one of {', '.join(FAMILIES)} for this, got "
            f"{self.config.model_type!r}. It can write; train it with transformers and peft, and "
            "load what they save."
        )


def load_model(
    name: str | Path,
    *,
    adapter: str | Path | None = None,
    dtype: torch.dtype | None = None,
    compile: bool | None = None,
    int8: bool = False,
    device: str | None = None,
) -> LanguageModel:
    """Load a causal language model.

    `name` is a name that `ostinato models` lists (`smollm2`), a folder in the Hugging Face
    layout, a GGUF file, or a name on the Hugging Face hub (`org/name`, `org/name@revision`; extra
    `hf`). Llama, Mistral, Qwen 2, Qwen 3 and GPT-2 are read by our own network, any other folder
    through `transformers` (extra `hf`). `llama:FILE.gguf` is a GGUF file, of any architecture, that
    llama.cpp runs as it is (extra `llama`). `adapter` is an adapter that ships with Ostinato
    (`support`) or a folder in PEFT's layout; `smollm2+support` is short for `smollm2` with
    `adapter="support"`. The adapter is merged. `dtype` is what the network computes in: without
    it, bfloat16 where the device multiplies it fast, else float32. `device` is `cpu`, `cuda` or
    `cuda:N`.

    With `compile` the model writes by one function that is compiled for this machine once: other
    bits than without, and faster; it needs a C++ compiler and a network of ours with RMS norms. By
    default it does so where it can, on x86 processors. `int8` rounds its weights to 8 bits then.

    Raises `ModelError` with the mend where the model is missing, damaged or of another layout,
    `InputError` where the device is not there.
    """
    where = find_device(device)
    base, plus = split_adapter(str(name))
    if plus and adapter is not None:
        raise ModelError(
            f"one adapter must be named, got {plus!r} and {str(adapter)!r}. Leave out one of them."
        )
    if int8 and compile is False:
        raise ModelError("int8 must be given with compile, got it without. Compile the model too.")
    compile = True if int8 else compile
    if base.startswith(LLAMA):
        given = {"adapter": plus or adapter, "dtype": dtype, "compile": compile, "device": device}
        _refuse_with_llama(**given)
        return _load_llama_cpp(Path(base.removeprefix(LLAMA)).expanduser(), base)
    if compile and where != CPU:
        raise ModelError(
            f"compile must be given for the processor, got it for {device}. Leave out one of them."
        )
    dtype = compute_dtype(where) if dtype is None else dtype
    path = _find(base)
    model = _load_gguf(path, base, dtype) if path.is_file() else _load_folder(path, base, dtype)
    if compile:
        model.llama()  # others have no compiled pass
    chosen = plus or (None if adapter is None else str(adapter))
    if chosen is not None:
        load_adapter(model.llama(), adapter_folder(chosen))
        merge(model.llama())
        model = replace(model, name=f"{base}+{chosen}")
    if not isinstance(model.network, LlamaCppNetwork):
        model.network.to(where)
    return replace(model, compile=compile, int8=int8)


def _find(name: str) -> Path:
    if name in CATALOG:
        _check_known_writes(name)
        return installed_folder(name)
    path = Path(name).expanduser()
    if not path.exists():
        if is_hub_name(name):
            return hub_folder(name)
        raise ModelError(
            f"model must be {' or '.join(known_models(write=True))}, a folder or a GGUF file, got "
            f"{name!r}. Check the name or the path; a name on the hub is org/name."
        )
    return path


def _check_known_writes(name: str) -> None:
    if not CATALOG[name].writes:
        raise ModelError(
            f"model must be one that writes text ({', '.join(known_models(write=True))}), got "
            f"{name!r}: {CATALOG[name].title}. It serves the check on_topic, and past cases by "
            "meaning."
        )


def _load_folder(folder: Path, name: str, dtype: torch.dtype) -> LanguageModel:
    values = read_json(folder / "config.json")
    if values.get("model_type") == MODEL_TYPE:
        gru = GRU.load(folder, values, dtype)
        return LanguageModel(gru, Tokenizer.from_folder(folder), gru.config, folder, name)
    _check_unpickled(folder)
    try:
        config = LlamaConfig.from_folder(folder)
    except UnknownLayout as reason:
        tokenizer = Tokenizer.from_folder(folder)
        other = load_network(folder, dtype, reason)
        return LanguageModel(other, tokenizer, other.config, folder, name)
    tokenizer = Tokenizer.from_folder(folder)
    network = _network(config, _folder_weights(folder), str(folder), dtype)
    return LanguageModel(network, tokenizer, config, folder, name)


def _load_gguf(path: Path, name: str, dtype: torch.dtype) -> LanguageModel:
    from ostinato.models.files.gguf import GGUFModel  # 0.14 s of imports

    file = GGUFModel(path)
    config = file.config()
    tokenizer = file.tokenizer()
    network = _network(config, file.weights(dtype), str(path), dtype)
    return LanguageModel(network, tokenizer, config, path.parent, name)


def _refuse_with_llama(**given: object) -> None:
    for name, value in given.items():
        if value:
            raise ModelError(
                f"{name} must be left out with llama.cpp, which takes the file as it is, got "
                f"{value}. Leave it out, or load the file without '{LLAMA}'."
            )


def _load_llama_cpp(path: Path, name: str) -> LanguageModel:
    if not path.is_file():
        raise ModelError(f"{path} must be a GGUF file, got none there. Check the path.")
    from ostinato.models.files.gguf import GGUFModel  # 0.14 s of imports

    tokenizer = GGUFModel(path).tokenizer()
    network = LlamaCppNetwork(path)
    return LanguageModel(network, tokenizer, network.config, path.parent, name)


def _network(
    config: LlamaConfig, weights: Iterator[tuple[str, Tensor]], where: str, dtype: torch.dtype
) -> Llama:
    """Build the network around the weights, without ever holding them twice."""
    with torch.device("meta"):
        network = Llama(config)
    wanted = {name: p.shape for name, p in network.named_parameters(remove_duplicate=False)}
    if config.tie_word_embeddings:
        del wanted["lm_head.weight"]
    for name, tensor in from_file(config, weights):
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        if name not in wanted:
            raise ModelError(
                f"{where} must hold a {config.model_type} network, got {name!r} too. "
                "Take the config.json that belongs to the weights."
            )
        if tensor.shape != wanted.pop(name):
            raise ModelError(
                f"{name} in {where} must have the shape of config.json, got {tuple(tensor.shape)}. "
                "Take the config.json that belongs to the weights."
            )
        _place(network, name, tensor.to(dtype))
    if wanted:
        raise ModelError(
            f"{where} must hold {next(iter(wanted))!r} ({len(wanted)} missing), got none. "
            "Download the weights anew."
        )
    if config.tie_word_embeddings:
        network.lm_head.weight = network.model.embed_tokens.weight
    return network.eval()


def _place(network: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(path), leaf, nn.Parameter(tensor))


def _folder_weights(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for path in _weight_files(folder):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (a safe_open is no mapping)
                    yield name, file.get_tensor(name)
        except FileNotFoundError:
            raise ModelError(f"{path} must exist, got no such file. Download it anew.") from None
        except (OSError, SafetensorError) as error:
            raise ModelError(
                f"{path} must be a whole safetensors file, got: {error}. Download it anew."
            ) from error


def _check_unpickled(folder: Path) -> None:
    if any(folder.glob("*.safetensors*")):
        return
    pickled = sorted(path.name for kind in PICKLED for path in folder.glob(kind))
    if pickled:
        raise ModelError(
            f"{folder} must hold its weights as safetensors, got {pickled[0]}. Pickled weights are "
            "not read, since they can run code. Where you trust them, convert them with "
            "transformers: AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder)"
        )


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [folder / "model.safetensors"]
    parts = Values(Values(read_json(index), str(index)).mapping("weight_map"), str(index))
    if not parts.held:
        raise ModelError(f"{index} must have 'weight_map', got none. Download the folder anew.")
    names = sorted({parts.text(name) for name in parts.held})
    for name in names:
        if Path(name).name != name:  # an index must not lead out of its folder
            raise ModelError(
                f"{index} must name files beside it, got {name!r}. Download the folder anew."
            )
    return [folder / name for name in names]

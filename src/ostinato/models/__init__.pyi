from .catalog import (
    CATALOG,
    LLAMA,
    CatalogEntry,
    adapter_folder,
    cache_root,
    catalog_entry,
    is_installed,
    known_models,
    model_folder,
    model_place,
    require_model,
    shipped_adapters,
)
from .device import (
    CPU,
    compute_dtype,
    deterministic_ops,
    device_of,
    find_device,
    plain_compute_mode,
)
from .download import download_model
from .encoder import Encoder, load_encoder
from .facts import (
    facts_are_kept,
    is_known_code,
    machine,
    network_key,
    recall,
    remember,
    source_hash,
)
from .files.checkpoint_io import (
    read_config,
    read_weights,
    save_tensors,
    write_config,
    write_weights,
)
from .files.gguf import GGUFModel
from .files.hashing import file_hash, hash_parts, weights_digest, write_atomically
from .files.mapped import release_pages
from .files.weight_mapping import to_file
from .hub import is_hub_name
from .llama_cpp_network import LlamaCppConfig, LlamaCppNetwork
from .load import LanguageModel, load_model
from .masked import MASK, MaskedModel, load_masked_model
from .memory import (
    MemoryNeed,
    ModelFacts,
    check_memory,
    free_memory,
    memory_needed,
    read_facts,
    size_text,
)
from .networks.bert import Bert, BertConfig, MaskedBert, load_masked, save_masked
from .networks.config import LlamaConfig
from .networks.groups import Groups, in_common, quantized_in_groups
from .networks.gru import GRU, GRUConfig
from .networks.llama import (
    ACTIVATIONS,
    Attention,
    DecoderLayer,
    LayerNorm,
    Llama,
    Norm,
    RMSNorm,
    inverse_frequencies,
    rope_table,
)
from .networks.lora import (
    PROJECTIONS,
    LoraLinear,
    add_lora,
    load_adapter,
    lora_layers,
    merge,
    save_adapter,
)
from .networks.quantized import (
    BlockMatrix,
    QuantizedEmbedding,
    QuantizedLinear,
    has_computed_weights,
    is_quantized,
)
from .networks.train_kernels import rotate
from .processor import instruction_sets, processor_name, read_gb_s
from .shared import shared_model
from .tokenizer import Tokenizer
from .transformers_network import TransformersConfig, TransformersNetwork, crop

__all__ = [
    "ACTIVATIONS",
    "CATALOG",
    "CPU",
    "GRU",
    "LLAMA",
    "MASK",
    "PROJECTIONS",
    "Attention",
    "Bert",
    "BertConfig",
    "BlockMatrix",
    "CatalogEntry",
    "DecoderLayer",
    "Encoder",
    "GGUFModel",
    "GRUConfig",
    "Groups",
    "LanguageModel",
    "LayerNorm",
    "Llama",
    "LlamaConfig",
    "LlamaCppConfig",
    "LlamaCppNetwork",
    "LoraLinear",
    "MaskedBert",
    "MaskedModel",
    "MemoryNeed",
    "ModelFacts",
    "Norm",
    "QuantizedEmbedding",
    "QuantizedLinear",
    "RMSNorm",
    "Tokenizer",
    "TransformersConfig",
    "TransformersNetwork",
    "adapter_folder",
    "add_lora",
    "cache_root",
    "catalog_entry",
    "check_memory",
    "compute_dtype",
    "crop",
    "deterministic_ops",
    "device_of",
    "download_model",
    "facts_are_kept",
    "file_hash",
    "find_device",
    "free_memory",
    "has_computed_weights",
    "hash_parts",
    "in_common",
    "instruction_sets",
    "inverse_frequencies",
    "is_hub_name",
    "is_installed",
    "is_known_code",
    "is_quantized",
    "known_models",
    "load_adapter",
    "load_encoder",
    "load_masked",
    "load_masked_model",
    "load_model",
    "lora_layers",
    "machine",
    "memory_needed",
    "merge",
    "model_folder",
    "model_place",
    "network_key",
    "plain_compute_mode",
    "processor_name",
    "quantized_in_groups",
    "read_config",
    "read_facts",
    "read_gb_s",
    "read_weights",
    "recall",
    "release_pages",
    "remember",
    "require_model",
    "rope_table",
    "rotate",
    "save_adapter",
    "save_masked",
    "save_tensors",
    "shared_model",
    "shipped_adapters",
    "size_text",
    "source_hash",
    "to_file",
    "weights_digest",
    "write_atomically",
    "write_config",
    "write_weights",
]

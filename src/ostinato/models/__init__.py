"""Networks, tokenizers and adapters, and where weights come from. Knows no loop."""

from ostinato.models.backend import Backend, open_backend, way_of
from ostinato.models.bert import Bert, BertConfig, MaskedBert, load_masked, save_masked
from ostinato.models.blocks import Counts, Row
from ostinato.models.config import LlamaConfig
from ostinato.models.device import compute_dtype, deterministic, device_of, find_device
from ostinato.models.digest import weights_digest
from ostinato.models.encoder import Encoder, load_encoder
from ostinato.models.get import get_model
from ostinato.models.gguf_file import GGUFModel
from ostinato.models.graph_inference import GraphInference
from ostinato.models.gru import GRU, GRUConfig
from ostinato.models.gru_inference import GRUInference
from ostinato.models.inference import Inference
from ostinato.models.known import KNOWN, Known
from ostinato.models.llama import Llama
from ostinato.models.llama_cpp_inference import LlamaCppInference
from ostinato.models.llama_cpp_network import LlamaCppConfig, LlamaCppNetwork
from ostinato.models.load import LanguageModel, load_model
from ostinato.models.lora import PROJECTIONS, add_lora, load_adapter, merge, save_adapter
from ostinato.models.masked import MaskedModel, load_masked_model
from ostinato.models.native import NativeInference
from ostinato.models.self_test import SelfTest
from ostinato.models.tokenizer import Tokenizer
from ostinato.models.transformers_inference import TransformersInference
from ostinato.models.transformers_network import TransformersConfig, TransformersNetwork

__all__ = [
    "GRU",
    "KNOWN",
    "PROJECTIONS",
    "Backend",
    "Bert",
    "BertConfig",
    "Counts",
    "Encoder",
    "GGUFModel",
    "GRUConfig",
    "GRUInference",
    "GraphInference",
    "Inference",
    "Known",
    "LanguageModel",
    "Llama",
    "LlamaConfig",
    "LlamaCppConfig",
    "LlamaCppInference",
    "LlamaCppNetwork",
    "MaskedBert",
    "MaskedModel",
    "NativeInference",
    "Row",
    "SelfTest",
    "Tokenizer",
    "TransformersConfig",
    "TransformersInference",
    "TransformersNetwork",
    "add_lora",
    "compute_dtype",
    "deterministic",
    "device_of",
    "find_device",
    "get_model",
    "load_adapter",
    "load_encoder",
    "load_masked",
    "load_masked_model",
    "load_model",
    "merge",
    "open_backend",
    "save_adapter",
    "save_masked",
    "way_of",
    "weights_digest",
]

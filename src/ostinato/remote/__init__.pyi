from .lanes import PromptFn, ServerLanes, check_sampling
from .openai_api import Message, PromptInput, StreamChunk, Usage, piece
from .retry import Response, RetryableError, ServerError, error_of, wait
from .server import Server, is_server
from .spend_limit import SpendLimit
from .text_ids import END, sign, spell

__all__ = [
    "END",
    "Message",
    "PromptFn",
    "PromptInput",
    "Response",
    "RetryableError",
    "Server",
    "ServerError",
    "ServerLanes",
    "SpendLimit",
    "StreamChunk",
    "Usage",
    "check_sampling",
    "error_of",
    "is_server",
    "piece",
    "sign",
    "spell",
    "wait",
]

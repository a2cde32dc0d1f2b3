from .completion import complete
from .edits import check_sampling
from .lanes import PromptFn, ServerLanes
from .openai_api import CompletionRequest, Message, PromptInput, StreamChunk, Usage
from .retry import PermanentError, RetryableError, ServerError
from .server import Server, is_server
from .spend_limit import SpendLimit
from .text_ids import END, character_ids, text_id

__all__ = [
    "END",
    "CompletionRequest",
    "Message",
    "PermanentError",
    "PromptFn",
    "PromptInput",
    "RetryableError",
    "Server",
    "ServerError",
    "ServerLanes",
    "SpendLimit",
    "StreamChunk",
    "Usage",
    "character_ids",
    "check_sampling",
    "complete",
    "is_server",
    "text_id",
]

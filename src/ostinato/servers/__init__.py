"""Any OpenAI-compatible server as a lane process: answers a piece a step, journaled, budgeted."""

from ostinato.servers.allowance import Allowance
from ostinato.servers.faults import Fault, Response, ServerError, error_of, wait
from ostinato.servers.lanes import Asker, ServerLanes, check_sampling
from ostinato.servers.pieces import END, sign, spell
from ostinato.servers.server import Server, is_server
from ostinato.servers.wire import Message, Piece, Prompt, Usage, piece

__all__ = [
    "END",
    "Allowance",
    "Asker",
    "Fault",
    "Message",
    "Piece",
    "Prompt",
    "Response",
    "Server",
    "ServerError",
    "ServerLanes",
    "Usage",
    "check_sampling",
    "error_of",
    "is_server",
    "piece",
    "sign",
    "spell",
    "wait",
]

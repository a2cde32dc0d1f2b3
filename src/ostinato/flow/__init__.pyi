from .calls import ask, gather, now, sleep, uniform, version
from .config import FlowRun
from .dialogue.chat import Stage
from .dialogue.chat_config import ChatRun
from .dialogue.chat_work import (
    ChatWork,
    build_chat,
    names_of,
    told_conversation,
    write_conversation,
)
from .dialogue.dialogue import Dialogue
from .dialogue.hand_over import HandOver
from .dialogue.moves import Move, turns_of
from .dialogue.turns import Answer, Memory, Turn
from .flow_function import FlowFunction
from .flows import AsyncFlow, Flow, flow
from .lanes import FlowLanes, FlowsFailed, key_of, prefix_of
from .limits import LimitReached, Limits
from .record import FlowChanged
from .run import FlowWork, build_flow, flow_of, rows_digest_of
from .sampling import sample
from .steps import Step, step
from .task import FlowSettings, own_traceback
from .text_calls import Judged, NoChoice, Reply, TakenBack, check, choose, generate

__all__ = [
    "Answer",
    "AsyncFlow",
    "ChatRun",
    "ChatWork",
    "Dialogue",
    "Flow",
    "FlowChanged",
    "FlowFunction",
    "FlowLanes",
    "FlowRun",
    "FlowSettings",
    "FlowWork",
    "FlowsFailed",
    "HandOver",
    "Judged",
    "LimitReached",
    "Limits",
    "Memory",
    "Move",
    "NoChoice",
    "Reply",
    "Stage",
    "Step",
    "TakenBack",
    "Turn",
    "ask",
    "build_chat",
    "build_flow",
    "check",
    "choose",
    "flow",
    "flow_of",
    "gather",
    "generate",
    "key_of",
    "names_of",
    "now",
    "own_traceback",
    "prefix_of",
    "rows_digest_of",
    "sample",
    "sleep",
    "step",
    "told_conversation",
    "turns_of",
    "uniform",
    "version",
    "write_conversation",
]

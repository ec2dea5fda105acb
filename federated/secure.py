"""SecAgg+ as Flower has it (Bell et al., CCS 2020), under Flower's strategies of today.

Flower 1.42 has the protocol for its former API alone: a workflow at the server, a mod at the site.
Here the workflow stands in the place of sending messages and waiting for replies, and each reply
then carries the average of all sites. What a site sends is masked, and the masks cancel in the sum.
"""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.client.mod import secaggplus_mod
from flwr.common import Code, FitIns, FitRes, Status, ndarrays_to_parameters, parameters_to_ndarrays
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.compat.common import recorddict_compat as compat
from flwr.server import LegacyContext
from flwr.server.workflow import SecAggPlusWorkflow
from flwr.server.workflow.constant import MAIN_CONFIGS_RECORD, MAIN_PARAMS_RECORD
from flwr.server.workflow.constant import Key as WorkflowKey
from flwr.serverapp import Grid

from pipeline.core.errors import DataError

from .records import ARRAYS, CONFIG, WEIGHT, arrays_of, record_of

CLIP = 64.0  # numbers are sent between minus this and this
THRESHOLD = 0.6  # of the sites that began have to be there at the end

Handler = Callable[[Message, Context], Message]


def _precision(sites: int) -> int:
    """Into how many steps the numbers are divided: the sum over all sites must fit in 32 bits."""
    return 1 << (30 - max(1, (sites - 1).bit_length()))


def secure_round(
    grid: Grid,
    messages: Sequence[Message],
    context: Context,
    most: int,
    timeout: float,
    fewest: int,
) -> dict[int, Message]:
    """Send training messages, and get from each site the average of all of them.

    Args:
        grid: reaches the sites.
        messages: one for each site, all of the same content.
        context: the run's.
        most: rows of the largest site, at most.
        timeout: seconds for each of the protocol's four exchanges.
        fewest: sites of which an average is made. Of fewer none is unmasked: the round is tried
            again, and a site that is there then would be the difference of the two sums.

    Returns:
        the replies by site, all alike and of weight 1; none where the protocol ended early.
    """
    content, found = messages[0].content, {}
    names = list(content[ARRAYS])
    parameters = ndarrays_to_parameters([content[ARRAYS][name].numpy() for name in names])
    config = dict(content[CONFIG]) | {"names": " ".join(names)}
    by_node = {message.metadata.dst_node_id: message for message in messages}

    class Averaging:
        """What the workflow asks of a strategy."""

        def configure_fit(self, *_: Any) -> list[tuple[Any, FitIns]]:
            return [(SimpleNamespace(node_id=node), FitIns(parameters, config)) for node in by_node]

        def aggregate_fit(
            self, _: int, results: list[tuple[Any, FitRes]], failures: list[Any]
        ) -> tuple[None, dict[str, Any]]:
            for proxy, result in results:
                arrays = parameters_to_ndarrays(result.parameters)
                reply = record_of(dict(zip(names, arrays, strict=True)), 1.0)
                found[proxy.node_id] = Message(reply, reply_to=by_node[proxy.node_id])
            return None, {}

    managed = SimpleNamespace(num_available=lambda: len(by_node))
    legacy = LegacyContext(context=context, strategy=Averaging(), client_manager=managed)
    legacy.state.array_records[MAIN_PARAMS_RECORD] = ArrayRecord()
    legacy.state.config_records[MAIN_CONFIGS_RECORD] = ConfigRecord(
        {WorkflowKey.CURRENT_ROUND: int(config["server-round"])}
    )
    SecAggPlusWorkflow(
        num_shares=1.0,
        reconstruction_threshold=max(round(THRESHOLD * len(by_node)), fewest),
        max_weight=float(most),
        clipping_range=CLIP,
        quantization_range=_precision(len(by_node)),
        timeout=timeout,
    )(grid, legacy)
    return found


def masked(message: Message, context: Context, call_next: Handler) -> Message:
    """A mod: masks what a site sends where the server asks for it so, and else leaves it alone.

    A site whose node config says `secure=true` answers no training message that is not masked.

    Raises:
        DataError: this site wants its numbers masked, and the server does not; or a number is too
            large to be masked.
    """
    if RECORD_KEY_CONFIGS not in message.content.config_records:
        training = message.metadata.message_type.partition(".")[0] == "train"
        if training and context.node_config.get("secure"):
            raise DataError("this site sends masked numbers alone: run with secure=true")
        return call_next(message, context)

    def plain(asked: Message, context: Context) -> Message:
        """What Flower's mod calls: its former records in and out, ours inside."""
        given = compat.recorddict_to_fitins(asked.content, keep_input=False)
        names = str(given.config["names"]).split()
        values = parameters_to_ndarrays(given.parameters)
        asked.content = RecordDict(
            {
                ARRAYS: ArrayRecord.from_numpy_ndarrays(values),
                CONFIG: ConfigRecord(given.config),
            }
        )
        asked.content[ARRAYS] = record_of(dict(zip(names, values, strict=True)), 0)[ARRAYS]
        reply = call_next(asked, context).content
        arrays = list(arrays_of(reply).values())
        largest = max(float(np.abs(array).max(initial=0)) for array in arrays)
        if not largest < CLIP:
            raise DataError(f"a number to be masked is {largest:.3g}, and may be below {CLIP:g}")
        rows = int(next(iter(reply.metric_records.values()))[WEIGHT])
        result = FitRes(Status(Code.OK, ""), ndarrays_to_parameters(arrays), rows, {})
        return Message(compat.fitres_to_recorddict(result, keep_input=False), reply_to=asked)

    stage = message.content.config_records[RECORD_KEY_CONFIGS][Key.STAGE]
    reply = secaggplus_mod(message, context, plain)
    if stage == Stage.COLLECT_MASKED_VECTORS:
        # Flower's mod leaves the number of rows in the open beside the masked one.
        counts = reply.content.metric_records
        for name in counts:
            counts[name] = MetricRecord({"num_examples": 1})
    return reply

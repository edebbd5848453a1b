"""What is done to ONNX graphs in more than one place."""

from collections.abc import Iterable

from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper


def plain(model: ModelProto) -> ModelProto:
    """A copy whose weights are float32 initialisers, with no Cast of a constant left: undoes the halved storage of
    recipes."""
    fresh = ModelProto()
    fresh.CopyFrom(model)
    constants = {tensor.name: tensor for tensor in fresh.graph.initializer}
    nodes = []
    for node in fresh.graph.node:
        if node.op_type == "Cast" and node.input[0] in constants:
            values = numpy_helper.to_array(constants[node.input[0]])
            wanted = helper.tensor_dtype_to_np_dtype(helper.get_node_attr_value(node, "to"))
            constants[node.output[0]] = numpy_helper.from_array(values.astype(wanted), node.output[0])
        else:
            nodes.append(node)
    replace_nodes(fresh, nodes, constants.values())
    return fresh


def replace_nodes(model: ModelProto, nodes: Iterable[NodeProto], tensors: Iterable[TensorProto]) -> None:
    """Sets the graph's nodes, and of the tensors those that a node uses."""
    kept = list(nodes)
    used = {name for node in kept for name in node.input}
    weights = [tensor for tensor in tensors if tensor.name in used]
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(weights)

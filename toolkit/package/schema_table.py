"""The fields of Triton's model configuration, as its documentation lists them.

A message is a line of fields, each ``name type``; ``*`` repeats, ``{}`` maps strings to the type,
``|group`` lets one field of a group be given. An enumeration is a line of names.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["ENUMS", "MESSAGES", "ROOT"]

ROOT = "ModelConfig"

MESSAGES: Mapping[str, str] = {
    "ModelConfig": "name string, platform string, backend string, runtime string, "
    "default_model_filename string, max_batch_size int32, input ModelInput*, output ModelOutput*, "
    "batch_input BatchInput*, batch_output BatchOutput*, version_policy ModelVersionPolicy, "
    "instance_group ModelInstanceGroup*, "
    "dynamic_batching ModelDynamicBatching|scheduling_choice, "
    "sequence_batching ModelSequenceBatching|scheduling_choice, "
    "ensemble_scheduling ModelEnsembling|scheduling_choice, "
    "optimization ModelOptimizationPolicy, cc_model_filenames string{}, metric_tags string{}, "
    "parameters ModelParameter{}, model_warmup ModelWarmup*, model_operations ModelOperations, "
    "model_transaction_policy ModelTransactionPolicy, "
    "model_repository_agents ModelRepositoryAgents, response_cache ModelResponseCache, "
    "model_metrics ModelMetrics",
    "ModelVersionPolicy": "latest Latest|policy_choice, all All|policy_choice, "
    "specific Specific|policy_choice",
    "Latest": "num_versions uint32",
    "All": "",
    "Specific": "versions int64*",
    "ModelInput": "name string, data_type DataType, format Format, dims int64*, "
    "reshape ModelTensorReshape, is_shape_tensor bool, allow_ragged_batch bool, optional bool, "
    "is_non_linear_format_io bool",
    "ModelOutput": "name string, data_type DataType, dims int64*, reshape ModelTensorReshape, "
    "label_filename string, is_shape_tensor bool, is_non_linear_format_io bool",
    "ModelTensorReshape": "shape int64*",
    "BatchInput": "kind BatchInputKind, target_name string*, data_type DataType, "
    "source_input string*",
    "BatchOutput": "target_name string*, kind BatchOutputKind, source_input string*",
    "ModelInstanceGroup": "name string, kind InstanceKind, count int32, "
    "rate_limiter ModelRateLimiter, gpus int32*, secondary_devices SecondaryDevice*, "
    "profile string*, passive bool, host_policy string",
    "ModelRateLimiter": "resources Resource*, priority uint32",
    "Resource": "name string, global bool, count uint32",
    "SecondaryDevice": "kind SecondaryDeviceKind, device_id int64",
    "ModelDynamicBatching": "preferred_batch_size int32*, max_queue_delay_microseconds uint64, "
    "preserve_ordering bool, priority_levels uint64, default_priority_level uint64, "
    "default_queue_policy ModelQueuePolicy, priority_queue_policy PriorityQueuePolicyEntry*",
    "PriorityQueuePolicyEntry": "key uint64, value ModelQueuePolicy",
    "ModelQueuePolicy": "timeout_action TimeoutAction, default_timeout_microseconds uint64, "
    "allow_timeout_override bool, max_queue_size uint32",
    "ModelSequenceBatching": "direct StrategyDirect|strategy_choice, "
    "oldest StrategyOldest|strategy_choice, max_sequence_idle_microseconds uint64, "
    "control_input ControlInput*, state State*, iterative_sequence bool",
    "StrategyDirect": "max_queue_delay_microseconds uint64, minimum_slot_utilization float",
    "StrategyOldest": "max_candidate_sequences int32, preferred_batch_size int32*, "
    "max_queue_delay_microseconds uint64, preserve_ordering bool",
    "ControlInput": "name string, control Control*",
    "Control": "kind ControlKind, int32_false_true int32*, fp32_false_true float*, "
    "bool_false_true bool*, data_type DataType",
    "State": "input_name string, output_name string, data_type DataType, dims int64*, "
    "initial_state InitialState*, use_same_buffer_for_input_output bool, "
    "use_growable_memory bool",
    "InitialState": "data_type DataType, dims int64*, zero_data bool|state_data, "
    "data_file string|state_data, name string",
    "ModelEnsembling": "step Step*, max_inflight_requests uint32",
    "Step": "model_name string, model_version int64, input_map string{}, output_map string{}, "
    "model_namespace string",
    "ModelOptimizationPolicy": "graph Graph, priority ModelPriority, cuda Cuda, "
    "execution_accelerators ExecutionAccelerators, input_pinned_memory PinnedMemoryBuffer, "
    "output_pinned_memory PinnedMemoryBuffer, gather_kernel_buffer_threshold uint32, "
    "eager_batching bool",
    "Graph": "level int32",
    "Cuda": "graphs bool, busy_wait_events bool, graph_spec GraphSpec*, output_copy_stream bool",
    "GraphSpec": "batch_size int32, input Shape{}, graph_lower_bound LowerBound",
    "LowerBound": "batch_size int32, input Shape{}",
    "Shape": "dim int64*",
    "ExecutionAccelerators": "gpu_execution_accelerator Accelerator*, "
    "cpu_execution_accelerator Accelerator*",
    "Accelerator": "name string, parameters string{}",
    "PinnedMemoryBuffer": "enable bool",
    "ModelParameter": "string_value string",
    "ModelWarmup": "name string, batch_size uint32, inputs WarmupInput{}, count uint32",
    "WarmupInput": "data_type DataType, dims int64*, zero_data bool|input_data_type, "
    "random_data bool|input_data_type, input_data_file string|input_data_type",
    "ModelOperations": "op_library_filename string*",
    "ModelTransactionPolicy": "decoupled bool",
    "ModelRepositoryAgents": "agents Agent*",
    "Agent": "name string, parameters string{}",
    "ModelResponseCache": "enable bool",
    "ModelMetrics": "metric_control MetricControl*",
    "MetricControl": "metric_identifier MetricIdentifier, "
    "histogram_options HistogramOptions|metric_options",
    "MetricIdentifier": "family string",
    "HistogramOptions": "buckets double*",
}

ENUMS: Mapping[str, str] = {
    "DataType": "TYPE_INVALID TYPE_BOOL TYPE_UINT8 TYPE_UINT16 TYPE_UINT32 TYPE_UINT64 TYPE_INT8 "
    "TYPE_INT16 TYPE_INT32 TYPE_INT64 TYPE_FP16 TYPE_FP32 TYPE_FP64 TYPE_STRING TYPE_BF16",
    "Format": "FORMAT_NONE FORMAT_NHWC FORMAT_NCHW",
    "BatchInputKind": "BATCH_ELEMENT_COUNT BATCH_ACCUMULATED_ELEMENT_COUNT "
    "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO BATCH_MAX_ELEMENT_COUNT_AS_SHAPE BATCH_ITEM_SHAPE "
    "BATCH_ITEM_SHAPE_FLATTEN",
    "BatchOutputKind": "BATCH_SCATTER_WITH_INPUT_SHAPE",
    "InstanceKind": "KIND_AUTO KIND_GPU KIND_CPU KIND_MODEL",
    "SecondaryDeviceKind": "KIND_NVDLA",
    "TimeoutAction": "REJECT DELAY",
    "ControlKind": "CONTROL_SEQUENCE_START CONTROL_SEQUENCE_READY CONTROL_SEQUENCE_END "
    "CONTROL_SEQUENCE_CORRID",
    "ModelPriority": "PRIORITY_DEFAULT PRIORITY_MAX PRIORITY_MIN",
}

// What an operator of gating is told: the attributes of the contracts in graphs/moe_ops.py.
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

// Names, types and defaults are those of the contracts' attributes; a test holds them together.
// A struct that is zeroed but for num_experts and k is not valid: scale and the last three are 1.
typedef struct ToolkitGating {
    int num_experts;  // E, 1 to 1024
    int k;            // 1 to min(32, E)
    int normalize;    // = 1: weights are divided by their sum
    float scale;      // = 1.0
    int sigmoid;      // = 1: scores are sigmoids; 0: softmax
    int groups;       // = 1: divides num_experts
    int top_groups;   // = 1: to groups
    int group_top;    // = 1: to num_experts / groups
    int grouped;      // not an attribute: 1 for GroupedTopKGating, 0 for TopKGating, which reads
                      // the first four
} ToolkitGating;

enum { TOOLKIT_MAX_EXPERTS = 1024, TOOLKIT_MAX_K = 32 };

#ifdef __cplusplus
}
#endif

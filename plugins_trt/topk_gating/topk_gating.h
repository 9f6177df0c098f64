// The kernels behind TopKGating, GroupedTopKGating and ExpertDispatch, as C functions.
//
// Contracts: graphs/moe_ops.py. Every function gives 0, or the number of what was wrong. Pointers
// are the device's, except of `host_` functions (host.cpp), which run the same code on the host.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "config.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct CUstream_st* ToolkitStream;

#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif

enum ToolkitType { TOOLKIT_FLOAT32 = 0, TOOLKIT_FLOAT16 = 1, TOOLKIT_BFLOAT16 = 2 };

enum ToolkitStatus {
    TOOLKIT_OK = 0,
    TOOLKIT_BAD_ATTRIBUTE = 1,  // an attribute is out of its range
    TOOLKIT_BAD_TYPE = 2,       // not a ToolkitType
    TOOLKIT_BAD_SIZE = 3,       // fewer than 0 tokens, or 2^31 slots or more
    TOOLKIT_LAUNCH_FAILED = 4,  // cudaGetLastError says why
};

// Which code a gating runs on: 0 the fast path of TopKGating, 1 that of GroupedTopKGating, 2 the
// general one; -1 for attributes out of their range.
int toolkit_gating_path(const ToolkitGating* gating);

// logits [tokens, E], bias [E] (NULL for TopKGating) -> weights [tokens, k], ids [tokens, k].
//
// Ties go to the lowest id; -0 equals 0; NaN stands above every number, as PyTorch and ONNX Runtime
// have it, and makes its token's weights NaN (only its own where scores are sigmoids and normalize
// is 0). Ids are k different experts whatever the logits are. Scores below 2^-126 are 0.
int toolkit_gating(const ToolkitGating* gating, int type, const void* logits, const void* bias,
                   int bias_type, int64_t tokens, float* weights, int64_t* ids,
                   ToolkitStream stream);

// How many bytes toolkit_dispatch needs beside its outputs.
size_t toolkit_dispatch_workspace(int num_experts, int64_t slots);

// ids [tokens, k] -> token_of_row [tokens * k], row_of_slot [tokens * k], offsets [E + 1],
// active [E] of one byte each, 0 or 1.
int toolkit_dispatch(int num_experts, int k, const int64_t* ids, int64_t tokens,
                     int64_t* token_of_row, int64_t* row_of_slot, int64_t* offsets,
                     unsigned char* active, void* workspace, ToolkitStream stream);

// table [E, capacity]: the token of each expert's c-th row; 0 in cells that no row needs.
int toolkit_padded_rows(int num_experts, const int64_t* token_of_row, const int64_t* offsets,
                        int64_t capacity, int64_t* table, ToolkitStream stream);

// The same on the host, whose memory the pointers are. `path` -1 takes the one that
// toolkit_gating_path names.
int host_gating(const ToolkitGating* gating, int type, const void* logits, const void* bias,
                int bias_type, int64_t tokens, float* weights, int64_t* ids, int path);
int host_dispatch(int num_experts, int k, const int64_t* ids, int64_t tokens,
                  int64_t* token_of_row, int64_t* row_of_slot, int64_t* offsets,
                  unsigned char* active);
int host_padded_rows(int num_experts, const int64_t* token_of_row, const int64_t* offsets,
                     int64_t capacity, int64_t* table);

#if defined(__GNUC__)
#pragma GCC visibility pop
#endif

#ifdef __cplusplus
}
#endif

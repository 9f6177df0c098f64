// One operator with its attributes fixed, as one kernel of PTX that an engine carries.
//
// toolkit/plugins/ptx.py compiles this: a gating with TOOLKIT_GATING, an initialiser of
// ToolkitGating, TOOLKIT_PATH, TOOLKIT_LANES, TOOLKIT_SCALAR and TOOLKIT_BIAS_TYPE; a dispatch with
// TOOLKIT_EXPERTS. Arguments come as TensorRT gives them: inputs, sizes, outputs.
#include "kernels.h"

using namespace toolkit;

#if defined(TOOLKIT_GATING)

extern "C" __global__ void __launch_bounds__(kThreads)
    toolkit_gating(const void* logits,
#if defined(TOOLKIT_BIAS_TYPE)
                   const void* bias,
#endif
                   int tokens, float* weights, i64* ids) {
    constexpr ToolkitGating gating = TOOLKIT_GATING;
#if TOOLKIT_PATH == 0
    run_fast<TOOLKIT_SCALAR, TOOLKIT_LANES, gating.normalize == 0>(gating, logits, tokens, weights,
                                                                   ids);
#elif TOOLKIT_PATH == 1
    run_grouped<TOOLKIT_SCALAR>(gating, logits, bias, TOOLKIT_BIAS_TYPE, tokens, weights, ids);
#elif defined(TOOLKIT_BIAS_TYPE)
    run_general<TOOLKIT_SCALAR>(gating, logits, bias, TOOLKIT_BIAS_TYPE, tokens, weights, ids);
#else
    run_general<TOOLKIT_SCALAR>(gating, logits, nullptr, 0, tokens, weights, ids);
#endif
}

#else

extern "C" __global__ void toolkit_dispatch(const i64* ids, int tokens, int k,
                                            i64* token_of_row, i64* row_of_slot, i64* offsets,
                                            unsigned char* active) {
    run_lone_dispatch(TOOLKIT_EXPERTS, k, ids, tokens * k, token_of_row, row_of_slot, offsets,
                      active);
}

#endif

// What attributes and sizes may be, the same for device and host.
#pragma once

#include "grouped.h"
#include "topk_gating.h"

namespace toolkit {

inline bool valid(const ToolkitGating* g) {
    if (!g || g->num_experts < 1 || g->num_experts > TOOLKIT_MAX_EXPERTS) return false;
    if (g->k < 1 || g->k > TOOLKIT_MAX_K || g->k > g->num_experts) return false;
    if (!g->grouped) return true;
    if (g->groups < 1 || g->num_experts % g->groups != 0) return false;
    return g->top_groups >= 1 && g->top_groups <= g->groups && g->group_top >= 1 &&
           g->group_top <= g->num_experts / g->groups;
}

inline int path_of(const ToolkitGating& g) {
    if (g.grouped) return fits_grouped(g) ? 1 : 2;
    return g.num_experts <= kFastExperts && g.k <= kFastK ? 0 : 2;
}

inline int check_gating(const ToolkitGating* g, int type, int bias_type, i64 tokens) {
    if (!valid(g)) return TOOLKIT_BAD_ATTRIBUTE;
    if (type < 0 || type > TOOLKIT_BFLOAT16) return TOOLKIT_BAD_TYPE;
    if (g->grouped && (bias_type < 0 || bias_type > TOOLKIT_BFLOAT16)) return TOOLKIT_BAD_TYPE;
    return tokens < 0 || tokens * g->k > 0x7fffffff ? TOOLKIT_BAD_SIZE : TOOLKIT_OK;
}

inline int check_dispatch(int experts, int k, i64 tokens) {
    if (experts < 1 || experts > TOOLKIT_MAX_EXPERTS || k < 1) return TOOLKIT_BAD_ATTRIBUTE;
    return tokens < 0 || tokens * k > 0x7fffffff ? TOOLKIT_BAD_SIZE : TOOLKIT_OK;
}

}  // namespace toolkit

// IPluginV3 of TopKGating, GroupedTopKGating and ExpertDispatch. Needs TensorRT's headers.
#pragma once

#include <NvInfer.h>

#include "topk_gating.h"

namespace toolkit {

enum class Kind { kPlain, kGrouped, kDispatch };

// How many creators there are, and they: static objects that live as long as the library.
constexpr int kCreators = 3;
nvinfer1::IPluginCreatorInterface* const* creators() noexcept;

// Where errors go. Each library says it in its own way.
nvinfer1::ILogger* logger() noexcept;

}  // namespace toolkit
